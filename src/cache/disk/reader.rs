//! Threads that read files.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::index::Name;
use super::large::Large;
use super::line::Next;
use super::{Open, Read, Shared};
use crate::cache::entry::Body;
use crate::cache::record::{self, OTHER_KEY, PRELUDE, Record, Refused};
use crate::cache::tags::Fate;

/// Most heads, and most small responses, are read whole by this.
const FIRST: u64 = 16 * 1024;
/// A file is read so often where purges end while it is read.
const READS: u32 = 8;
/// Larger bodies stay where they are.
pub const LARGE: u64 = 1 << 20;

/// Why there is no record.
enum Failure {
    Broken(io::Error),
    Refused(Refused),
    /// Purges ended while it was read, each time.
    Unsettled,
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::UnexpectedEof => Self::Refused(Refused("cut short")),
            _ => Self::Broken(e),
        }
    }
}

impl From<Refused> for Failure {
    fn from(e: Refused) -> Self {
        Self::Refused(e)
    }
}

pub fn run(shared: &Shared) {
    while let Next::Job(job) = shared.reads.next(None) {
        match job {
            Read::Record { open, key, name, to } if !to.is_closed() => {
                // Whoever asked may be gone.
                let _ = to.send(record_of(shared, &open, &key, name));
            }
            Read::Blocks { large, first, to } if !to.is_closed() => {
                let _ = to.send(blocks_of(shared, &large, first));
            }
            _ => {}
        }
    }
}

fn record_of(shared: &Shared, open: &Arc<Open>, key: &[u8], name: Name) -> Option<Record> {
    let read = settled(shared, open, key, name);
    if !matches!(read, Err(Failure::Broken(_))) {
        shared.read_worked();
    }
    match read {
        Ok(None) => {
            shared.index.remove(name);
            None
        }
        Ok(Some(record)) => {
            shared.index.touch(name);
            shared.vet(key, record)
        }
        Err(Failure::Refused(why)) => {
            if why != OTHER_KEY {
                shared.spoilt(name, why);
            }
            None
        }
        Err(Failure::Unsettled) => None,
        Err(Failure::Broken(e)) => {
            shared.counts.read_errors.fetch_add(1, Relaxed);
            shared.read_failed(&e);
            None
        }
    }
}

/// What stands in a file that no purge has ended on meanwhile: that removes the file and then its mark, so that neither would
/// be seen by who has opened the file before and looks for the mark after.
fn settled(shared: &Shared, open: &Arc<Open>, key: &[u8], name: Name) -> Result<Option<Record>, Failure> {
    for _ in 0..READS {
        let done = shared.purges().times_done();
        let found = read(shared, open, key, name)?;
        if found.is_none() || shared.purges().times_done() == done {
            return Ok(found);
        }
    }
    Err(Failure::Unsettled)
}

fn read(shared: &Shared, open: &Arc<Open>, key: &[u8], name: Name) -> Result<Option<Record>, Failure> {
    let file = match File::open(shared.folder.place(name)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let size = file.metadata()?.len();
    let mut start = vec![0; size.min(FIRST) as usize];
    file.read_exact_at(&mut start, 0)?;
    let head = PRELUDE + record::head_len(&start)?;
    if start.len() < head {
        let have = start.len();
        start.resize(head, 0);
        let rest = start.get_mut(have..).unwrap_or_default();
        file.read_exact_at(rest, have as u64)?;
    }
    let (head_text, begun) = start.split_at_checked(head).ok_or(Refused("cut short"))?;
    let opened = record::open(key, head_text)?;
    let length = opened.body.length;
    if size != head as u64 + length {
        return Err(Refused("of another length").into());
    }
    if length > LARGE && opened.is_whole() {
        let sums = opened.body.clone();
        let large = Large::new(open.clone(), file, name, head as u64, sums);
        let mut record = opened.record;
        if let Record::Response(kept) = &mut record {
            kept.body = Body::Stored(Arc::new(large));
        }
        return Ok(Some(record));
    }
    let mut body = Vec::with_capacity(length as usize);
    body.extend_from_slice(begun);
    let have = body.len();
    body.resize(length as usize, 0);
    let rest = body.get_mut(have..).unwrap_or_default();
    file.read_exact_at(rest, (head + have) as u64)?;
    Ok(Some(opened.with(body.into())?))
}

fn blocks_of(shared: &Shared, large: &Large, first: usize) -> Option<bytes::Bytes> {
    match large.blocks(first) {
        Ok(data) => {
            shared.read_worked();
            Some(data)
        }
        Err(e) => {
            match e.kind() {
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    shared.spoilt(large.name, Refused("its body is another"));
                }
                _ => {
                    shared.counts.read_errors.fetch_add(1, Relaxed);
                    shared.read_failed(&e);
                }
            }
            None
        }
    }
}

impl Shared {
    /// What purges left of a record.
    fn vet(&self, key: &[u8], mut record: Record) -> Option<Record> {
        if let Record::Response(kept) = &mut record {
            match self.purges().fate(key, kept.tags.iter().map(|tag| &**tag), kept.stamp) {
                Fate::Untouched => {}
                Fate::Expired(at) => kept.freshness.expire(at),
                Fate::Gone => return None,
            }
        }
        self.counts.hits.fetch_add(1, Relaxed);
        Some(record)
    }

    pub(super) fn read_failed(&self, e: &io::Error) {
        if self.reading.failed(Instant::now()) {
            self.warn("cannot be read", e);
        }
    }

    fn read_worked(&self) {
        if self.reading.worked() {
            tracing::info!(path = %self.folder.path.display(), "the disk of a cache can be read again");
        }
    }
}

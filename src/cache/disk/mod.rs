//! A folder behind a cache's memory: one file for each response, which survives restarts.
//!
//! A file is written beside, then renamed to its place: a process that is killed leaves the old one or the new one. What a
//! failing machine leaves is found by the checksums within (`cache/record.rs`). All of it is done by threads of its own; whoever
//! asks waits for a bounded time, and a fill that finds no room in line is not written. Which files there are is known
//! after a scan in the background; until then each is looked for where its key says it would be.

mod breaker;
mod folder;
mod index;
mod journal;
mod large;
mod line;
mod purges;
mod reader;
mod scan;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::oneshot;

pub use self::large::{Large, Unreadable};

use self::breaker::Breaker;
use self::folder::Folder;
use self::index::{Index, Name};
use self::journal::Journal;
use self::line::Line;
use self::purges::Purges;
use super::record::{Record, Refused};
use super::store::Budget;
use super::tier::{Purge, Reading, Settled, Tier};

/// Threads that read: what waits for a disk waits beside others.
const READERS: usize = 4;
/// For one read, waiting in line included: then the origin is faster.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
/// Reads in line.
const MAX_READS: usize = 1024;
/// Fills in line, beside their bytes.
const MAX_WRITES: usize = 4096;
/// Purges in line. With more, everything is purged.
const MAX_PURGES: usize = 1 << 16;
/// The part of the cache's memory that fills in line may take beside it.
const IN_LINE: u64 = 8;

/// What a disk is opened with.
#[derive(Debug, Clone)]
pub struct Settings {
    pub path: PathBuf,
    /// Bytes of all files.
    pub size: u64,
    /// Bytes of the memory before it.
    pub memory: u64,
    /// Of all that decides what a key is made of: with another one, nothing that is stored may be used.
    pub keys: u64,
}

/// A folder in use.
#[derive(Debug)]
pub struct Disk(Arc<Open>);

/// As long as somebody has this, its threads work.
#[derive(Debug)]
struct Open {
    shared: Arc<Shared>,
    /// Ends when everything is written.
    written: Mutex<mpsc::Receiver<()>>,
}

/// What its threads share.
#[derive(Debug)]
struct Shared {
    folder: Folder,
    index: Index,
    purges: Mutex<Purges>,
    reads: Line<Read>,
    writes: Line<Write>,
    /// Bytes of fills in line.
    in_line: Budget,
    reading: Breaker,
    writing: Breaker,
    counts: Counts,
    /// Where stamps begin.
    stamp: u64,
    size: AtomicU64,
    keys: AtomicU64,
    /// Times that everything was removed.
    wipes: AtomicU64,
    /// Something that has to go could not be noted: everything has to.
    lost: AtomicBool,
}

/// What happened since the start.
#[derive(Debug, Default)]
struct Counts {
    hits: AtomicU64,
    dropped: AtomicU64,
    spoilt: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    purge_errors: AtomicU64,
    evictions: AtomicU64,
}

/// A disk as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub path: PathBuf,
    pub entries: u64,
    pub bytes: u64,
    pub size: u64,
    /// Every file that was there at the start has been found.
    pub scanned: bool,
    /// Neither reads nor writes are held off because they fail.
    pub works: bool,
    /// Responses read.
    pub hits: u64,
    /// Fills that were not written: too many in line, or the disk fails.
    pub dropped: u64,
    /// Files that were not what had been written.
    pub spoilt: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub purge_errors: u64,
    pub evictions: u64,
}

#[derive(Debug)]
enum Read {
    Record {
        open: Arc<Open>,
        key: Box<[u8]>,
        name: Name,
        to: oneshot::Sender<Option<Record>>,
    },
    Blocks {
        large: Arc<Large>,
        first: usize,
        to: oneshot::Sender<Option<Bytes>>,
    },
}

#[derive(Debug)]
enum Write {
    Record {
        key: Box<[u8]>,
        name: Name,
        record: Record,
        /// Of the room in line.
        bytes: u64,
    },
    /// A file that is old or spoilt.
    Remove(Name),
    Purge {
        purge: Purge,
        soft: bool,
        stamp: u64,
        at: i64,
        to: oneshot::Sender<Result<(), String>>,
    },
    /// Keys are made of something else now.
    Keys(u64),
    /// Files may have to leave.
    Tidy,
}

impl Disk {
    /// Takes a folder. An error tells what to do about it.
    pub fn open(settings: &Settings) -> Result<Self, String> {
        let folder = Folder::take(&settings.path)?;
        let shown = settings.path.display();
        let journal = begin(&folder, settings.keys).map_err(|e| format!("cannot use {shown}: {e}"))?;
        let (journal, run, purges) = journal;
        let shared = Arc::new(Shared {
            folder,
            index: Index::new(settings.size),
            purges: Mutex::new(purges),
            reads: Line::default(),
            writes: Line::default(),
            in_line: Budget::new(settings.memory / IN_LINE),
            reading: Breaker::default(),
            writing: Breaker::default(),
            counts: Counts::default(),
            stamp: journal::first_stamp(run),
            size: AtomicU64::new(settings.size),
            keys: AtomicU64::new(settings.keys),
            wipes: AtomicU64::new(0),
            lost: AtomicBool::new(false),
        });
        let (ending, written) = mpsc::channel();
        // Threads started before one cannot be end with it.
        let open = Open {
            shared: shared.clone(),
            written: Mutex::new(written),
        };
        let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(run);
            thread.map(drop).map_err(|e| format!("no thread for {shown}: {e}"))
        };
        for _ in 0..READERS {
            let shared = shared.clone();
            spawn("cache-read", Box::new(move || reader::run(&shared)))?;
        }
        let own = shared.clone();
        spawn("cache-write", Box::new(move || writer::run(&own, journal, ending)))?;
        spawn("cache-scan", Box::new(move || scan::run(&shared)))?;
        Ok(Self(Arc::new(open)))
    }

    /// What entries and purges of this run are stamped with at least.
    pub fn stamp(&self) -> u64 {
        self.0.shared.stamp
    }

    pub fn path(&self) -> &Path {
        &self.0.shared.folder.path
    }

    /// Other sizes; or other keys, with which nothing that was stored may be used. `stamp`: of a purge that begins now.
    pub fn set(&self, settings: &Settings, stamp: u64) {
        let shared = &self.0.shared;
        shared.size.store(settings.size, Relaxed);
        shared.index.resize(settings.size);
        shared.in_line.resize(settings.memory / IN_LINE);
        // A full line is busy with the same.
        let _ = shared.writes.push(Write::Tidy, 1);
        if shared.keys.swap(settings.keys, Relaxed) != settings.keys {
            drop(self.purge(&Purge::All, false, stamp));
            // Where there is no room in line, the next start finds the old ones, and forgets everything.
            let _ = shared.writes.push(Write::Keys(settings.keys), MAX_PURGES);
        }
    }

    pub fn report(&self) -> Report {
        let shared = &self.0.shared;
        let counts = &shared.counts;
        Report {
            path: shared.folder.path.clone(),
            entries: shared.index.len() as u64,
            bytes: shared.index.bytes(),
            size: shared.size.load(Relaxed),
            scanned: shared.index.is_complete(),
            works: !shared.reading.is_open() && !shared.writing.is_open(),
            hits: counts.hits.load(Relaxed),
            dropped: counts.dropped.load(Relaxed),
            spoilt: counts.spoilt.load(Relaxed),
            read_errors: counts.read_errors.load(Relaxed),
            write_errors: counts.write_errors.load(Relaxed),
            purge_errors: counts.purge_errors.load(Relaxed),
            evictions: counts.evictions.load(Relaxed),
        }
    }

    async fn get(&self, key: &[u8]) -> Option<Record> {
        let shared = &self.0.shared;
        let name = index::name(key);
        if !shared.index.may_have(name) || !shared.reading.allows(Instant::now) {
            return None;
        }
        let (to, read) = oneshot::channel();
        shared.queue(Read::Record {
            open: self.0.clone(),
            key: key.into(),
            name,
            to,
        })?;
        match tokio::time::timeout(READ_TIMEOUT, read).await {
            Ok(read) => read.ok().flatten(),
            Err(_) => {
                shared.late();
                None
            }
        }
    }
}

impl Tier for Disk {
    fn read<'a>(&'a self, key: &'a [u8], _fetches: bool) -> Reading<'a> {
        Box::pin(self.get(key))
    }

    fn write(&self, key: &[u8], record: &Record) {
        let shared = &self.0.shared;
        let name = index::name(key);
        let bytes = writer::length(key, record);
        let may = writer::is_for_disk(record) && shared.index.takes(bytes);
        // What stays in its file takes no memory in line.
        let held = writer::held(key, record);
        let fits = may && shared.writing.allows(Instant::now) && shared.in_line.take(held);
        let queued = fits && {
            let job = Write::Record {
                key: key.into(),
                name,
                record: record.clone(),
                bytes: held,
            };
            let queued = shared.writes.push(job, MAX_WRITES).is_ok();
            if !queued {
                shared.in_line.give(held);
            }
            queued
        };
        if !queued {
            if may {
                shared.counts.dropped.fetch_add(1, Relaxed);
            }
            // What stands there is older than what memory has.
            shared.remove(name);
        }
    }

    fn purge(&self, purge: &Purge, soft: bool, stamp: u64) -> Settled {
        let shared = &self.0.shared;
        let at = wall();
        shared.purges().note(purge, soft, stamp, at);
        let (to, settled) = oneshot::channel();
        let job = Write::Purge {
            purge: purge.clone(),
            soft,
            stamp,
            at,
            to,
        };
        if shared.writes.push(job, MAX_PURGES).is_err() {
            shared.counts.purge_errors.fetch_add(1, Relaxed);
            shared.purges().note(&Purge::All, false, stamp, at);
            shared.lost.store(true, Relaxed);
            return Box::pin(std::future::ready(Err("too many purges are in line".to_owned())));
        }
        Box::pin(async { settled.await.unwrap_or_else(|_| Err("the process ends".to_owned())) })
    }

    fn close(&self, most: Duration) {
        let open = &self.0;
        open.shared.close();
        let written = open.written.lock().unwrap_or_else(PoisonError::into_inner);
        // Either way it ends here.
        let _ = written.recv_timeout(most);
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl Shared {
    fn close(&self) {
        self.reads.close();
        self.writes.close();
    }

    fn purges(&self) -> MutexGuard<'_, Purges> {
        self.purges.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: too many wait.
    fn queue(&self, job: Read) -> Option<()> {
        let queued = self.reads.push(job, MAX_READS).ok();
        if queued.is_none() {
            self.counts.read_errors.fetch_add(1, Relaxed);
        }
        queued
    }

    /// A read was not answered in time.
    fn late(&self) {
        self.counts.read_errors.fetch_add(1, Relaxed);
        self.read_failed(&io::ErrorKind::TimedOut.into());
    }

    /// A file that is not what was written.
    fn spoilt(&self, name: Name, why: Refused) {
        // Nobody reads it again, and it goes.
        self.index.remove(name);
        let n = self.counts.spoilt.fetch_add(1, Relaxed);
        if n < 10 || n.is_multiple_of(1000) {
            let path = self.folder.place(name);
            tracing::warn!(path = %path.display(), why = why.0, "a file of a cache is not what was written, and is removed");
        }
        self.remove(name);
    }

    fn remove(&self, name: Name) {
        if self.writes.push(Write::Remove(name), MAX_PURGES).is_err() {
            // Nothing that is older may come to light again.
            self.lost.store(true, Relaxed);
        }
    }

    fn warn(&self, what: &str, e: &io::Error) {
        tracing::warn!(path = %self.folder.path.display(), error = %e, "the disk of a cache {what}: the cache goes on without");
    }
}

/// Milliseconds since 1970.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as i64)
}

/// Begins a run with what is known of the ones before; where that is nothing, with an empty folder.
fn begin(folder: &Folder, keys: u64) -> io::Result<(Journal, u64, Purges)> {
    let told = journal::read(&folder.journal())?;
    let (run, purges) = match told {
        Some(told) if told.settings == keys => (told.run, told.purges),
        other => {
            // Also where its journal was lost: what was purged is not known.
            folder.forget_all()?;
            (other.map_or(0, |told| told.run), Purges::default())
        }
    };
    let run = run + 1;
    let journal = match Journal::begin(folder.journal(), run, keys, &purges) {
        Err(e) if e.kind() == io::ErrorKind::StorageFull => {
            // Better empty than not there.
            folder.forget_all()?;
            folder.clean();
            Journal::begin(folder.journal(), run, keys, &purges)?
        }
        begun => begun?,
    };
    Ok((journal, run, purges))
}

#[cfg(test)]
mod tests;

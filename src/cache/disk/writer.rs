//! The thread that writes: fills, purges and removals, in the order they came.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::index::{self, Name};
use super::journal::Journal;
use super::line::Next;
use super::reader::LARGE;
use super::{Large, Shared, Write};
use crate::cache::entry::Body;
use crate::cache::record::{self, BLOCK, PRELUDE, Record};
use crate::cache::tags::Fate;
use crate::cache::tier::Purge;

/// What could not be done is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Up to so many bytes a file is written at once.
const AT_ONCE: usize = 64 * 1024;
/// Files that could not be removed; more, and everything is forgotten.
const MAX_LEFT: usize = 4096;

struct Writer {
    shared: Arc<Shared>,
    journal: Journal,
    /// Files that have to go.
    left: Vec<Name>,
    /// The journal does not say all that was purged, or a file is left.
    behind: bool,
}

/// Bytes of a record's file, about.
pub fn length(key: &[u8], record: &Record) -> u64 {
    let body = match record {
        Record::Response(kept) => kept.body.stored(),
        Record::Varies { .. } => 0,
    };
    held(key, record).max(body + body / BLOCK as u64 * 8 + PRELUDE as u64)
}

/// Bytes of memory a record takes in line.
pub fn held(key: &[u8], record: &Record) -> u64 {
    let rest = match record {
        Record::Response(kept) => {
            let tags: usize = kept.tags.iter().map(|tag| tag.len() + 2).sum();
            let chunks = kept.body.chunks().iter().map(Bytes::len).sum::<usize>();
            kept.head.len() + tags + chunks
        }
        Record::Varies { vary, .. } => vary.len() * 64,
    };
    (PRELUDE + 128 + key.len() + rest) as u64
}

/// Parts that are larger than what is read at once are not.
pub fn is_for_disk(record: &Record) -> bool {
    match record {
        Record::Response(kept) => kept.body.is_whole() || kept.body.stored() <= LARGE,
        Record::Varies { .. } => true,
    }
}

pub fn run(shared: &Arc<Shared>, journal: Journal, ending: mpsc::Sender<()>) {
    let mut writer = Writer {
        shared: shared.clone(),
        journal,
        left: Vec::new(),
        behind: false,
    };
    loop {
        match shared.writes.next(writer.behind.then_some(RETRY)) {
            Next::Job(job) => writer.work(job),
            Next::Late => writer.catch_up(),
            Next::Closed => break,
        }
        writer.tidy();
    }
    if writer.behind {
        writer.catch_up();
    }
    drop(ending);
}

impl Writer {
    fn work(&mut self, job: Write) {
        if self.shared.lost.swap(false, Relaxed)
            && let Err(e) = self.forget_all()
        {
            self.shared.lost.store(true, Relaxed);
            self.failed(&e);
        }
        match job {
            Write::Record {
                key,
                name,
                record,
                bytes,
            } => {
                self.write(&key, name, &record);
                self.shared.in_line.give(bytes);
            }
            Write::Remove(name) => self.remove(name),
            Write::Purge {
                purge,
                soft,
                stamp,
                at,
                to,
            } => {
                let purged = self.purge(&purge, soft, stamp, at).map_err(|e| {
                    self.shared.counts.purge_errors.fetch_add(1, Relaxed);
                    self.behind = true;
                    self.failed(&e);
                    format!("{}: {e}", self.shared.folder.path.display())
                });
                // Whoever purged may not wait.
                let _ = to.send(purged);
            }
            Write::Keys(keys) => {
                if keys != self.journal.settings {
                    self.journal.settings = keys;
                    self.rewrite();
                }
            }
            Write::Tidy => {}
        }
    }

    fn write(&mut self, key: &[u8], name: Name, record: &Record) {
        let shared = &self.shared;
        if let Record::Response(kept) = record {
            let tags = kept.tags.iter().map(|tag| &**tag);
            // A purge that came meanwhile means it.
            if shared.purges().fate(key, tags, kept.stamp) != Fate::Untouched {
                return;
            }
        }
        let temporary = shared.folder.temporary();
        let written = write_file(&temporary, key, record).and_then(|length| {
            self.put(&temporary, name)?;
            Ok(length)
        });
        match written {
            Ok(length) => {
                shared.index.insert(name, length);
                if shared.writing.worked() {
                    tracing::info!(path = %shared.folder.path.display(), "the disk of a cache can be written again");
                }
            }
            Err(e) => {
                // Not there, or in its place already.
                let _ = std::fs::remove_file(&temporary);
                if e.kind() == io::ErrorKind::InvalidData {
                    shared.counts.spoilt.fetch_add(1, Relaxed);
                } else {
                    shared.counts.write_errors.fetch_add(1, Relaxed);
                    self.failed(&e);
                }
                // What stands there is older.
                self.remove(name);
            }
        }
    }

    fn put(&self, temporary: &Path, name: Name) -> io::Result<()> {
        let place = self.shared.folder.place(name);
        match std::fs::rename(temporary, &place) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = place.parent() {
                    std::fs::create_dir(folder)?;
                }
                std::fs::rename(temporary, &place)
            }
            done => done,
        }
    }

    fn purge(&mut self, purge: &Purge, soft: bool, stamp: u64, at: i64) -> io::Result<()> {
        if let (Purge::Url(url), false) = (purge, soft) {
            self.purge_url(url)?;
            self.shared.purges().done(url, stamp);
            return Ok(());
        }
        if let Err(e) = self.journal.append(purge, soft, stamp, at) {
            self.behind = true;
            self.failed(&e);
            // What cannot be noted holds all the same where nothing is left.
            return self.forget_all().map_err(|_| e);
        }
        if (purge, soft) == (&Purge::All, false) {
            // What it means is out of reach already: this gives the room back.
            self.forget_all()?;
        }
        if self.journal.is_long() {
            self.rewrite();
        }
        Ok(())
    }

    fn purge_url(&self, url: &[u8]) -> io::Result<()> {
        let name = index::name(url);
        if self.shared.index.may_have(name) {
            self.unlink(name)?;
            self.shared.index.remove(name);
        }
        Ok(())
    }

    fn unlink(&self, name: Name) -> io::Result<()> {
        match std::fs::remove_file(self.shared.folder.place(name)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    fn remove(&mut self, name: Name) {
        self.shared.index.remove(name);
        if let Err(e) = self.unlink(name) {
            self.failed(&e);
            self.behind = true;
            if self.left.len() < MAX_LEFT {
                self.left.push(name);
            } else {
                self.shared.lost.store(true, Relaxed);
            }
        }
    }

    /// Files that had to make room.
    fn tidy(&mut self) {
        for name in self.shared.index.leaving() {
            // It may have been written again.
            if self.shared.index.contains(name) {
                continue;
            }
            self.shared.counts.evictions.fetch_add(1, Relaxed);
            if let Err(e) = self.unlink(name) {
                self.failed(&e);
                self.behind = true;
                if self.left.len() < MAX_LEFT {
                    self.left.push(name);
                }
            }
        }
    }

    fn forget_all(&self) -> io::Result<()> {
        let shared = &self.shared;
        shared.folder.forget_all()?;
        shared.wipes.fetch_add(1, Relaxed);
        shared.index.clear();
        let own = shared.clone();
        let cleaner = std::thread::Builder::new().name("cache-clean".to_owned());
        // Without a thread for it the next start does it.
        let _ = cleaner.spawn(move || own.folder.clean());
        Ok(())
    }

    fn rewrite(&mut self) {
        let text = self.journal.whole(&self.shared.purges());
        if let Err(e) = self.journal.rewrite(&text) {
            self.behind = true;
            self.failed(&e);
        }
    }

    /// Does what could not be done.
    fn catch_up(&mut self) {
        self.behind = false;
        if self.shared.lost.swap(false, Relaxed) && self.forget_all().is_err() {
            self.shared.lost.store(true, Relaxed);
            self.behind = true;
        }
        let undone = self.shared.purges().undone();
        for (url, stamp) in undone {
            match self.purge_url(&url) {
                Ok(()) => self.shared.purges().done(&url, stamp),
                Err(_) => self.behind = true,
            }
        }
        let left = std::mem::take(&mut self.left);
        self.left = left.into_iter().filter(|name| self.unlink(*name).is_err()).collect();
        self.behind |= !self.left.is_empty();
        self.rewrite();
        if !self.behind {
            tracing::info!(path = %self.shared.folder.path.display(), "the disk of a cache has taken note of every purge");
        }
    }

    fn failed(&self, e: &io::Error) {
        if self.shared.writing.failed(Instant::now()) {
            self.shared.warn("cannot be written", e);
        }
    }
}

/// How long it has become.
fn write_file(path: &Path, key: &[u8], record: &Record) -> io::Result<u64> {
    let record::Encoded { head, body } = record::encode(key, record);
    let length = head.len() as u64 + body.stored();
    let mut file = File::options().write(true).create_new(true).open(path)?;
    if let Body::Stored(large) = &body {
        file.write_all(&head)?;
        copy(large, &mut file)?;
    } else if length <= AT_ONCE as u64 {
        file.write_all(&[&head[..], &body.chunks().concat()].concat())?;
    } else {
        file.write_all(&head)?;
        body.chunks().iter().try_for_each(|chunk| file.write_all(chunk))?;
    }
    Ok(length)
}

/// The body of another file; each block is checked on its way.
fn copy(large: &Large, to: &mut File) -> io::Result<()> {
    let mut first = 0;
    loop {
        let data = large.blocks(first)?;
        if data.is_empty() {
            return Ok(());
        }
        to.write_all(&data)?;
        first += data.len().div_ceil(BLOCK);
    }
}

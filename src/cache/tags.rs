//! Groups of entries (`Surrogate-Key`, `Cache-Tag`): purging one costs the same however many are in it, because an
//! entry knows its groups and looks whether they were purged when it is found.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fields::Fields;

/// Groups of one response; more are left out.
pub const MAX_TAGS: usize = 128;
/// Bytes of a group's name; longer ones are left out.
pub const MAX_NAME: usize = 256;
/// A group without entries is forgotten so many milliseconds after its purge: responses that were on their way then
/// have come.
const REMEMBERED: i64 = 600_000;
/// Groups there may be before those without entries are looked for.
const SWEEP: usize = 1024;
/// Milliseconds between two looks for want of room.
const SWEEP_PAUSE: i64 = 1000;
/// What a group costs beside its name.
const PER_TAG: u64 = 160;

/// One group.
#[derive(Debug, Default)]
pub struct Tag {
    pub name: Box<[u8]>,
    purged: Purged,
}

/// When something was purged last.
#[derive(Debug, Default)]
pub struct Purged {
    /// Entries with a lower stamp are gone.
    hard: AtomicU64,
    /// Entries with a lower stamp are stale since.
    soft: AtomicU64,
    soft_at: AtomicI64,
    at: AtomicI64,
}

/// What purges did to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Untouched,
    /// Stale since then.
    Expired(i64),
    Gone,
}

impl Purged {
    pub fn purge(&self, soft: bool, stamp: u64, now: i64) {
        self.at.store(now, Relaxed);
        if soft {
            self.soft_at.store(now, Relaxed);
            self.soft.store(stamp, Relaxed);
        } else {
            self.hard.store(stamp, Relaxed);
        }
    }

    pub fn fate(&self, stamp: u64) -> Fate {
        if stamp < self.hard.load(Relaxed) {
            Fate::Gone
        } else if stamp < self.soft.load(Relaxed) {
            Fate::Expired(self.soft_at.load(Relaxed))
        } else {
            Fate::Untouched
        }
    }
}

/// All groups of a cache.
#[derive(Debug)]
pub struct Tags(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    tags: HashSet<Named>,
    sweep_at: usize,
    swept: i64,
    /// Bytes they take, and may.
    bytes: u64,
    most: u64,
}

/// A group, found by its name.
#[derive(Debug)]
struct Named(Arc<Tag>);

impl Borrow<[u8]> for Named {
    fn borrow(&self) -> &[u8] {
        &self.0.name
    }
}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Named {}

/// There is no room for another group.
#[derive(Debug)]
pub struct Full;

impl Tags {
    /// `most`: bytes for all groups together.
    pub fn new(most: u64) -> Self {
        Self(Mutex::new(Table {
            most,
            ..Table::default()
        }))
    }

    pub fn resize(&self, most: u64) {
        self.lock().most = most;
    }

    /// Bytes they take.
    pub fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The groups a response says it is in.
    pub fn of(&self, fields: &Fields, now: i64) -> Result<Option<Box<[Arc<Tag>]>>, Full> {
        let surrogate = http::HeaderName::from_static("surrogate-key");
        let cache = http::HeaderName::from_static("cache-tag");
        let spaced = fields.named(&surrogate).flat_map(|line| line.split(|b| *b == b' '));
        let listed = fields.named(&cache).flat_map(|line| line.split(|b| *b == b','));
        let names = spaced.chain(listed).map(<[u8]>::trim_ascii);
        let mut names = names.filter(|name| (1..=MAX_NAME).contains(&name.len())).peekable();
        match names.peek() {
            Some(_) => self.named(names, now).map(Some),
            None => Ok(None),
        }
    }

    /// The groups of these names.
    pub fn named<'a>(&self, names: impl Iterator<Item = &'a [u8]>, now: i64) -> Result<Box<[Arc<Tag>]>, Full> {
        let table = &mut *self.lock();
        names.take(MAX_TAGS).map(|name| table.tag(name, now)).collect()
    }

    /// Purges a group; tells how many entries it had.
    pub fn purge(&self, name: &[u8], soft: bool, stamp: u64, now: i64) -> usize {
        if name.is_empty() || name.len() > MAX_NAME {
            return 0;
        }
        let table = &mut *self.lock();
        // Also where there is no room: a response that is on its way may be in it.
        let tag = table.tag(name, now).unwrap_or_else(|Full| table.add(name));
        tag.purged.purge(soft, stamp, now);
        Arc::strong_count(&tag).saturating_sub(2)
    }

    /// How many entries a group has.
    pub fn count(&self, name: &[u8]) -> usize {
        let table = &*self.lock();
        table.tags.get(name).map_or(0, |tag| Arc::strong_count(&tag.0) - 1)
    }
}

impl Table {
    fn tag(&mut self, name: &[u8], now: i64) -> Result<Arc<Tag>, Full> {
        if let Some(tag) = self.tags.get(name) {
            return Ok(tag.0.clone());
        }
        let cost = PER_TAG + name.len() as u64;
        let full = self.bytes + cost > self.most && now - self.swept >= SWEEP_PAUSE;
        if full || self.tags.len() >= self.sweep_at.max(SWEEP) {
            self.sweep(now);
        }
        match self.bytes + cost > self.most {
            true => Err(Full),
            false => Ok(self.add(name)),
        }
    }

    fn add(&mut self, name: &[u8]) -> Arc<Tag> {
        self.bytes += PER_TAG + name.len() as u64;
        let tag = Arc::new(Tag {
            name: name.into(),
            purged: Purged::default(),
        });
        self.tags.insert(Named(tag.clone()));
        tag
    }

    /// Forgets groups without entries.
    fn sweep(&mut self, now: i64) {
        self.tags.retain(|Named(tag)| {
            Arc::strong_count(tag) > 1
                || (tag.purged.at.load(Relaxed) != 0 && now - tag.purged.at.load(Relaxed) < REMEMBERED)
        });
        self.bytes = self.tags.iter().map(|tag| PER_TAG + tag.0.name.len() as u64).sum();
        self.sweep_at = self.tags.len() * 2;
        self.swept = now;
    }
}

/// What the purges of its groups did to an entry with this stamp.
pub fn fate(tags: &[Arc<Tag>], stamp: u64) -> Fate {
    let mut fate = Fate::Untouched;
    for tag in tags {
        match tag.purged.fate(stamp) {
            Fate::Untouched => {}
            Fate::Gone => return Fate::Gone,
            expired @ Fate::Expired(_) => fate = expired,
        }
    }
    fate
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &'static str, value: &str) -> Fields {
        let mut fields = Fields::default();
        fields.append_text(name, value.as_bytes());
        fields
    }

    #[test]
    fn groups_are_purged_at_once_and_later_entries_are_not() {
        let tags = Tags::new(1 << 30);
        let a = tags.of(&fields("surrogate-key", "one two  three"), 0).unwrap().unwrap();
        let b = tags.of(&fields("cache-tag", "two, four"), 0).unwrap().unwrap();
        assert_eq!((a.len(), b.len()), (3, 2));
        assert!(tags.of(&fields("x", "y"), 0).unwrap().is_none());
        assert_eq!((tags.count(b"two"), tags.count(b"one"), tags.count(b"none")), (2, 1, 0));
        assert_eq!(tags.purge(b"two", false, 1, 5), 2);
        assert_eq!(
            (fate(&a, 0), fate(&b, 0), fate(&a, 1)),
            (Fate::Gone, Fate::Gone, Fate::Untouched)
        );
        assert_eq!(tags.purge(b"four", true, 2, 7), 1);
        assert_eq!(
            (fate(&a, 1), fate(&b, 1), fate(&b, 2)),
            (Fate::Untouched, Fate::Expired(7), Fate::Untouched)
        );
        drop(b);
        assert_eq!(tags.count(b"two"), 1);
    }

    #[test]
    fn what_was_on_its_way_when_its_group_was_purged_is_gone_too() {
        let tags = Tags::new(1 << 30);
        assert_eq!(tags.purge(b"new", false, 1, 5), 0);
        let late = tags.of(&fields("surrogate-key", "new"), 6).unwrap().unwrap();
        assert_eq!((fate(&late, 0), fate(&late, 1)), (Fate::Gone, Fate::Untouched));
    }

    #[test]
    fn groups_without_entries_are_forgotten() {
        let tags = Tags::new(1 << 30);
        for n in 0..100_000 {
            drop(tags.of(&fields("cache-tag", &format!("t{n}")), n));
        }
        assert!(tags.0.lock().unwrap().tags.len() <= SWEEP + 1);
        let many = vec!["t"; 10_000].join(" ");
        assert_eq!(
            tags.of(&fields("surrogate-key", &many), 0).unwrap().unwrap().len(),
            MAX_TAGS
        );
    }

    #[test]
    fn there_is_an_end_to_the_groups_there_are() {
        let tags = Tags::new(100_000);
        let of = |n: i64, now| tags.of(&fields("cache-tag", &format!("{n:0200}")), now);
        let held: Vec<_> = (0..1000).map_while(|n| of(n, 0).ok()).collect();
        assert!(
            (200..300).contains(&held.len()) && tags.bytes() <= 100_000,
            "{}",
            held.len()
        );
        assert!(of(1001, SWEEP_PAUSE).is_err());
        assert!(of(1, SWEEP_PAUSE).is_ok(), "it is there already");
        drop(held);
        assert!(of(1001, SWEEP_PAUSE + 1).is_err(), "not looked at so soon");
        assert!(of(1001, 2 * SWEEP_PAUSE).is_ok() && tags.bytes() < 1000);
    }
}

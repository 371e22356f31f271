//! The store in memory: entries by key, bounded by their bytes, shared by all workers.

use std::convert::Infallible;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use foldhash::quality::RandomState;
use quick_cache::sync::Cache as Map;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use super::entry::Entry;
use super::freshness::Freshness;
use super::key::Key;
use super::search::Known;
use super::tags::{self, Fate, Purged, Tags};
use super::vary::{self, Vary};
use crate::fields::Fields;

/// Bodies under way may take this part of the memory, the store has the rest.
const UNDER_WAY: u64 = 8;
/// The names of groups may take this part of it, beside it.
const TAGS: u64 = 16;
/// Entries a shard has room for at least, were they all as large as may be.
const LARGEST_PER_SHARD: u64 = 8;
const MAX_SHARDS: u64 = 64;
/// A guess that only sizes the first table.
const USUAL_ENTRY: u64 = 16 * 1024;

/// What stands at a key.
#[derive(Debug, Clone)]
enum Slot {
    Entry(Arc<Entry>),
    /// The responses here vary: each has a key of its own behind this one.
    Varies(Arc<Variants>),
    /// Answers here are not stored: nobody waits for another's until then.
    Pass(i64),
    /// What a path says of its queries.
    Rule(Arc<Known>),
}

impl Slot {
    /// What a purge counts.
    fn is_response(&self) -> bool {
        !matches!(self, Self::Rule(_))
    }
}

#[derive(Debug)]
struct Variants {
    vary: Vary,
    /// Part of the variants' keys: another number, and all of them are out of reach. No other process has it, for they may
    /// be found after this one has ended.
    id: u64,
    /// Those with a lower stamp are stale since.
    expired: Purged,
}

/// What was found.
#[derive(Debug)]
pub enum Found {
    Nothing,
    /// Nothing for this variant; there are others.
    OtherVariant,
    Pass,
    Entry(Arc<Entry>, Freshness),
}

/// Entries by key.
#[derive(Debug)]
pub struct Store {
    map: Map<Box<[u8]>, Slot, Weigh, RandomState, Evictions>,
    next_id: AtomicU64,
    ids: RandomState,
    /// Counts purges.
    stamp: AtomicU64,
    purged: Purged,
    pub tags: Tags,
    evictions: Arc<AtomicU64>,
    under_way: Arc<Budget>,
}

/// Bytes of bodies that are being fetched.
#[derive(Debug)]
pub struct Budget {
    used: AtomicU64,
    max: AtomicU64,
}

impl Budget {
    pub fn new(max: u64) -> Self {
        Self {
            used: AtomicU64::new(0),
            max: AtomicU64::new(max),
        }
    }

    pub fn resize(&self, max: u64) {
        self.max.store(max, Relaxed);
    }

    /// Takes `n` bytes, where there is room for them.
    pub fn take(&self, n: u64) -> bool {
        let before = self.used.fetch_add(n, Relaxed);
        let fits = before.saturating_add(n) <= self.max.load(Relaxed);
        if !fits {
            self.give(n);
        }
        fits
    }

    /// Whether there is room for `n` bytes now.
    pub fn has_room(&self, n: u64) -> bool {
        self.used().saturating_add(n) <= self.max.load(Relaxed)
    }

    pub fn give(&self, n: u64) {
        self.used.fetch_sub(n, Relaxed);
    }

    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Box<[u8]>, Slot> for Weigh {
    fn weight(&self, key: &Box<[u8]>, slot: &Slot) -> u64 {
        match slot {
            Slot::Entry(entry) => entry.weight(key.len()),
            Slot::Varies(variants) => (200 + key.len() + variants.vary.len() * 64) as u64,
            Slot::Pass(_) => (120 + key.len()) as u64,
            Slot::Rule(known) => (120 + key.len() + known.weight()) as u64,
        }
    }
}

#[derive(Debug, Clone)]
struct Evictions(Arc<AtomicU64>);

impl Lifecycle<Box<[u8]>, Slot> for Evictions {
    /// Freed when the shard is not locked any more.
    type RequestState = Vec<(Box<[u8]>, Slot)>;

    fn on_evict(&self, state: &mut Self::RequestState, key: Box<[u8]>, slot: Slot) {
        self.0.fetch_add(1, Relaxed);
        state.push((key, slot));
    }
}

/// The largest entry a store of so many bytes takes.
pub fn largest(memory: u64) -> u64 {
    memory / (2 * UNDER_WAY)
}

impl Store {
    /// `memory`: bytes for everything together.
    pub fn new(memory: u64) -> Self {
        let capacity = memory - memory / UNDER_WAY;
        let shards = (capacity / (largest(memory).max(1) * LARGEST_PER_SHARD)).clamp(1, MAX_SHARDS);
        let evictions = Arc::new(AtomicU64::new(0));
        let options = OptionsBuilder::new()
            .shards(shards.next_power_of_two() as usize)
            .weight_capacity(capacity)
            .estimated_items_capacity((capacity / USUAL_ENTRY).clamp(16, 1 << 16) as usize)
            .build();
        let lifecycle = Evictions(evictions.clone());
        let map = match options {
            Ok(options) => Map::with_options(options, Weigh, RandomState::default(), lifecycle),
            // Only missing sizes are errors, and both are there.
            Err(_) => Map::with(16, capacity, Weigh, RandomState::default(), lifecycle),
        };
        Self {
            map,
            next_id: AtomicU64::new(1),
            ids: RandomState::default(),
            stamp: AtomicU64::new(0),
            purged: Purged::default(),
            tags: Tags::new(memory / TAGS),
            evictions,
            under_way: Arc::new(Budget::new(memory / UNDER_WAY)),
        }
    }

    /// Another size; what is too much is evicted.
    pub fn resize(&self, memory: u64) {
        let capacity = memory - memory / UNDER_WAY;
        if capacity != self.map.capacity() {
            self.map.set_capacity(capacity);
            self.under_way.resize(memory / UNDER_WAY);
            self.tags.resize(memory / TAGS);
        }
    }

    pub fn under_way(&self) -> &Arc<Budget> {
        &self.under_way
    }

    /// What a response that is asked for now is stamped with.
    pub fn stamp(&self) -> u64 {
        self.stamp.load(Relaxed)
    }

    /// What a purge that begins now is stamped with at least.
    pub fn next_stamp(&self) -> u64 {
        self.stamp.fetch_add(1, Relaxed) + 1
    }

    /// Purges before this process were stamped with less.
    pub fn begin_stamps(&self, at: u64) {
        self.stamp.fetch_max(at, Relaxed);
    }

    /// What is there for `request`. Where responses vary, `key` becomes its variant's.
    pub fn find(&self, key: &mut Key, request: &Fields, now: i64) -> Found {
        key.text.truncate(key.primary);
        let slot = self.map.get(key.text.as_slice());
        match slot {
            // No request has a rule's key.
            None | Some(Slot::Rule(_)) => Found::Nothing,
            Some(Slot::Pass(until)) => pass(until, now),
            Some(Slot::Entry(entry)) => self.usable(entry, None),
            Some(Slot::Varies(variants)) => {
                if Self::to_variant(key, &variants, request).is_none() {
                    return Found::Pass;
                }
                match self.map.get(key.text.as_slice()) {
                    Some(Slot::Entry(entry)) => match self.usable(entry, Some(&variants)) {
                        Found::Nothing => Found::OtherVariant,
                        found => found,
                    },
                    Some(Slot::Pass(until)) => pass(until, now),
                    _ => Found::OtherVariant,
                }
            }
        }
    }

    fn to_variant(key: &mut Key, variants: &Variants, request: &Fields) -> Option<()> {
        key.text.truncate(key.primary);
        key.text.push(b'\n');
        key.text.extend_from_slice(&variants.id.to_be_bytes());
        vary::variant(&variants.vary, request, &mut key.text)
    }

    fn usable(&self, entry: Arc<Entry>, variants: Option<&Variants>) -> Found {
        let meta = &entry.meta;
        let mut freshness = meta.freshness;
        let groups = meta
            .tags
            .as_deref()
            .map_or(Fate::Untouched, |tags| tags::fate(tags, meta.stamp));
        let all = self.purged.fate(meta.stamp);
        let here = variants.map_or(Fate::Untouched, |v| v.expired.fate(meta.stamp));
        for fate in [all, groups, here] {
            match fate {
                Fate::Untouched => {}
                Fate::Expired(at) => freshness.expire(at),
                Fate::Gone => return Found::Nothing,
            }
        }
        Found::Entry(entry, freshness)
    }

    /// Where a response that varies so belongs: `key` becomes its key. `None`: nowhere.
    pub fn place(&self, key: &mut Key, vary: &Vary, request: &Fields) -> Option<()> {
        if vary.is_empty() {
            key.text.truncate(key.primary);
            return Some(());
        }
        let new = || {
            Slot::Varies(Arc::new(Variants {
                vary: vary.clone(),
                id: self.ids.hash_one(self.next_id.fetch_add(1, Relaxed)),
                expired: Purged::default(),
            }))
        };
        let here = match self.map.peek(key.primary()) {
            Some(slot) => slot,
            // Whoever does the same at once gets the same one.
            None => {
                let url: Box<[u8]> = key.primary().into();
                let Ok(slot) = self.map.get_or_insert_with(&url, || Ok::<_, Infallible>(new()));
                slot
            }
        };
        match here {
            Slot::Varies(variants) if variants.vary == *vary => Self::to_variant(key, &variants, request),
            _ => {
                let slot = new();
                self.map.insert(key.primary().into(), slot.clone());
                match slot {
                    Slot::Varies(variants) => Self::to_variant(key, &variants, request),
                    _ => None,
                }
            }
        }
    }

    /// What responses at a variant's key vary by, and the number in it.
    pub fn varies(&self, key: &Key) -> Option<(Vary, u64)> {
        if key.text.len() == key.primary {
            return None;
        }
        match self.map.peek(key.primary()) {
            // Another response may have come meanwhile, that varies by something else.
            Some(Slot::Varies(own))
                if key
                    .text
                    .get(key.primary + 1..)
                    .is_some_and(|id| id.starts_with(&own.id.to_be_bytes())) =>
            {
                Some((own.vary.clone(), own.id))
            }
            _ => None,
        }
    }

    /// Takes over what responses at a key vary by, and the number in their keys.
    pub fn adopt(&self, key: &Key, vary: &Vary, id: u64) {
        if !matches!(self.map.peek(key.primary()), Some(Slot::Varies(own)) if own.id == id) {
            let variants = Variants {
                vary: vary.clone(),
                id,
                expired: Purged::default(),
            };
            self.map.insert(key.primary().into(), Slot::Varies(Arc::new(variants)));
        }
    }

    /// What purges since it was asked for did to an entry.
    pub fn vet(&self, entry: Arc<Entry>) -> Found {
        self.usable(entry, None)
    }

    /// Tells requests apart by `vary` before a response says by what they differ: until then all would wait for one.
    pub fn expect(&self, key: &mut Key, vary: &Vary, request: &Fields) {
        // Where that is too much for a key, it stays as it is.
        let _ = match self.map.peek(key.primary()) {
            None => self.place(key, vary, request),
            // Another has been faster since this one looked.
            Some(Slot::Varies(variants)) => Self::to_variant(key, &variants, request),
            Some(_) => None,
        };
    }

    /// Stores at a key that [`Self::place`] made, unless a purge since it was asked for means it.
    pub fn insert(&self, key: &Key, entry: Arc<Entry>) -> bool {
        if matches!(self.usable(entry.clone(), None), Found::Nothing) {
            return false;
        }
        self.map.insert(key.text.as_slice().into(), Slot::Entry(entry));
        true
    }

    /// Notes that answers here are not stored. An entry stays: it may be used still.
    pub fn pass(&self, key: &Key, until: i64) {
        match self.map.peek(key.text.as_slice()) {
            None | Some(Slot::Pass(_)) => self.map.insert(key.text.as_slice().into(), Slot::Pass(until)),
            Some(_) => {}
        }
    }

    /// Forgets a URL with all its variants, or makes it stale. `true`: there was something.
    pub fn purge(&self, key: &Key, soft: bool, now: i64) -> bool {
        let stamp = self.stamp.fetch_add(1, Relaxed) + 1;
        let Some(slot) = self.map.peek(key.primary()) else {
            return false;
        };
        match slot {
            Slot::Pass(_) | Slot::Rule(_) => false,
            _ if !soft => self.map.remove(key.primary()).is_some(),
            Slot::Varies(variants) => {
                variants.expired.purge(true, stamp, now);
                true
            }
            Slot::Entry(entry) => {
                let mut meta = entry.meta.clone();
                meta.freshness.expire(now);
                let stale = Slot::Entry(Arc::new(entry.with(meta)));
                self.map.replace(key.primary().into(), stale, true).is_ok()
            }
        }
    }

    /// What is stored at a key that [`Self::place`] made.
    pub fn peek(&self, key: &Key) -> Option<Arc<Entry>> {
        match self.map.peek(key.text.as_slice()) {
            Some(Slot::Entry(entry)) => Some(entry),
            _ => None,
        }
    }

    /// What the path that has its rule at `place` says of its queries.
    pub fn rule(&self, place: &[u8]) -> Option<Arc<Known>> {
        match self.map.get(place) {
            Some(Slot::Rule(known)) => Some(known),
            _ => None,
        }
    }

    pub fn set_rule(&self, place: &[u8], known: Arc<Known>) {
        self.map.insert(place.into(), Slot::Rule(known));
    }

    /// Whether something is stored for a URL.
    pub fn contains(&self, key: &Key) -> bool {
        let slot = self.map.peek(key.primary());
        slot.is_some_and(|slot| !matches!(slot, Slot::Pass(_)))
    }

    /// Purges a group; tells how many entries it had.
    pub fn purge_tag(&self, name: &[u8], soft: bool, now: i64) -> usize {
        let stamp = self.stamp.fetch_add(1, Relaxed) + 1;
        self.tags.purge(name, soft, stamp, now)
    }

    /// Purges everything; tells how much that was. What it took is given back as it is evicted.
    pub fn purge_all(&self, soft: bool, now: i64) -> usize {
        let stamp = self.stamp.fetch_add(1, Relaxed) + 1;
        self.purged.purge(soft, stamp, now);
        self.map.len()
    }

    /// Purges every URL that begins with `prefix`: the one purge that looks at every key. Tells how many keys those were.
    pub fn purge_prefix(&self, prefix: &[u8], soft: bool, now: i64, dry: bool) -> usize {
        let found = AtomicU64::new(0);
        let mut stale = Vec::new();
        if dry || soft {
            for (key, slot) in self.map.iter().filter(|(key, _)| key.starts_with(prefix)) {
                found.fetch_add(u64::from(slot.is_response()), Relaxed);
                if let (false, Slot::Entry(entry)) = (dry, slot) {
                    stale.push((key, entry));
                }
            }
            for (key, entry) in stale {
                let mut meta = entry.meta.clone();
                meta.freshness.expire(now);
                // Gone meanwhile: then it need not be stale.
                let _ = self.map.replace(key, Slot::Entry(Arc::new(entry.with(meta))), true);
            }
        } else {
            self.stamp.fetch_add(1, Relaxed);
            self.map.retain(|key, slot| {
                let goes = key.starts_with(prefix);
                found.fetch_add(u64::from(goes && slot.is_response()), Relaxed);
                !goes
            });
        }
        found.load(Relaxed) as usize
    }

    /// Gives back at once what everything that is there takes.
    pub fn clear(&self) {
        self.map.clear();
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Bytes, those under way counted.
    pub fn bytes(&self) -> u64 {
        self.map.weight() + self.under_way.used() + self.tags.bytes()
    }

    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }
}

fn pass(until: i64, now: i64) -> Found {
    if now < until { Found::Pass } else { Found::Nothing }
}

#[cfg(test)]
mod tests;

//! What stands in the folder, as memory knows it: how large each file is, and which has to make room. A file is named after
//! the hash of its key; keys stand in the files alone.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;
use quick_cache::sync::Cache as Map;
use quick_cache::{Lifecycle, OptionsBuilder, Weighter};

use crate::base::hash::{stable, stable_seeded};

/// What a file takes at least, and in steps of it.
const UNIT: u64 = 4096;
/// A guess that only sizes the first table.
const USUAL_FILE: u64 = 64 * 1024;

/// The hash of a key.
pub type Name = u128;

/// Sizes by name.
#[derive(Debug)]
pub struct Index {
    map: Map<Name, u64, Weigh, RandomState, Leaving>,
    leaving: Leaving,
    /// Every file that was there at the start has been seen: what is not in here is not there.
    complete: AtomicBool,
}

#[derive(Debug, Clone)]
struct Weigh;

impl Weighter<Name, u64> for Weigh {
    fn weight(&self, _: &Name, size: &u64) -> u64 {
        *size
    }
}

/// Files that have to go.
#[derive(Debug, Clone, Default)]
struct Leaving(Arc<Mutex<Vec<Name>>>);

impl Lifecycle<Name, u64> for Leaving {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), name: Name, _: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name);
    }
}

pub fn name(key: &[u8]) -> Name {
    u128::from(stable(key)) << 64 | u128::from(stable_seeded(key, 1))
}

/// Where the file of this name stands in the folder of all: in one of 256.
pub fn place(folder: &Path, name: Name) -> PathBuf {
    let text = format!("{name:032x}");
    let (first, rest) = text.split_at(2);
    folder.join(first).join(rest)
}

/// The name of a file in the folder `first`.
pub fn read_name(first: &str, rest: &str) -> Option<Name> {
    let is_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if first.len() != 2 || rest.len() != 30 || !is_hex(first) || !is_hex(rest) {
        return None;
    }
    Name::from_str_radix(&format!("{first}{rest}"), 16).ok()
}

impl Index {
    /// `size`: bytes of all files together.
    pub fn new(size: u64) -> Self {
        let leaving = Leaving::default();
        let options = OptionsBuilder::new()
            .shards(1)
            .weight_capacity(size)
            .estimated_items_capacity((size / USUAL_FILE).clamp(16, 1 << 16) as usize)
            .build();
        let map = match options {
            Ok(options) => Map::with_options(options, Weigh, RandomState::default(), leaving.clone()),
            // Only missing sizes are errors, and both are there.
            Err(_) => Map::with(16, size, Weigh, RandomState::default(), leaving.clone()),
        };
        Self {
            map,
            leaving,
            complete: AtomicBool::new(false),
        }
    }

    /// Another size; what is too much leaves.
    pub fn resize(&self, size: u64) {
        if size != self.map.capacity() {
            self.map.set_capacity(size);
        }
    }

    /// Whether a file of so many bytes may stay.
    pub fn takes(&self, length: u64) -> bool {
        weight(length) <= self.map.capacity() / 2
    }

    pub fn insert(&self, name: Name, length: u64) {
        self.map.insert(name, weight(length));
    }

    /// One that was there at the start, unless it has been written anew.
    pub fn found(&self, name: Name, length: u64) {
        if !self.map.contains_key(&name) {
            self.insert(name, length);
        }
    }

    pub fn remove(&self, name: Name) {
        self.map.remove(&name);
    }

    pub fn contains(&self, name: Name) -> bool {
        self.map.contains_key(&name)
    }

    /// It is of use.
    pub fn touch(&self, name: Name) {
        self.map.get(&name);
    }

    /// Whether there may be a file.
    pub fn may_have(&self, name: Name) -> bool {
        !self.complete.load(Relaxed) || self.contains(name)
    }

    pub fn set_complete(&self) {
        self.complete.store(true, Relaxed);
    }

    pub fn is_complete(&self) -> bool {
        self.complete.load(Relaxed)
    }

    pub fn clear(&self) {
        self.map.clear();
    }

    /// Files that have to go, each told once.
    pub fn leaving(&self) -> Vec<Name> {
        std::mem::take(&mut *self.leaving.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn bytes(&self) -> u64 {
        self.map.weight()
    }
}

fn weight(length: u64) -> u64 {
    length.max(1).div_ceil(UNIT).saturating_mul(UNIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_leave_when_there_are_too_many_and_never_unsaid() {
        let index = Index::new(100 * UNIT);
        let mut left = std::collections::HashSet::new();
        for n in 0..1000 {
            index.insert(n, 5000);
            left.extend(index.leaving());
            assert!(index.bytes() <= 100 * UNIT);
        }
        assert_eq!(left.len() + index.len(), 1000);
        assert!((0..1000).all(|n| left.contains(&n) != index.contains(n)));
        let before = index.len();
        index.resize(10 * UNIT);
        assert_eq!(index.leaving().len() + index.len(), before);
        assert!(index.bytes() <= 10 * UNIT && !index.takes(6 * UNIT) && index.takes(5 * UNIT));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let name = name(b"http://a/");
        let path = place(Path::new("/x"), name);
        let parts: Vec<_> = path.iter().map(|part| part.to_str().unwrap()).collect();
        assert_eq!(read_name(parts[2], parts[3]), Some(name));
        for (first, rest) in [
            ("ab", "cd"),
            ("AB", &"0".repeat(30)),
            ("+1", &"0".repeat(30)),
            ("é", &"0".repeat(30)),
        ] {
            assert_eq!(read_name(first, rest), None);
        }
    }

    #[test]
    fn what_is_not_known_yet_may_be_there() {
        let index = Index::new(100 * UNIT);
        index.insert(1, 1);
        index.found(1, 100 * UNIT);
        assert_eq!(index.bytes(), UNIT);
        assert!(index.may_have(2));
        index.set_complete();
        assert!(!index.may_have(2) && index.may_have(1));
    }
}

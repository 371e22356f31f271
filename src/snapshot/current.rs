//! The one pointer to the current snapshot, and each worker's cheap way to read it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use super::Snapshot;

/// What control publishes to.
#[derive(Debug, Clone, Default)]
pub struct Current(Arc<ArcSwap<Snapshot>>);

impl Current {
    /// The swap: requests that start after it see the new world.
    pub fn publish(&self, snapshot: Snapshot) {
        self.0.store(Arc::new(snapshot));
    }

    /// The current snapshot, for control and admin.
    pub fn get(&self) -> Arc<Snapshot> {
        self.0.load_full()
    }

    /// A reader for one worker.
    pub fn reader(&self) -> Reader {
        let mut cache = Cache::new(self.0.clone());
        let local = Rc::new(cache.load().clone());
        Reader(RefCell::new((cache, local)))
    }
}

/// A snapshot as held by one worker's requests: counted by the worker alone, so that requests of
/// different workers do not write to one cache line.
pub type Held = Rc<Arc<Snapshot>>;

/// One worker's view.
#[derive(Debug)]
pub struct Reader(RefCell<(Newest, Held)>);

type Newest = Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>;

impl Reader {
    /// The newest snapshot: one atomic load while nothing has changed.
    pub fn get(&self) -> Held {
        let (cache, local) = &mut *self.0.borrow_mut();
        let newest = cache.load();
        if !Arc::ptr_eq(newest, local) {
            *local = Rc::new(newest.clone());
        }
        local.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_what_was_published_and_keep_what_they_hold() {
        let current = Current::default();
        let reader = current.reader();
        let old = reader.get();
        current.publish(Snapshot {
            generation: 7,
            ..Snapshot::default()
        });
        assert_eq!((old.generation, reader.get().generation), (0, 7));
        assert!(Rc::ptr_eq(&reader.get(), &reader.get()));
    }
}

//! Counters that each worker writes alone: no lock, no shared cache line, summed when read.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Who writes: 0 is the control runtime, 1 to N the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerId(pub usize);

impl WorkerId {
    /// The control runtime's threads (health checks, reload, admin).
    pub const CONTROL: Self = Self(0);
}

/// A counter with one writing thread. Reading from others is always safe; the plain load and
/// store are cheaper than a locked add.
#[derive(Debug, Default)]
pub struct LocalCounter(AtomicU64);

impl LocalCounter {
    /// Adds `n`. Only the owning worker calls this: another writer would lose counts.
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    /// Makes it a gauge: what there is now of this worker's. Only the owning worker calls this.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// What has been counted so far.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// One `T` per writer, made when that writer first counts.
#[derive(Debug)]
pub struct Sharded<T> {
    slots: Box<[OnceLock<Box<T>>]>,
}

impl<T: Default> Sharded<T> {
    /// Room for the control runtime and `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            slots: (0..=workers).map(|_| OnceLock::new()).collect(),
        }
    }

    /// The part that `worker` writes. A worker that was not announced shares the control part.
    pub fn local(&self, worker: WorkerId) -> &T {
        let slot = self.slots.get(worker.0).unwrap_or(&self.slots[0]);
        slot.get_or_init(Box::default)
    }

    /// The parts written so far.
    pub fn parts(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|s| s.get().map(|b| &**b))
    }

    /// The sum of one counter over all writers.
    pub fn sum(&self, counter: impl Fn(&T) -> &LocalCounter) -> u64 {
        self.parts().map(|t| counter(t).get()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_over_writers() {
        let s: Sharded<LocalCounter> = Sharded::new(2);
        s.local(WorkerId::CONTROL).add(1);
        s.local(WorkerId(1)).add(10);
        s.local(WorkerId(2)).add(100);
        assert_eq!(s.sum(|c| c), 111);
    }
}

//! How many repetitions may be under way at once: a share of what is under way at all, so that repetitions cannot make
//! a storm of a weakness.
//!
//! A count of requests at work, not of requests per second: it needs no clock, and it is overload itself (requests that
//! stay) that it answers to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What may be repeated at once.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// Of the requests under way, 0.0 to 1.0.
    pub of_active: f64,
    /// So many always: a share of few requests would be none.
    pub at_least: u32,
}

/// The repetitions of one upstream under way now, over all workers.
#[derive(Debug, Default)]
pub struct Repeating(AtomicU32);

/// One repetition under way, counted until dropped.
#[derive(Debug)]
pub struct Permit(Arc<Repeating>);

impl Repeating {
    /// Counts one repetition; `None` when too many are under way. `active`: requests under way, asked only when needed.
    pub fn begin(self: &Arc<Self>, share: Share, active: impl FnOnce() -> u64) -> Option<Permit> {
        let before = self.0.fetch_add(1, Relaxed);
        // Made before it is judged: dropped, it gives back what was counted.
        let permit = Permit(self.clone());
        let room = before < share.at_least || f64::from(before) < share.of_active * active() as f64;
        room.then_some(permit)
    }

    /// How many are under way.
    pub fn count(&self) -> u32 {
        self.0.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share {
        of_active: 0.2,
        at_least: 3,
    };

    #[test]
    fn a_share_of_the_active_but_never_fewer_than_the_floor() {
        for (active, room) in [(0, 3), (10, 3), (15, 3), (16, 4), (20, 4), (100, 20), (1_000, 200)] {
            let repeating = Arc::new(Repeating::default());
            let permits: Vec<_> = std::iter::from_fn(|| repeating.begin(SHARE, || active)).collect();
            assert_eq!(permits.len(), room, "of {active}");
            assert_eq!(repeating.count() as usize, room);
            drop(permits);
            assert_eq!(repeating.count(), 0);
        }
    }

    /// Clients ask 100 times a tick of endpoints that fail everything: what arrives there stays within the share.
    #[test]
    fn an_upstream_that_fails_everything_gets_a_fifth_more_and_not_a_multiple() {
        let repeating = Arc::new(Repeating::default());
        let (mut first, mut again) = (0u64, 0u64);
        for _ in 0..1_000 {
            let active = 100;
            first += active;
            // Every one of them fails and wants three more tries within the tick.
            let mut held = Vec::new();
            for _ in 0..active * 3 {
                held.extend(repeating.begin(SHARE, || active));
            }
            again += held.len() as u64;
        }
        assert_eq!(again * 5, first);
    }
}

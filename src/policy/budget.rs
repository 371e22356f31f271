//! How many repetitions there may be: a share of what is under way at all, so that repetitions cannot make a storm of a
//! weakness; and for what happens at once and is then over, savings.
//!
//! The share is of requests at work, not of requests per second: it needs no clock, and it is overload itself (requests
//! that stay) that it answers to. But when one endpoint of four dies, a quarter of all that is under way fails in one
//! moment, which is no storm, and more than any share that would keep one off. So there is also an allowance of a few a
//! second (as Finagle and linkerd have it), and what of it is not used is saved: after a quiet time as many may be repeated as
//! are under way, once. In a weakness that stays, the savings are soon spent, and the share and a few a second are all
//! there is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::base::clock::micros;

/// Savings are of so many seconds at least, however little is under way.
const SAVED_SECONDS: u64 = 10;

/// What may be repeated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Share {
    /// At once, of the requests under way, 0.0 to 1.0.
    pub of_active: f64,
    /// So many at once always: a share of few requests would be none.
    pub at_least: u32,
    /// Beyond that so many a second, saved up. At most a million.
    pub per_second: u32,
}

/// The repetitions of one upstream, over all workers.
#[derive(Debug, Default)]
pub struct Repeating {
    /// Under way now.
    count: AtomicU32,
    /// When the savings will be whole again, in [`micros`].
    saved: AtomicU64,
}

/// One repetition under way, counted until dropped.
#[derive(Debug)]
pub struct Permit(Arc<Repeating>);

impl Repeating {
    /// Counts one repetition within the share; `None` when too many are under way. `active`: requests under way, asked
    /// only when needed.
    pub fn begin(self: &Arc<Self>, share: Share, active: impl FnOnce() -> u64) -> Option<Permit> {
        let before = self.count.fetch_add(1, Relaxed);
        // Made before it is judged: dropped, it gives back what was counted.
        let permit = Permit(self.clone());
        let room = before < share.at_least || f64::from(before) < share.of_active * active() as f64;
        room.then_some(permit)
    }

    /// As [`Self::begin`], and by the savings where the share is used up.
    pub fn begin_or_spend(self: &Arc<Self>, share: Share, now: Instant, active: impl Fn() -> u64) -> Option<Permit> {
        self.begin(share, &active).or_else(|| {
            self.spend(share, micros(now), active()).then(|| {
                self.count.fetch_add(1, Relaxed);
                Permit(self.clone())
            })
        })
    }

    /// Takes one from the savings, if there is one. (The generic cell rate algorithm of ATM: instead of a number that
    /// grows with time, the time at which it will have grown to the whole.)
    fn spend(&self, share: Share, now: u64, active: u64) -> bool {
        let Some(each) = 1_000_000u64.checked_div(share.per_second.into()) else {
            return false;
        };
        let most = active.max(SAVED_SECONDS * u64::from(share.per_second));
        let next = |saved: u64| {
            let after = saved.max(now) + each;
            (after - now <= most * each).then_some(after)
        };
        self.saved.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    /// How many are under way.
    pub fn count(&self) -> u32 {
        self.count.load(Relaxed)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SHARE: Share = Share {
        of_active: 0.2,
        at_least: 3,
        per_second: 10,
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

    /// Repetitions that may begin in one moment and stay.
    fn at_once(repeating: &Arc<Repeating>, share: Share, now: Instant, active: u64) -> Vec<Permit> {
        std::iter::from_fn(|| repeating.begin_or_spend(share, now, || active)).collect()
    }

    /// The others have what one of two had, and what it had is asked of them: there is room for all of it, once.
    #[test]
    fn what_fails_in_one_moment_is_repeated_and_then_saved_for_again() {
        let now = Instant::now();
        for (active, room) in [(0, 103), (50, 110), (100, 120), (1_000, 1_200), (100_000, 120_000)] {
            let repeating = Arc::new(Repeating::default());
            assert_eq!(at_once(&repeating, SHARE, now, active).len(), room, "of {active}");
            assert_eq!(repeating.count(), 0);
            // The share at once, the rest in time.
            for (seconds, more) in [(0, 0), (1, 10), (3, 20), (3, 0)] {
                let later = now + Duration::from_secs(seconds);
                let share = at_once(&repeating, SHARE, later, active).len() - more;
                assert_eq!(
                    share,
                    room - (active as usize).max(100),
                    "of {active} after {seconds} s"
                );
            }
        }
        let none = Share { per_second: 0, ..SHARE };
        assert_eq!(at_once(&Arc::default(), none, now, 100).len(), 20);
    }

    /// Clients ask 100 times a tick, a hundred ticks a second, of endpoints that fail everything: but for the first moment,
    /// what arrives there stays within the share and the few a second.
    #[test]
    fn an_upstream_that_fails_everything_gets_a_fifth_more_and_not_a_multiple() {
        let repeating = Arc::new(Repeating::default());
        let start = Instant::now();
        let (mut first, mut again) = (0u64, 0u64);
        for tick in 0..1_000 {
            let now = start + Duration::from_millis(10 * tick);
            let active = 100;
            first += active;
            // Every one of them fails and wants three more tries within the tick.
            let mut held = Vec::new();
            for _ in 0..active * 3 {
                held.extend(repeating.begin_or_spend(SHARE, now, || active));
            }
            again += held.len() as u64;
        }
        let (share, saved) = (first / 5, 100 + 10 * 10);
        assert!((share..=share + saved).contains(&again), "{again} of {first}");
    }
}

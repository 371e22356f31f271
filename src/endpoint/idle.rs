//! How long an endpoint keeps idle connections, learned from those it has closed.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Below this nothing is kept apart: a repeated request costs less than a pool of no use.
pub const LEAST: u32 = 100;
/// An endpoint known to close sooner than this closes at any time: what cannot be sent twice gets a connection of its own.
const ERRATIC: u32 = 500;
/// What cannot be sent twice goes on a connection that has rested for less, while nothing is known of the endpoint.
/// Servers close after two seconds or more.
const UNKNOWN: u32 = 1_000;
/// Nothing is known, or nothing that matters.
const NEVER: u32 = u32::MAX;
/// What has been learned doubles in so many seconds without another close: the endpoint may have new settings, or it was
/// stopped and no time-out closed its connections.
const DOUBLES: u64 = 300;
/// Longer time-outs than an hour are none.
const MOST: u32 = 3_600_000;

/// One endpoint's, shared by all workers. Times are milliseconds of [`crate::base::clock`].
#[derive(Debug)]
pub struct Learned(AtomicU64);

impl Default for Learned {
    fn default() -> Self {
        Self(AtomicU64::new(pack(NEVER, 0)))
    }
}

impl Learned {
    /// Connections that have rested for so long are about to be closed by the endpoint. `None`: nothing is known.
    pub fn limit(&self, now: u64) -> Option<u32> {
        let (limit, since) = unpack(self.0.load(Relaxed));
        (limit != NEVER)
            .then(|| grown(limit, (now / 1000).saturating_sub(since)))
            .flatten()
    }

    /// Another process may be there now.
    pub fn forget(&self) {
        self.0.store(pack(NEVER, 0), Relaxed);
    }

    /// The endpoint has closed a connection that had rested for at least `rested`.
    pub fn closed(&self, rested: u32, now: u64) {
        let limit = self.limit(now).unwrap_or(NEVER);
        if rested < limit {
            // Two workers that learn at once: the next close mends it.
            self.0.store(pack(rested, now / 1000), Relaxed);
        } else if limit != NEVER && rested < limit.saturating_add(limit / 4) {
            // As expected: no reason to believe in more.
            self.0.store(pack(limit, now / 1000), Relaxed);
        }
    }
}

fn grown(limit: u32, seconds: u64) -> Option<u32> {
    let doublings = seconds / DOUBLES;
    if doublings >= u64::from(MOST.ilog2()) {
        return None;
    }
    // Linear within each doubling.
    let whole = u64::from(limit.max(LEAST)) << doublings;
    let grown = whole + whole * (seconds % DOUBLES) / DOUBLES;
    u32::try_from(grown).ok().filter(|limit| *limit <= MOST)
}

fn pack(limit: u32, since: u64) -> u64 {
    u64::from(limit) << 32 | since & u64::from(u32::MAX)
}

fn unpack(packed: u64) -> (u32, u64) {
    ((packed >> 32) as u32, packed & u64::from(u32::MAX))
}

/// The longest a connection may have rested to be used again. `keep`: what configuration and endpoint allow it, `told`:
/// the endpoint did; `careful`: for a request that cannot be sent twice.
pub fn allowance(keep: u32, told: bool, learned: Option<u32>, careful: bool) -> u32 {
    let limit = keep.min(learned.unwrap_or(NEVER).max(LEAST));
    if !careful {
        return limit;
    }
    match learned {
        Some(learned) if learned < ERRATIC => 0,
        None if !told => (limit / 2).min(UNKNOWN),
        _ => limit / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_rest_counts_and_is_forgotten_slowly() {
        let learned = Learned::default();
        assert_eq!(learned.limit(0), None);
        learned.closed(5_000, 1_000);
        learned.closed(4_200, 1_100);
        learned.closed(4_900, 1_900);
        assert_eq!(learned.limit(1_000), Some(4_200));
        assert_eq!(learned.limit(1_000 + DOUBLES * 500), Some(6_300));
        assert_eq!(learned.limit(1_000 + DOUBLES * 1_000), Some(8_400));
        assert_eq!(
            learned.limit(1_000 + DOUBLES * 1_000_000),
            None,
            "and in the end altogether"
        );
    }

    #[test]
    fn an_endpoint_that_goes_on_closing_is_not_believed_to_keep_longer() {
        let learned = Learned::default();
        let mut now = 0;
        for _ in 0..10_000 {
            // It closes after 5 s what has not retired before.
            now += 1_000;
            if learned.limit(now).is_none_or(|limit| limit > 5_000) {
                learned.closed(4_500, now);
            }
            assert!(learned.limit(now).is_none_or(|limit| limit <= 5_020));
        }
    }

    #[test]
    fn nothing_overflows() {
        let learned = Learned::default();
        learned.closed(0, 0);
        learned.closed(u32::MAX, u64::MAX);
        for now in [0, 1, u64::from(u32::MAX), u64::MAX / 2, u64::MAX] {
            let _ = learned.limit(now);
            learned.closed(7, now);
        }
    }

    #[test]
    fn what_cannot_be_sent_twice_stays_far_from_the_end() {
        assert_eq!(allowance(15_000, false, None, false), 15_000);
        assert_eq!(allowance(15_000, false, Some(4_000), false), 4_000);
        assert_eq!(allowance(15_000, false, Some(3), false), LEAST);
        assert_eq!(allowance(15_000, false, None, true), UNKNOWN);
        assert_eq!(allowance(4_000, true, None, true), 2_000);
        assert_eq!(allowance(15_000, false, Some(4_000), true), 2_000);
        assert_eq!(allowance(15_000, false, Some(300), true), 0);
        assert_eq!(allowance(0, true, None, false), 0);
    }
}

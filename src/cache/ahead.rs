//! Freshness ahead of need: what is asked for often is renewed before it is stale, and lifetimes that began together do not
//! end together.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::freshness::Freshness;

/// A share, in thousandths of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Thousandths(pub u16);

/// When a hit sets off a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// Of the lifetime, at its end.
    pub last: Thousandths,
    /// Hits before it is worth it, this one counted; at least 1.
    pub hits: u32,
}

/// How often an entry was found fresh, as far as anybody wants to know.
#[derive(Debug, Default)]
pub struct Heat(AtomicU32);

/// Above all counts: a renewal was set off.
const RENEWED: u32 = 1 << 31;

impl Ahead {
    /// Whether a hit at `now`, in milliseconds of the cache's clock, is the one that renews. Once for an entry: what fails
    /// then is asked for again when it is stale.
    pub fn renews(self, heat: &Heat, freshness: &Freshness, now: i64) -> bool {
        let hits = heat.0.load(Relaxed);
        if hits >= RENEWED {
            return false;
        }
        // Entries that are found all the time are not written to all the time.
        let hits = match hits < self.hits {
            true => heat.0.fetch_add(1, Relaxed) + 1,
            false => hits,
        };
        hits >= self.hits && self.is_due(freshness, now) && heat.0.fetch_or(RENEWED, Relaxed) < RENEWED
    }

    fn is_due(self, freshness: &Freshness, now: i64) -> bool {
        let lifetime = i64::from(freshness.lifetime) * 1000;
        let left = freshness.born.saturating_add(lifetime).saturating_sub(now);
        left > 0 && left.saturating_mul(1000) <= lifetime * i64::from(self.last.0)
    }
}

/// `lifetime`, in seconds, shortened by up to `most` of it: the same for the same `random`, never longer, and never to nothing
/// where `most` is at most half.
pub fn shortened(lifetime: u32, most: Thousandths, random: u64) -> u32 {
    let cut = (u128::from(lifetime) * u128::from(most.0) * u128::from(random) / 1000) >> 64;
    lifetime - u32::try_from(cut).unwrap_or(lifetime).min(lifetime)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::rng::Rng;
    use crate::cache::directives::ForResponse;
    use crate::cache::freshness::{Defaults, Moment};
    use crate::fields::Fields;

    /// Born at 0.
    fn fresh(lifetime: u32) -> Freshness {
        let mut fields = Fields::default();
        fields.append_text("cache-control", format!("max-age={lifetime}").as_bytes());
        let (cc, _) = ForResponse::read(&fields, &[]);
        let (at, defaults) = (
            Moment {
                clock: 0,
                wall: 0,
                delay: 0,
            },
            Defaults {
                heuristic: None,
                stale_if_error: 0,
                stale_while_revalidate: 0,
            },
        );
        Freshness::of(200, &fields, &cc, false, at, &defaults)
    }

    #[test]
    fn the_hit_that_is_often_and_late_enough_renews_and_no_other() {
        let ahead = Ahead {
            last: Thousandths(100),
            hits: 3,
        };
        let (heat, freshness) = (Heat::default(), fresh(100));
        let renews = |now| ahead.renews(&heat, &freshness, now);
        assert!(!renews(0) && !renews(95_000), "not often enough");
        assert!(!renews(89_999), "too early");
        assert!(!renews(100_000), "stale: that is another matter");
        assert!(renews(90_000));
        assert!(!renews(90_001) && !renews(99_999), "it is on its way");
    }

    #[test]
    fn of_many_at_once_one_renews() {
        let ahead = Ahead {
            last: Thousandths(1000),
            hits: 1,
        };
        let (heat, freshness) = (Heat::default(), fresh(100));
        let renewals = std::thread::scope(|scope| {
            let one = || (0..1000).filter(|_| ahead.renews(&heat, &freshness, 1)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(renewals, 1);
    }

    #[test]
    fn lifetimes_that_began_together_end_apart() {
        let mut rng = Rng::new(1);
        let ends: Vec<_> = (0..1000)
            .map(|_| shortened(1000, Thousandths(100), rng.next_u64()))
            .collect();
        for tenth in 0..10 {
            let (from, to) = (900 + tenth * 10, 910 + tenth * 10);
            let count = ends
                .iter()
                .filter(|end| (from..to + u32::from(tenth == 9)).contains(*end))
                .count();
            assert!((60..140).contains(&count), "{count} of 1000 end in the tenth {tenth}");
        }
    }

    proptest! {
        #[test]
        fn never_longer_and_never_nothing(lifetime in any::<u32>(), most in 0u16..=500, random in any::<u64>()) {
            let found = shortened(lifetime, Thousandths(most), random);
            let least = u64::from(lifetime) * u64::from(1000 - most) / 1000;
            prop_assert!(found <= lifetime && u64::from(found) >= least);
            prop_assert!(found > 0 || lifetime == 0);
            prop_assert_eq!(found, shortened(lifetime, Thousandths(most), random));
        }

        /// A renewal is only ever set off by what may be served, in its last part, and at most once.
        #[test]
        fn renewals_are_rare_and_in_time(
            lifetime in 0u32..1_000_000, last in 0u16..=1000, hits in 1u32..10, times in prop::collection::vec(any::<u32>(), 0..50),
        ) {
            let ahead = Ahead { last: Thousandths(last), hits };
            let (heat, freshness) = (Heat::default(), fresh(lifetime));
            let mut renewed = 0;
            for (n, now) in times.iter().enumerate() {
                let now = i64::from(*now);
                if ahead.renews(&heat, &freshness, now) {
                    renewed += 1;
                    let left = i64::from(lifetime) * 1000 - now;
                    prop_assert!(freshness.is_fresh(now) && left * 1000 <= i64::from(lifetime) * 1000 * i64::from(last));
                    prop_assert!(n + 1 >= hits as usize);
                }
            }
            prop_assert!(renewed <= 1);
        }
    }
}

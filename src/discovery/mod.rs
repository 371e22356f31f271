//! Where endpoints come from: sources that are asked again and again while the proxy runs.
//!
//! A source is a task that tells its [`feed`] what it finds. What it found last stays until it finds something
//! else: no failure of a source takes an endpoint away.

pub mod dns;
pub mod feed;
pub mod name;

use std::time::Duration;

use crate::base::rng::Rng;

/// Nothing is asked more often than this, whatever happens.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Waits are shortened at random by up to this share, so that many proxies do not ask all at once.
const JITTER: f64 = 0.1;

/// How long to wait after the `failures`th failure in a row (from 1): 1 s, 2 s, 4 s … `longest`.
fn back_off(failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    MIN_WAIT.saturating_mul(1 << doublings).min(longest).max(MIN_WAIT)
}

/// `wait` with jitter, at least a second.
fn jittered(wait: Duration, rng: &mut Rng) -> Duration {
    rng.shortened(wait, JITTER).max(MIN_WAIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(longest in 1u64..1 << 20, failures in 1u32.., seed: u64) {
            let longest = Duration::from_secs(longest);
            let wait = back_off(failures, longest);
            prop_assert!(wait >= MIN_WAIT && wait <= longest);
            prop_assert!(wait <= back_off(failures.saturating_add(1), longest));
            let jittered = jittered(wait, &mut crate::base::rng::Rng::new(seed));
            prop_assert!(jittered >= MIN_WAIT && jittered <= wait && jittered >= wait.mul_f64(1.0 - JITTER));
        }
    }
}

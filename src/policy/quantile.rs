//! A quantile of a stream of durations in eight bytes: raised by what lies above it, lowered by what lies below, in the
//! proportion that keeps it where it belongs (stochastic approximation; Robbins and Monro, 1951).

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// How far one value moves the estimate, as a share of it: large enough to follow a change within some hundred values.
const STEP: f64 = 0.02;
/// So many values until the estimate is worth something.
const ENOUGH: u32 = 100;

/// An estimate that all workers share. Values that come in the same moment may be lost, which changes nothing.
#[derive(Debug)]
pub struct Quantile {
    q: f64,
    /// Microseconds, as a float's bits.
    estimate: AtomicU32,
    seen: AtomicU32,
}

impl Quantile {
    /// Of the share `q` of all values, 0.0 to 1.0.
    pub fn new(q: f64) -> Self {
        Self {
            q,
            estimate: AtomicU32::new(0),
            seen: AtomicU32::new(0),
        }
    }

    pub fn observe(&self, value: Duration) {
        let value = value.as_secs_f64() * 1e6;
        let seen = self.seen.load(Relaxed);
        if seen < ENOUGH {
            self.seen.store(seen + 1, Relaxed);
        }
        let before = f64::from(f32::from_bits(self.estimate.load(Relaxed)));
        // The first ones go in larger steps: nothing is known of the scale.
        let step = if seen < ENOUGH { 5.0 * STEP } else { STEP };
        let after = match value > before {
            _ if seen == 0 => value,
            true => before * (1.0 + step * self.q),
            false => before * (1.0 - step * (1.0 - self.q)),
        };
        self.estimate.store((after.max(1.0) as f32).to_bits(), Relaxed);
    }

    /// `None`: too little is known.
    pub fn get(&self) -> Option<Duration> {
        let estimate = f32::from_bits(self.estimate.load(Relaxed));
        (self.seen.load(Relaxed) >= ENOUGH).then(|| Duration::from_secs_f64(f64::from(estimate) / 1e6))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// The share of exponentially distributed values that lie above the estimate.
    fn above(quantile: &Quantile, rng: &mut Rng, mean: f64) -> f64 {
        let n = 20_000;
        let mut above = 0;
        for _ in 0..n {
            let value = Duration::from_secs_f64(-mean * (1.0 - rng.unit()).ln());
            above += u32::from(quantile.get().is_some_and(|estimate| value > estimate));
            quantile.observe(value);
        }
        f64::from(above) / f64::from(n)
    }

    #[test]
    fn one_in_twenty_lies_above_the_p95_wherever_that_is() {
        let (quantile, mut rng) = (Quantile::new(0.95), Rng::new(7));
        for mean in [0.01, 0.01, 0.0002, 1.0] {
            above(&quantile, &mut rng, mean);
            let share = above(&quantile, &mut rng, mean);
            assert!((0.04..0.06).contains(&share), "{share} above at a mean of {mean}");
        }
    }

    #[test]
    fn nothing_is_said_before_enough_was_seen() {
        let quantile = Quantile::new(0.95);
        for _ in 0..ENOUGH {
            assert_eq!(quantile.get(), None);
            quantile.observe(Duration::from_millis(1));
        }
        assert!(quantile.get().is_some());
    }
}

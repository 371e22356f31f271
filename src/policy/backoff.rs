//! How long is waited before another attempt: exponential with full jitter, so that those who failed together do not
//! come back together (Brooker: "Exponential Backoff And Jitter", 2015).

use std::time::Duration;

use crate::base::rng::Rng;

/// `backoff = { base, max }`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait before the first repetition; doubled for each that follows.
    pub base: Duration,
    /// The longest wait of all.
    pub max: Duration,
}

impl Backoff {
    /// The wait before repetition number `n`, from 1: anything between nothing and `base`, doubled `n - 1` times.
    pub fn wait(&self, n: u32, rng: &mut Rng) -> Duration {
        let doubled = 1u32.checked_shl(n.saturating_sub(1)).unwrap_or(u32::MAX);
        let longest = self.base.saturating_mul(doubled).min(self.max);
        longest.mul_f64(rng.unit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_are_spread_over_all_of_it() {
        let backoff = Backoff {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        };
        let mut rng = Rng::new(1);
        for (n, longest) in [
            (1, 25),
            (2, 50),
            (3, 100),
            (4, 200),
            (5, 250),
            (40, 250),
            (u32::MAX, 250),
        ] {
            let waits: Vec<f64> = (0..2_000)
                .map(|_| backoff.wait(n, &mut rng).as_secs_f64() * 1e3)
                .collect();
            let longest = f64::from(longest);
            assert!(waits.iter().all(|w| (0.0..=longest).contains(w)), "{n}");
            let mean = waits.iter().sum::<f64>() / waits.len() as f64;
            assert!((mean / longest - 0.5).abs() < 0.03, "{n}: mean {mean} of {longest}");
        }
    }
}

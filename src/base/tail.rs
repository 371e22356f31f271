//! The p99 of a stream of durations in one word, without a histogram and without a memory.
//!
//! Each duration moves the estimate a little: up by a factor when it is longer, down by a 99th of
//! that when it is not. It rests where one in a hundred is longer. (Frugal streaming: Ma,
//! Muthukrishnan, Sandler, 2013, with steps in proportion to the estimate.)

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// What one longer duration raises the estimate by.
const UP: f32 = 1.1;
/// The 99th root of `1 / UP`: 99 shorter ones take back what one longer one gave.
const DOWN: f32 = 0.999_037_7;

/// An estimate that one thread writes and any may read.
#[derive(Debug, Default)]
pub struct Tail(AtomicU32);

impl Tail {
    /// Only the owning worker calls this: of two writers one may be lost.
    pub fn observe(&self, took: Duration) {
        let took = took.as_secs_f32();
        let estimate = f32::from_bits(self.0.load(Relaxed));
        let next = match estimate {
            0.0 => took,
            _ if took > estimate => (estimate * UP).min(took),
            _ => estimate * DOWN,
        };
        self.0.store(next.to_bits(), Relaxed);
    }

    /// `None`: nothing was observed yet.
    pub fn p99(&self) -> Option<Duration> {
        let estimate = f32::from_bits(self.0.load(Relaxed));
        (estimate > 0.0).then(|| Duration::from_secs_f32(estimate))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn rests_at_the_p99_and_follows_it() {
        let (tail, mut rng) = (Tail::default(), Rng::new(1));
        assert_eq!(tail.p99(), None);
        for scale in [0.01, 1.0, 0.1] {
            let mut sum = 0.0;
            for n in 0..20_000 {
                // Exponential: its p99 is 4.6 times its mean.
                tail.observe(Duration::from_secs_f64(-scale * (1.0 - rng.unit()).ln()));
                if n >= 10_000 {
                    sum += tail.p99().unwrap().as_secs_f64() / 10_000.0;
                }
            }
            let exact = 4.6 * scale;
            assert!((sum / exact - 1.0).abs() < 0.15, "{sum} for {exact}");
        }
    }
}

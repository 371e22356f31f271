//! How far an endpoint that is new or was down has come on its way to its whole weight.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::base::clock;

/// Has its whole weight: so endpoints begin that were there when the process started.
const SETTLED: u64 = 0;
/// Begins with little when it is up next.
const COLD: u64 = u64::MAX;
/// What it begins with: enough that it is asked at all.
const LEAST: f64 = 0.1;

/// When it came up, in microseconds, or one of the two marks.
#[derive(Debug, Default)]
pub struct Ramp(AtomicU64);

impl Ramp {
    /// It is new, or down.
    pub fn cool(&self) {
        self.0.store(COLD, Relaxed);
    }

    /// It is up.
    pub fn warm(&self, now: Instant) {
        if self.0.load(Relaxed) == COLD {
            self.0.store(clock::micros(now).max(1), Relaxed);
        }
    }

    /// The part of its weight it has at `now`, in `0.1..=1.0`, where it takes `whole` to have all.
    pub fn part(&self, now: Instant, whole: Duration) -> f64 {
        match self.0.load(Relaxed) {
            SETTLED | COLD => 1.0,
            since => {
                let up = clock::micros(now).saturating_sub(since) as f64;
                (up / whole.as_micros() as f64).clamp(LEAST, 1.0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn climbs_once_it_is_up_and_again_after_it_was_down() {
        let (ramp, start) = (Ramp::default(), Instant::now());
        let s = Duration::from_secs;
        ramp.warm(start);
        assert_eq!(ramp.part(start, s(10)), 1.0, "never at the start");
        for begin in [start, start + s(100)] {
            ramp.cool();
            ramp.warm(begin);
            ramp.warm(begin + s(3));
            let parts = [0, 5, 10, 20].map(|at| ramp.part(begin + s(at), s(10)));
            assert_eq!(parts, [0.1, 0.5, 1.0, 1.0]);
        }
    }
}

//! How much one endpoint may have under way at once: what was configured, or what [`super::adaptive`] has found out.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::adaptive::{Adaptive, Sample, Spec};
use crate::base::rng::Rng;

/// One endpoint's limit, read by all workers.
#[derive(Debug)]
pub struct Limit {
    now: AtomicU32,
    learning: Mutex<Option<Learning>>,
}

#[derive(Debug)]
struct Learning {
    spec: Spec,
    adaptive: Adaptive,
    /// What its times count from.
    since: Instant,
}

impl Default for Limit {
    /// None.
    fn default() -> Self {
        Self {
            now: AtomicU32::new(u32::MAX),
            learning: Mutex::default(),
        }
    }
}

impl Limit {
    /// Requests that may be under way; `None`: any number.
    pub fn get(&self) -> Option<u32> {
        Some(self.now.load(Relaxed)).filter(|limit| *limit < u32::MAX)
    }

    /// Whether `active` may be under way.
    pub fn allows(&self, active: u32) -> bool {
        active <= self.now.load(Relaxed)
    }

    /// Sets it to `fixed`, or lets it be found out below that. What was learned under the same settings stays.
    pub fn set(&self, fixed: Option<u32>, adaptive: Option<Spec>) {
        let fixed = fixed.unwrap_or(u32::MAX);
        let mut learning = self.learning.lock().unwrap_or_else(PoisonError::into_inner);
        let spec = adaptive.map(|spec| Spec {
            max: spec.max.min(fixed),
            min: spec.min.min(fixed),
            ..spec
        });
        if learning.as_ref().map(|l| l.spec) != spec {
            *learning = spec.map(|spec| Learning {
                spec,
                adaptive: Adaptive::new(spec),
                since: Instant::now(),
            });
        }
        let now = learning.as_ref().map_or(fixed, |l| l.adaptive.limit());
        self.now.store(now, Relaxed);
    }

    /// Learns from one attempt. One that ends in the very moment another does is left out: it would not say much else.
    pub fn observe(&self, sample: Sample, active: u32, now: Instant, rng: &mut Rng) {
        let Ok(mut learning) = self.learning.try_lock() else {
            return;
        };
        if let Some(learning) = &mut *learning {
            let now = now.saturating_duration_since(learning.since);
            learning.adaptive.observe(sample, active, now, rng);
            self.now.store(learning.adaptive.limit(), Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn fixed_learned_or_none() {
        let limit = Limit::default();
        assert!(limit.allows(u32::MAX) && limit.get().is_none());
        limit.set(Some(3), None);
        assert!(limit.allows(3) && !limit.allows(4) && limit.get() == Some(3));
        let spec = Spec {
            initial: 20,
            min: 4,
            max: 100,
            tolerance: 1.5,
        };
        limit.set(None, Some(spec));
        assert_eq!(limit.get(), Some(20));
        let mut rng = Rng::new(1);
        let start = Instant::now();
        for n in 0..2_000 {
            let now = start + Duration::from_millis(n * 5);
            limit.observe(Sample::Answered(Duration::from_millis(1)), 100, now, &mut rng);
        }
        assert_eq!(limit.get(), Some(100), "always as fast: as much as allowed");
        limit.set(None, Some(spec));
        assert_eq!(limit.get(), Some(100), "the same settings keep what was learned");
        limit.set(Some(10), Some(spec));
        assert_eq!(limit.get(), Some(10), "a fixed limit bounds what is learned");
        limit.set(None, None);
        assert_eq!(limit.get(), None);
    }
}

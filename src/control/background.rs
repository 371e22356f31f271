//! What runs beside the snapshot and belongs to it: health checkers, outlier detectors, the steps of slow starts.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::checks::Checks;
use super::outliers::Outliers;
use crate::base::task::{self, Handle};
use crate::config::plan::Plan;
use crate::snapshot::Snapshot;
use crate::snapshot::current::Current;

/// Steps of a slow start.
const STEPS: u32 = 20;
/// How long one may last: a step builds a balancer, and more of them than one in a second are not seen.
const STEP: RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(1);

/// Each of its parts ends when it is dropped.
pub struct Background {
    current: Current,
    checks: Checks,
    outliers: Outliers,
    /// Where endpoints come to their weight slowly: raises it step by step.
    ramps: Option<Handle>,
}

impl Background {
    /// Must be called in a tokio runtime.
    pub fn new(current: Current) -> Self {
        Self {
            checks: Checks::new(current.clone()),
            current,
            outliers: Outliers::default(),
            ramps: None,
        }
    }

    /// Brings all of it in line with what was published.
    pub fn follow(&mut self, plan: &Plan, snapshot: &Snapshot) {
        self.checks.follow(plan, snapshot);
        self.outliers.follow(plan, snapshot);
        let slow_starts = plan.upstreams.iter().filter_map(|upstream| upstream.spread.slow_start);
        self.ramps = slow_starts.min().map(|shortest| {
            let step = (shortest / STEPS).clamp(*STEP.start(), *STEP.end());
            task::spawn(ramp(self.current.clone(), step))
        });
    }
}

/// Gives endpoints their weights of now, every `step`.
async fn ramp(current: Current, step: Duration) {
    loop {
        tokio::time::sleep(step).await;
        let snapshot = current.get();
        for upstream in snapshot.upstreams.iter().filter(|upstream| upstream.is_ramping()) {
            upstream.refresh();
        }
    }
}

//! What runs beside the snapshot and belongs to it: health checkers, outlier detectors, the steps of slow starts, shadow
//! scoring.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

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

/// Between two looks at what was sampled: `upstream/shadow.rs` reckons with seconds.
const SCORE: Duration = Duration::from_secs(1);

/// Each of its parts ends when it is dropped.
pub struct Background {
    current: Current,
    checks: Checks,
    outliers: Outliers,
    /// Where endpoints come to their weight slowly: raises it step by step.
    ramps: Option<Handle>,
    /// Where picks are put to other algorithms too: sees what comes of it.
    scores: Option<Handle>,
}

impl Background {
    /// Must be called in a tokio runtime.
    pub fn new(current: Current) -> Self {
        Self {
            checks: Checks::new(current.clone()),
            current,
            outliers: Outliers::default(),
            ramps: None,
            scores: None,
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
        let sampled = plan.upstreams.iter().any(|upstream| upstream.shadow_sample.is_some());
        match (sampled, &self.scores) {
            (true, None) => self.scores = Some(task::spawn(score(self.current.clone()))),
            (true, Some(_)) => {}
            (false, _) => self.scores = None,
        }
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

/// Charges the algorithms for what they chose, every [`SCORE`].
async fn score(current: Current) {
    loop {
        tokio::time::sleep(SCORE).await;
        let snapshot = current.get();
        snapshot
            .upstreams
            .iter()
            .for_each(|upstream| upstream.score(Instant::now()));
    }
}

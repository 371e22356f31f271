//! What runs beside the snapshot and belongs to it: health checkers and outlier detectors.

use super::checks::Checks;
use super::outliers::Outliers;
use crate::config::plan::Plan;
use crate::snapshot::Snapshot;
use crate::snapshot::current::Current;

/// Each of its parts ends when it is dropped.
pub struct Background {
    checks: Checks,
    outliers: Outliers,
}

impl Background {
    /// Must be called in a tokio runtime.
    pub fn new(current: Current) -> Self {
        Self {
            checks: Checks::new(current),
            outliers: Outliers::default(),
        }
    }

    /// Brings all of it in line with what was published.
    pub fn follow(&mut self, plan: &Plan, snapshot: &Snapshot) {
        self.checks.follow(plan, snapshot);
        self.outliers.follow(plan, snapshot);
    }
}

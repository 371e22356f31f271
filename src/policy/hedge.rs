//! When a second attempt is made although the first has not failed.

use std::time::Duration;

/// `hedge = …` of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Later than 95 % of the upstream's answers.
    P95,
    Time(Duration),
}

//! Outlier detection: endpoints that fail in live traffic are ejected for a time. Pure: time and chance are arguments.
//!
//! Two sources. The data path counts failures in a row (`endpoint::streak`) and raises an alarm: such an ejection takes
//! effect at once. And every tenth of a window the totals that are counted anyway are read; their differences, in
//! buckets of time, say how each endpoint did against the others. An average that decays would go on telling of
//! long-gone failures where there is little traffic; a bucket is forgotten after one window.

pub mod detector;
mod statistics;

use std::time::Duration;

/// `[upstreams.X.outlier]` as validated. Zero switches a detector off.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Responses with 5xx and gateway failures in a row.
    pub consecutive_5xx: u32,
    /// Connect failures, resets, time-outs, broken answers in a row.
    pub consecutive_gateway: u32,
    /// Standard deviations that the success rate may lie below the mean.
    pub success_rate: f64,
    /// The share of failures, 0.0 to 1.0.
    pub failure_rate: f64,
    /// Standard deviations that the mean latency may lie above the mean of all.
    pub latency: f64,
    /// Comparisons need so many endpoints, each with so many requests in the window.
    pub minimum_hosts: usize,
    pub minimum_requests: u64,
    pub window: Duration,
    /// Of the first ejection; the n-th of an endpoint lasts n times as long, at most `max_ejection`.
    pub base_ejection: Duration,
    pub max_ejection: Duration,
    /// The share of endpoints that may be ejected at once (one always may, the last one never).
    pub max_ejected: f64,
}

impl Spec {
    /// Whether endpoints are compared, which takes reading the totals again and again.
    pub fn compares(&self) -> bool {
        self.success_rate > 0.0 || self.failure_rate > 0.0 || self.latency > 0.0
    }
}

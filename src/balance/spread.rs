//! How an upstream spreads requests before an algorithm picks: the settings. `upstream/shares.rs` does it.

use std::sync::Arc;
use std::time::Duration;

/// What besides the algorithm decides who may be picked.
#[derive(Debug, Clone, PartialEq)]
pub struct Spread {
    /// For new and recovered endpoints to come to their whole weight; `None`: at once.
    pub slow_start: Option<Duration>,
    /// When a smaller share of a priority's endpoints is up, all of them are used. 0: never.
    pub panic_threshold: f64,
    /// Endpoints for each worker; `None`: all.
    pub subset: Option<usize>,
    /// Where this proxy is.
    pub zone: Option<Arc<str>>,
}

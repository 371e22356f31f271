//! What the proxy tells about itself: counters, their names, logs, the access log.

pub mod access;
pub mod log;
pub mod names;
pub mod reasons;
pub mod series;
pub mod shard;

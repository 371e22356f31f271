//! What the proxy tells about itself: counters, their names, logs, the access log.

pub mod access;
pub mod denied;
pub mod log;
pub mod names;
pub mod series;
pub mod shard;

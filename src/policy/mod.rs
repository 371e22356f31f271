//! How requests are repeated and bounded: pure rules, without I/O; time and chance are arguments.

pub mod backoff;
pub mod budget;
pub mod retry;

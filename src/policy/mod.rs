//! How requests are repeated and bounded: pure rules, without I/O; time and chance are arguments.

pub mod adaptive;
pub mod backoff;
pub mod budget;
pub mod deadline;
pub mod grpc;
pub mod hedge;
pub mod limit;
pub mod quantile;
pub mod queue;
pub mod retry;

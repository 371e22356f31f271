//! The life of a request, of a connection: everything between an accepted socket and an endpoint.

mod drain;
pub mod error;
pub mod explain;
pub mod http;
pub mod record;
pub mod resting;
pub mod tcp;
mod tunnel;
pub mod warm;
pub mod worker;

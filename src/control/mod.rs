//! The control side.

pub mod build;
pub mod sockets;

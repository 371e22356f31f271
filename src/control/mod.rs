//! The control side.

pub mod background;
pub mod build;
pub mod changes;
pub mod signals;
pub mod sockets;

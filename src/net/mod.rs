//! Sockets: addresses, binding, dialling, deadlines, relaying bytes.

pub mod addr;
pub mod deadline;
pub mod dial;
pub mod local;
pub mod nofile;
pub mod outbox;
pub mod pace;
pub mod peek;
pub mod race;
pub mod relay;
pub mod socket;
pub mod splice;
pub mod stream;

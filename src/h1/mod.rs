//! HTTP/1.0 and 1.1 on the wire, without I/O: strict parsing, framing, bodies, writing.
//!
//! One sequence of bytes has exactly one reading here or is refused (RFC 9112 sections 2 to 7 and 11.2):
//! what another parser might read differently never reaches an endpoint or a client. A listener may allow some of it
//! (`desync.rs`): then in the one reading that is safe, brought into the form everybody reads alike.

pub mod decode;
pub mod desync;
pub mod encode;
pub mod framing;
pub mod head;
pub mod host;
mod mended;
mod plain;
pub mod request;
pub mod response;
pub mod target;

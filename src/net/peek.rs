//! The server name of a TLS ClientHello, read before anything else is decided.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncRead;

/// What the first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    More,
    NotTls,
    Name(Option<String>),
}

/// The bytes read and what they are.
#[derive(Debug)]
pub struct Peeked {
    pub bytes: BytesMut,
    pub hello: Hello,
}

/// Reads until the name is known.
pub async fn server_name<R: AsyncRead + Unpin>(_io: &mut R, _deadline: Duration) -> io::Result<Peeked> {
    Err(io::ErrorKind::Unsupported.into())
}

//! Connecting to an address.

use std::io;

use tokio::net::{TcpStream, UnixStream};

use super::addr::DialAddr;
use super::stream::Stream;

/// Connects, with Nagle's algorithm off. The caller gives the deadline; dropping the future gives up.
pub async fn connect(addr: &DialAddr) -> io::Result<Stream> {
    match addr {
        DialAddr::Ip(addr) => {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Stream::Tcp(stream))
        }
        DialAddr::Unix(path) => Ok(Stream::Unix(UnixStream::connect(path).await?)),
    }
}

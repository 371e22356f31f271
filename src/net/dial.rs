//! Connecting to an address.

use std::io;
use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use super::addr::DialAddr;
use super::race;
use super::stream::Stream;

/// What happens first on a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// We send at once. The last packet of TCP's handshake then waits for the first bytes, and leaves with them.
    Ours,
    /// Perhaps the endpoint greets, which it cannot before it has that packet.
    Unknown,
}

/// Connects, with Nagle's algorithm off. The caller gives the deadline; dropping the future gives up.
pub async fn connect(addr: &DialAddr, opening: Opening) -> io::Result<Stream> {
    let (stream, ()) = connect_with(addr, opening, (), || Some(())).await?;
    Ok(stream)
}

/// As [`connect`], with a right to have a connection, which comes back with it. Where several addresses are tried at
/// once, each has one of its own from `another`, for as long as its socket is open.
pub async fn connect_with<R: Send + 'static>(
    addr: &DialAddr,
    opening: Opening,
    right: R,
    another: impl Fn() -> Option<R>,
) -> io::Result<(Stream, R)> {
    let stream = match addr {
        DialAddr::Ip(addr) => connect_tcp(*addr, opening).await?,
        DialAddr::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
        // In a box: it is large, and few endpoints are so.
        DialAddr::Any(addrs) => return Box::pin(race::connect(addrs, opening, right, another)).await,
    };
    Ok((stream, right))
}

/// To one address.
pub async fn connect_tcp(addr: SocketAddr, opening: Opening) -> io::Result<Stream> {
    let kind = Type::STREAM.nonblocking().cloexec();
    let socket = Socket::new_raw(Domain::for_address(addr), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    if opening == Opening::Ours {
        // Best effort: it saves a packet.
        let _ = socket.set_tcp_quickack(false);
    }
    match socket.connect(&addr.into()) {
        Err(e) if e.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => return Err(e),
        _ => {}
    }
    let stream = TcpStream::from_std(socket.into())?;
    // A failure closes both directions, as epoll tells it: only then is there an error to ask for.
    if stream.ready(Interest::WRITABLE).await?.is_write_closed()
        && let Some(e) = stream.take_error()?
    {
        return Err(e);
    }
    Ok(Stream::Tcp(stream))
}

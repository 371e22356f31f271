//! Listening sockets: one per worker on the same address, so that the kernel spreads connections.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use super::addr::BindAddr;

/// Connections the kernel keeps ready for us (it lowers this to `net.core.somaxconn`).
const BACKLOG: i32 = 4096;
/// A silent client is asked after this whether it still exists.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A bound socket that no runtime knows yet.
#[derive(Debug)]
pub enum Bound {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Binds `addr` `copies` times (SO_REUSEPORT; a Unix socket is shared). Fails, and leaves nothing behind,
/// when another process listens there, even one that also set SO_REUSEPORT; `ours`: this process listens on the same
/// port of another address, which is fine.
pub fn bind(addr: &BindAddr, copies: usize, ours: bool) -> io::Result<Vec<Bound>> {
    match addr {
        BindAddr::Any(port) => {
            bind_ip(SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port)), false, copies, ours).or_else(|e| {
                match e.raw_os_error() {
                    // No IPv6 on this machine.
                    Some(code)
                        if code == rustix::io::Errno::AFNOSUPPORT.raw_os_error()
                            || code == rustix::io::Errno::ADDRNOTAVAIL.raw_os_error() =>
                    {
                        bind_ip(SocketAddr::from(([0, 0, 0, 0], *port)), false, copies, ours)
                    }
                    _ => Err(e),
                }
            })
        }
        BindAddr::Ip(addr) => bind_ip(*addr, addr.is_ipv6(), copies, ours),
        BindAddr::Unix(path) => bind_unix(path, copies),
    }
}

/// The address a socket is bound to, as it is logged.
pub fn local_label(bound: &Bound, addr: &BindAddr) -> String {
    match bound {
        Bound::Tcp(listener) => listener
            .local_addr()
            .map_or_else(|_| addr.to_string(), |a| a.to_string()),
        Bound::Unix(_) => addr.to_string(),
    }
}

fn bind_ip(mut addr: SocketAddr, only_v6: bool, copies: usize, ours: bool) -> io::Result<Vec<Bound>> {
    // Without SO_REUSEPORT: with it, a second proxy started by mistake would silently get half of the connections.
    if addr.port() != 0 && !ours {
        let probe = socket(addr, only_v6)?;
        probe.bind(&addr.into())?;
    }
    let mut bound = Vec::with_capacity(copies);
    for _ in 0..copies.max(1) {
        let socket = socket(addr, only_v6)?;
        socket.set_reuse_port(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from(socket);
        addr = listener.local_addr()?;
        bound.push(Bound::Tcp(listener));
    }
    Ok(bound)
}

fn socket(addr: SocketAddr, only_v6: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(only_v6)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted connections inherit both.
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn bind_unix(path: &Path, copies: usize) -> io::Result<Vec<Bound>> {
    // A socket file nobody listens on is a leftover of a crash; one that answers belongs to someone.
    if let Ok(meta) = std::fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt;
        if !meta.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "a file that is not a socket is in the way",
            ));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let first = UnixListener::bind(path)?;
    first.set_nonblocking(true)?;
    let mut bound = Vec::with_capacity(copies);
    for _ in 1..copies {
        bound.push(Bound::Unix(first.try_clone()?));
    }
    bound.push(Bound::Unix(first));
    Ok(bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(bound: &Bound) -> u16 {
        match bound {
            Bound::Tcp(l) => l.local_addr().unwrap().port(),
            Bound::Unix(_) => 0,
        }
    }

    #[test]
    fn copies_share_a_port_and_strangers_are_refused() {
        let first = bind(&BindAddr::parse("127.0.0.1:0").unwrap(), 3, false).unwrap();
        assert_eq!(first.len(), 3);
        let port = port(&first[0]);
        assert!(first.iter().all(|b| self::port(b) == port));
        let again = bind(&BindAddr::Ip(([127, 0, 0, 1], port).into()), 1, false).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_a_live_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let addr = BindAddr::Unix(dir.path().join("s"));
        let live = bind(&addr, 2, false).unwrap();
        assert_eq!(bind(&addr, 1, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        assert_eq!(bind(&addr, 1, false).unwrap().len(), 1);
        std::fs::write(dir.path().join("f"), "x").unwrap();
        assert!(bind(&BindAddr::Unix(dir.path().join("f")), 1, false).is_err());
    }
}

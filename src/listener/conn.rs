//! One accepted connection: admitted, its TLS handshake done, handed to the protocol its listener speaks.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsAcceptor;

use super::{Accepted, Fleet, Load};
use crate::net::stream::Stream;
use crate::proxy::http::h1::{self, Conn};
use crate::proxy::http::{Downstream, h2};
use crate::proxy::tcp;
use crate::proxy::worker::{Peer, Worker};
use crate::snapshot::{Admitted, Listener, Live, Serve};
use crate::tls::io::Io;

/// Takes a connection in, or closes it when a limit is reached.
pub(super) fn welcome(worker: &Rc<Worker>, fleet: &Arc<Fleet>, accepted: Accepted) {
    let held = worker.snapshot.get();
    let Some(listener) = held.listener(accepted.slot) else {
        return;
    };
    let series = listener.live.series.local(worker.id);
    // `::ffff:192.0.2.1` is `192.0.2.1` to everybody but the kernel.
    let source = accepted.peer.map(|peer| peer.ip().to_canonical());
    let Some(admitted) = listener.live.admit(listener.max_connections, source) else {
        series.refused.add(1);
        return;
    };
    let Ok(stream) = stream(accepted.fd, accepted.peer.is_some()) else {
        series.accept_errors.add(1);
        return;
    };
    let open = Open::begin(worker, fleet, &listener.live, admitted);
    let peer = Peer {
        ip: source.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        port: accepted.peer.map(|peer| peer.port()),
    };
    let listener = listener.clone();
    // In boxes, which the runtime can move cheaply. Layer 4 by itself: what an HTTP connection takes is many times larger.
    if matches!(listener.serve, Serve::Tcp(_)) && listener.tls.is_none() {
        tokio::task::spawn_local(Box::pin(layer4(open, listener, Io::Plain(stream), peer)));
    } else {
        tokio::task::spawn_local(Box::pin(serve(open, listener, stream, peer)));
    }
}

fn stream(fd: OwnedFd, tcp: bool) -> std::io::Result<Stream> {
    Ok(if tcp {
        Stream::Tcp(TcpStream::from_std(fd.into())?)
    } else {
        Stream::Unix(UnixStream::from_std(fd.into())?)
    })
}

async fn serve(open: Open, listener: Arc<Listener>, stream: Stream, peer: Peer) {
    let Some(io) = secured(&open, &listener, stream).await else {
        return;
    };
    match &listener.serve {
        Serve::Tcp(_) => Box::pin(layer4(open, listener, io, peer)).await,
        Serve::Http(_) => {
            let (tls, h2) = match &io {
                Io::Plain(_) => (false, false),
                Io::Tls(tls) => (true, tls.get_ref().1.alpn_protocol() == Some(b"h2")),
            };
            let down = Downstream {
                worker: open.worker.clone(),
                forwarded_for: peer.ip.to_string().into(),
                forwarding: Default::default(),
                peer,
                tls,
                slot: listener.slot,
            };
            let conn = Rc::new(Conn::new(down, open.live.clone(), io, BytesMut::new()));
            // A connection at rest must not keep an old world alive.
            drop(listener);
            http(conn, h2).await;
        }
    }
}

async fn layer4(open: Open, listener: Arc<Listener>, io: Io, peer: Peer) {
    if let Serve::Tcp(tcp) = &listener.serve {
        let logged = open.worker.snapshot.get().access_log;
        tcp::serve(&open.worker, &listener, tcp, logged, &peer, io).await;
    }
}

/// `conn` begins with HTTP/1 unless ALPN chose `h2`; without TLS its first bytes tell.
async fn http(conn: Rc<Conn>, h2: bool) {
    let conn = if h2 { Some(conn) } else { h1::serve(conn).await };
    if let Some(conn) = conn {
        // In a box, like all that a connection of HTTP/1 at rest has no use for.
        Box::pin(http2(conn)).await;
    }
}

async fn http2(conn: Rc<Conn>) {
    if let Some(conn) = Rc::into_inner(conn) {
        let wire = conn.wire.into_inner();
        h2::serve(conn.down, conn.live, wire.io, wire.read).await;
    }
}

/// The connection as the protocols see it; `None`: the handshake failed.
async fn secured(open: &Open, listener: &Listener, stream: Stream) -> Option<Io> {
    let Some(config) = &listener.tls else {
        return Some(Io::Plain(stream));
    };
    let handshake = Box::pin(TlsAcceptor::from(config.clone()).accept(stream));
    let failed = match tokio::time::timeout(listener.handshake_timeout, handshake).await {
        Ok(Ok(tls)) => return Some(Io::Tls(Box::new(tls.into()))),
        Ok(Err(error)) => error.to_string(),
        Err(_) => "timed out".to_owned(),
    };
    open.live.series.local(open.worker.id).handshake_failures.add(1);
    tracing::debug!(listener = %listener.name, error = %failed, "TLS handshake failed");
    None
}

/// A connection, counted everywhere it counts until it is dropped.
struct Open {
    worker: Rc<Worker>,
    live: Arc<Live>,
    _load: Load,
    _admitted: Admitted,
}

impl Open {
    fn begin(worker: &Rc<Worker>, fleet: &Arc<Fleet>, live: &Arc<Live>, admitted: Admitted) -> Self {
        live.series.local(worker.id).accepted.add(1);
        worker.connections.set(worker.connections.get() + 1);
        Self {
            worker: worker.clone(),
            live: live.clone(),
            _load: Load::begin(fleet, worker.id.0 - 1),
            _admitted: admitted,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.live.series.local(self.worker.id).closed.add(1);
        self.worker.connections.set(self.worker.connections.get() - 1);
        self.worker.left.notify_one();
    }
}

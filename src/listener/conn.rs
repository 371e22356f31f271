//! One accepted connection: admitted, its TLS handshake done, handed to the protocol its listener speaks.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{Accept, TlsAcceptor};

use super::{Accepted, Fleet, Load};
use crate::net::stream::Stream;
use crate::proxy::http::h1::{self, Client};
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
    // In boxes, which the runtime can move cheaply, and each way by itself: what a TLS handshake or Layer 4 needs would be
    // held by every connection of HTTP that rests.
    match (&listener.serve, &listener.tls) {
        (Serve::Http(_), None) => {
            let client = client(&open, listener, Io::Plain(stream), peer);
            drop(held);
            tokio::task::spawn_local(Box::pin(http(open, client, false)));
        }
        (Serve::Tcp(_), None) => {
            let listener = listener.clone();
            tokio::task::spawn_local(Box::pin(layer4(open, listener, Io::Plain(stream), peer)));
        }
        (_, Some(config)) => {
            let handshake = TlsAcceptor::from(config.clone()).accept(stream);
            let listener = listener.clone();
            tokio::task::spawn_local(Box::pin(secured(open, listener, Box::pin(handshake), peer)));
        }
    }
}

fn stream(fd: OwnedFd, tcp: bool) -> std::io::Result<Stream> {
    Ok(if tcp {
        Stream::Tcp(TcpStream::from_std(fd.into())?)
    } else {
        Stream::Unix(UnixStream::from_std(fd.into())?)
    })
}

/// A connection of HTTP. In a box: futures hold what they are given more than once.
fn client(open: &Open, listener: &Listener, io: Io, peer: Peer) -> Box<Client> {
    let down = Downstream {
        worker: open.worker.clone(),
        forwarding: Default::default(),
        peer,
        tls: matches!(io, Io::Tls(_)),
        slot: listener.slot,
    };
    let live = open.live.clone();
    Box::new(Client { down, live, io })
}

/// What follows a TLS handshake.
async fn secured(open: Open, listener: Arc<Listener>, handshake: Pin<Box<Accept<Stream>>>, peer: Peer) {
    let failed = match tokio::time::timeout(listener.handshake_timeout, handshake).await {
        Ok(Ok(tls)) => {
            let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
            let io = Io::Tls(Box::new(tls.into()));
            return match &listener.serve {
                Serve::Tcp(_) => Box::pin(layer4(open, listener, io, peer)).await,
                Serve::Http(_) => {
                    let client = client(&open, &listener, io, peer);
                    // A connection at rest must not keep an old world alive.
                    drop(listener);
                    http(open, client, h2).await;
                }
            };
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "timed out".to_owned(),
    };
    open.live.series.local(open.worker.id).handshake_failures.add(1);
    tracing::debug!(listener = %listener.name, error = %failed, "TLS handshake failed");
}

async fn layer4(open: Open, listener: Arc<Listener>, io: Io, peer: Peer) {
    if let Serve::Tcp(tcp) = &listener.serve {
        let logged = open.worker.snapshot.get().access_log;
        tcp::serve(&open.worker, &listener, tcp, logged, &peer, io).await;
    }
}

/// A connection begins with HTTP/1 unless ALPN chose `h2`; without TLS its first bytes tell.
async fn http(_open: Open, client: Box<Client>, h2: bool) {
    let h2 = match h2 {
        true => Some((client, BytesMut::new())),
        false => h1::serve(client).await,
    };
    if let Some((client, read)) = h2 {
        // In a box: a connection of HTTP/1 at rest has no use for the room.
        Box::pin(h2::serve(*client, read)).await;
    }
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

//! HTTP/2 connections to an endpoint, each shared by many requests.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http_body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::net::local::LocalExec;
use crate::tls::io::Io;

/// Flow-control windows for what endpoints send.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// Streams at once on one connection; more open another. An endpoint that allows fewer makes the rest wait.
const MAX_STREAMS: usize = 100;

/// A shared connection.
pub(super) struct Shared<B> {
    pub send: SendRequest<B>,
    pub active: Rc<Cell<usize>>,
    pub epoch: u64,
    /// The pool's tick when it last had a request.
    pub used: u32,
}

/// The right to send one request on a shared connection.
pub struct H2Lease<B> {
    pub send: SendRequest<B>,
    pub permit: StreamPermit,
    pub reused: bool,
}

/// One stream under way, counted until dropped.
#[derive(Debug)]
pub struct StreamPermit(Rc<Cell<usize>>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl<B> Shared<B> {
    pub fn has_room(&self) -> bool {
        !self.send.is_closed() && self.active.get() < MAX_STREAMS
    }

    pub fn lease(&self, reused: bool) -> H2Lease<B> {
        self.active.set(self.active.get() + 1);
        H2Lease {
            send: self.send.clone(),
            permit: StreamPermit(self.active.clone()),
            reused,
        }
    }
}

/// Starts HTTP/2 on a fresh connection; the connection's own task runs on this worker.
pub(super) async fn handshake<B>(io: Io, epoch: u64, deadline: Duration) -> Result<Shared<B>, hyper::Error>
where
    B: Body + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (send, connection) = Builder::new(LocalExec)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(deadline.max(Duration::from_secs(5)))
        .handshake(TokioIo::new(io))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "HTTP/2 connection to an endpoint ended");
        }
    });
    Ok(Shared {
        send,
        active: Rc::default(),
        epoch,
        used: 0,
    })
}

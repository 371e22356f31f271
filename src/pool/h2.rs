//! HTTP/2 connections to an endpoint, each shared by many requests.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http_body::Body;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use tokio::sync::Notify;

use super::dial::Connected;
use crate::endpoint::links::STREAMS;
use crate::net::local::LocalExec;

/// Flow-control windows for what endpoints send.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 2 * 1024 * 1024;

/// What requests to endpoints carry.
pub trait Payload: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static {}

impl<B> Payload for B where B: Body<Data: Send, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static {}

/// A shared connection.
pub(super) struct Shared<B> {
    pub send: SendRequest<B>,
    pub usage: Rc<Usage>,
    pub epoch: u64,
    /// The pool's tick when it last had a request.
    pub used: u32,
}

/// What a shared connection has to do.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Streams under way.
    pub active: Cell<u32>,
    /// It has had a request.
    used: Cell<bool>,
    /// It takes no new request: another worker waits for it to close.
    pub leaving: Cell<bool>,
    emptied: Notify,
}

/// The right to send one request on a shared connection.
pub struct H2Lease<B> {
    pub send: SendRequest<B>,
    pub permit: StreamPermit,
    /// It has had a request before: the endpoint may have closed it in the meantime.
    pub reused: bool,
}

impl<B> H2Lease<B> {
    /// Nothing was sent.
    pub(super) fn unused(self) {
        self.permit.0.used.set(self.reused);
    }
}

/// One stream under way, counted until dropped.
#[derive(Debug)]
pub struct StreamPermit(Rc<Usage>);

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let left = self.0.active.get() - 1;
        self.0.active.set(left);
        if left == 0 && self.0.leaving.get() {
            self.0.emptied.notify_waiters();
        }
    }
}

impl Usage {
    /// Returns when a connection that is leaving has ended its last stream.
    pub async fn emptied(&self) {
        self.emptied.notified().await;
    }
}

impl<B> Shared<B> {
    pub fn has_room(&self) -> bool {
        !self.send.is_closed() && !self.usage.leaving.get() && self.usage.active.get() < STREAMS
    }

    pub fn lease(&self) -> H2Lease<B> {
        self.usage.active.set(self.usage.active.get() + 1);
        H2Lease {
            send: self.send.clone(),
            permit: StreamPermit(self.usage.clone()),
            reused: self.usage.used.replace(true),
        }
    }
}

/// Starts HTTP/2 on a fresh connection; the connection's own task runs on this worker.
pub(super) async fn handshake<B: Payload>(
    Connected { io, link }: Connected,
    epoch: u64,
    deadline: Duration,
) -> Result<Shared<B>, hyper::Error> {
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
        drop(link);
    });
    Ok(Shared {
        send,
        usage: Rc::default(),
        epoch,
        used: 0,
    })
}

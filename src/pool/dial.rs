//! How an upstream's endpoints are connected to: address, TLS, protocol, within one deadline.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::endpoint::State;
use crate::endpoint::links::Link;
use crate::net::addr::EndpointAddr;
use crate::net::dial::{self, Opening};
use crate::net::nofile::exhausted;
use crate::tls::client;
use crate::tls::io::Io;

/// What is spoken to endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    H2,
    /// Over TLS what ALPN says, in the clear HTTP/1.1. The default.
    Auto,
}

/// Everything that decides how a connection is made. Two dialers with different epochs never share
/// connections: what was connected under old settings is not used under new ones.
#[derive(Debug)]
pub struct Dialer {
    epoch: u64,
    pub protocol: Protocol,
    pub tls: Option<Tls>,
    /// Connection and TLS handshake together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept, and how many per endpoint and worker.
    pub idle_timeout: Duration,
    pub max_idle: usize,
}

/// TLS towards endpoints.
#[derive(Debug, Clone)]
pub struct Tls {
    /// With the ALPN of the upstream's protocol, for HTTP.
    pub http: Arc<rustls::ClientConfig>,
    /// Without ALPN, for Layer 4.
    pub raw: Arc<rustls::ClientConfig>,
    /// Instead of the endpoint's own name.
    pub server_name: Option<ServerName<'static>>,
    /// For the handshake alone; `None`: what is left of the connection's.
    pub handshake_timeout: Option<Duration>,
}

/// A connection just made.
#[derive(Debug)]
pub struct Connected {
    pub io: Io,
    /// Counts it; dropped after it.
    pub link: Link,
}

/// Why there is no connection.
#[derive(Debug, Clone)]
pub enum DialError {
    /// There are as many as may be, and none was closed in time: no fault of the endpoint.
    Full(Duration),
    Failed(Arc<io::Error>),
    Timeout(Duration),
    Tls(Arc<io::Error>),
    TlsTimeout(Duration),
}

impl DialError {
    /// This process lacks descriptors or memory, which says nothing about the endpoint.
    pub fn is_exhausted(&self) -> bool {
        matches!(self, Self::Failed(e) if exhausted(e))
    }
}

impl std::fmt::Display for DialError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Full(after) => write!(
                f,
                "it has as many connections as it may, and none was closed within {after:?}"
            ),
            Self::Failed(e) => write!(f, "cannot connect: {e}"),
            Self::Timeout(after) => write!(f, "no connection within {after:?}"),
            Self::Tls(e) => write!(f, "TLS handshake failed: {e}"),
            Self::TlsTimeout(after) => write!(f, "no TLS handshake within {after:?}"),
        }
    }
}

impl Dialer {
    /// A dialer with a new epoch.
    pub fn new(
        protocol: Protocol,
        tls: Option<Tls>,
        connect_timeout: Duration,
        idle_timeout: Duration,
        max_idle: usize,
    ) -> Self {
        static EPOCH: AtomicU64 = AtomicU64::new(0);
        Self {
            epoch: EPOCH.fetch_add(1, Relaxed),
            protocol,
            tls,
            connect_timeout,
            idle_timeout,
            max_idle,
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether its endpoints may speak HTTP/2, in which a request can be refused untouched.
    pub fn may_refuse(&self) -> bool {
        self.protocol == Protocol::H2 || (self.protocol == Protocol::Auto && self.tls.is_some())
    }

    /// Whether HTTP/2 is spoken over `io`, made by [`Self::connect`].
    pub(super) fn is_h2(&self, io: &Io) -> bool {
        match (io, self.protocol) {
            (_, Protocol::H2) => true,
            (_, Protocol::Http1) | (Io::Plain(_), Protocol::Auto) => false,
            (Io::Tls(tls), Protocol::Auto) => tls.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Whether `endpoint` will speak HTTP/2, as far as is known.
    pub(super) fn expects_h2(&self, endpoint: &State) -> bool {
        match self.protocol {
            Protocol::H2 => true,
            Protocol::Http1 => false,
            Protocol::Auto => self.tls.is_some() && endpoint.links.speak_h2(),
        }
    }

    /// Connects for HTTP.
    pub async fn connect(&self, endpoint: &State) -> Result<Connected, DialError> {
        self.counted(endpoint, self.tls.as_ref().map(|t| &t.http), Opening::Ours)
            .await
    }

    /// Connects for HTTP without ALPN, for what may become a tunnel.
    pub async fn connect_raw(&self, endpoint: &State) -> Result<Connected, DialError> {
        self.connect_l4(endpoint, Opening::Ours).await
    }

    /// Connects for Layer 4.
    pub async fn connect_l4(&self, endpoint: &State, opening: Opening) -> Result<Connected, DialError> {
        let config = self.tls.as_ref().map(|t| &t.raw);
        let opening = if config.is_some() { Opening::Ours } else { opening };
        self.counted(endpoint, config, opening).await
    }

    /// Once there may be one more, which takes `connect_timeout` at most.
    async fn counted(
        &self,
        endpoint: &State,
        config: Option<&Arc<rustls::ClientConfig>>,
        opening: Opening,
    ) -> Result<Connected, DialError> {
        let link = match endpoint.links.try_open() {
            Some(link) => link,
            // In a box: hardly anybody has to wait.
            None => Box::pin(endpoint.links.open(self.connect_timeout))
                .await
                .ok_or(DialError::Full(self.connect_timeout))?,
        };
        self.bounded(endpoint, config, opening, link).await
    }

    async fn bounded(
        &self,
        endpoint: &State,
        config: Option<&Arc<rustls::ClientConfig>>,
        opening: Opening,
        link: Link,
    ) -> Result<Connected, DialError> {
        let shaking = Cell::new(false);
        let another = || endpoint.links.try_open();
        let work = async {
            let (stream, link) = dial::connect_with(&endpoint.addr, opening, link, another)
                .await
                .map_err(|e| DialError::Failed(Arc::new(e)))?;
            let Some(config) = config else {
                let io = Io::Plain(stream);
                return Ok(Connected { io, link });
            };
            let name = self.server_name(&endpoint.configured)?;
            // In a box: a connection without TLS should not carry the room that a handshake takes.
            let handshake = Box::pin(TlsConnector::from(config.clone()).connect(name, stream));
            shaking.set(true);
            let limit = self.tls.as_ref().and_then(|tls| tls.handshake_timeout);
            let tls = match limit {
                None => handshake.await,
                Some(limit) => tokio::time::timeout(limit, handshake)
                    .await
                    .map_err(|_| DialError::TlsTimeout(limit))?,
            };
            let tls = tls.map_err(|e| DialError::Tls(Arc::new(e)))?;
            let io = Io::Tls(Box::new(TlsStream::Client(tls)));
            Ok(Connected { io, link })
        };
        let connected = tokio::time::timeout(self.connect_timeout, work)
            .await
            .unwrap_or_else(|_| match shaking.get() {
                true => Err(DialError::TlsTimeout(self.connect_timeout)),
                false => Err(DialError::Timeout(self.connect_timeout)),
            });
        if connected.as_ref().is_err_and(|e| !e.is_exhausted()) {
            endpoint.doubt();
        }
        connected
    }

    fn server_name(&self, configured: &EndpointAddr) -> Result<ServerName<'static>, DialError> {
        match self.tls.as_ref().and_then(|t| t.server_name.clone()) {
            Some(name) => Ok(name),
            None => client::name_of(configured).map_err(|e| DialError::Tls(Arc::new(io::Error::other(e)))),
        }
    }
}

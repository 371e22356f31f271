//! Active health checks: what is asked (a probe), how answers add up (threshold), the loop (checker).

pub mod agent;
pub mod checker;
pub mod exec;
pub mod expect;
pub mod grpc;
pub mod http;
pub mod mysql;
pub mod outlier;
pub mod postgres;
pub mod redis;
pub mod tcp;
pub mod threshold;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use self::expect::Expect;
use self::redis::Login;
use self::threshold::Threshold;
use crate::endpoint::Health;
use crate::net::addr::{DialAddr, EndpointAddr};
use crate::telemetry::series::ProbeResult;

/// `[upstreams.X.health]` as validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub probe: Probe,
    /// Asked beside it.
    pub agent: Option<agent::Spec>,
    /// From the start of one probe to the start of the next, shortened at random by up to `jitter`.
    pub interval: Duration,
    /// The same while the endpoint is down, and while results speak against what it is.
    pub interval_down: Duration,
    pub interval_changing: Duration,
    /// Share of the interval, 0.0 to 1.0.
    pub jitter: f64,
    pub timeout: Duration,
    /// Passes in a row to come back, failures in a row to go out. At least 1.
    pub rise: u32,
    pub fall: u32,
    /// Probe this port instead of the endpoint's.
    pub port: Option<u16>,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum Probe {
    /// The connection is made (and the TLS handshake, when the upstream speaks TLS).
    Tcp,
    Expect(Expect),
    Http(HttpProbe),
    /// The health of this service; empty: of the server as a whole.
    Grpc {
        service: String,
    },
    /// The TLS handshake is made, also where the upstream passes TLS through.
    Tls {
        /// Sent and verified instead of the endpoint's own name.
        server_name: Option<ServerName<'static>>,
    },
    Redis(Login),
    Postgres {
        user: String,
    },
    /// With a user it logs in.
    Mysql {
        user: Option<String>,
    },
    /// A program and its arguments.
    Exec(Vec<String>),
}

impl Spec {
    /// From the start of the last probe to the start of the next, before jitter.
    pub fn interval(&self, threshold: &Threshold) -> Duration {
        match threshold.health() {
            _ if threshold.against() > 0 => self.interval_changing,
            Health::Down => self.interval_down,
            Health::Up | Health::Checking => self.interval,
        }
    }
}

impl Probe {
    /// The key of the configuration.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Tcp | Self::Expect(_) => "tcp",
            Self::Http(_) => "http",
            Self::Grpc { .. } => "grpc",
            Self::Tls { .. } => "tls",
            Self::Redis(_) => "redis",
            Self::Postgres { .. } => "postgres",
            Self::Mysql { .. } => "mysql",
            Self::Exec(_) => "exec",
        }
    }

    /// Whether it speaks what a listener for HTTP would carry: then TLS may agree on a protocol.
    pub fn is_http(&self) -> bool {
        matches!(self, Self::Http(_) | Self::Grpc { .. })
    }
}

/// One HTTP request and what its answer must be.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpProbe {
    /// Path and query.
    pub path: String,
    /// The Host field; default: the endpoint's address.
    pub host: Option<String>,
    pub method: Method,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Accepted statuses, as inclusive ranges. Default 200..=399.
    pub expect_status: Vec<(u16, u16)>,
    /// Text that must stand in the first 64 KiB of the body.
    pub expect_body: Option<String>,
}

/// How probes speak TLS: as the upstream's requests do.
#[derive(Debug, Clone)]
pub struct ProbeTls {
    pub config: Arc<rustls::ClientConfig>,
    /// Instead of the endpoint's own name.
    pub server_name: Option<ServerName<'static>>,
}

/// Who is asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub addr: DialAddr,
    /// As written in the configuration: the name TLS verifies, the Host of requests.
    pub configured: EndpointAddr,
}

/// Why a probe failed, with a short reason for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failed {
    /// No connection.
    Connect(String),
    /// No TLS handshake.
    Tls(String),
    /// An answer that is wrong, or none, from a connection that was made.
    Answer(String),
    /// Nothing of it in time.
    Timeout(Duration),
    /// This process lacks descriptors or memory, which says nothing about the endpoint.
    Exhausted,
}

impl Failed {
    pub fn result(&self) -> ProbeResult {
        match self {
            Self::Connect(_) | Self::Exhausted => ProbeResult::ConnectFailed,
            Self::Tls(_) => ProbeResult::TlsFailed,
            Self::Answer(_) => ProbeResult::WrongAnswer,
            Self::Timeout(_) => ProbeResult::Timeout,
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(reason) | Self::Tls(reason) | Self::Answer(reason) => f.write_str(reason),
            Self::Timeout(timeout) => write!(f, "no answer within {timeout:?}"),
            Self::Exhausted => f.write_str("no descriptors or memory here"),
        }
    }
}

/// Without descriptors nothing can be asked: time for connections to end.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks once, within `spec.timeout` once there is a descriptor for it: it never fails as `Exhausted`.
///
/// `h2`: HTTP probes speak HTTP/2; otherwise they do where TLS agrees on it. Dropping the future closes
/// the connection.
pub async fn probe(target: &Target, spec: &Spec, tls: Option<&ProbeTls>, h2: bool) -> Result<(), Failed> {
    loop {
        match timeout(spec.timeout, ask(target, spec, tls, h2)).await {
            Ok(Err(Failed::Exhausted)) => sleep(PAUSE).await,
            Ok(result) => return result,
            Err(_) => return Err(Failed::Timeout(spec.timeout)),
        }
    }
}

async fn ask(target: &Target, spec: &Spec, tls: Option<&ProbeTls>, h2: bool) -> Result<(), Failed> {
    if let Probe::Exec(command) = &spec.probe {
        return exec::run(command, target, spec.port).await;
    }
    let mut io = tcp::connect(target, spec.port, tls).await?;
    let answer = match &spec.probe {
        Probe::Http(probe) => {
            let answer = http::exchange(io, probe, &target.configured, h2).await;
            return answer.map_err(Failed::Answer);
        }
        Probe::Grpc { service } => return grpc::check(io, service, &target.configured).await,
        Probe::Tcp | Probe::Tls { .. } | Probe::Exec(_) => Ok(()),
        Probe::Expect(probe) => expect::exchange(&mut io, probe).await,
        Probe::Redis(login) => redis::ping(&mut io, login).await,
        Probe::Postgres { user } => postgres::start_up(&mut io, user).await,
        Probe::Mysql { user } => mysql::greeting(&mut io, user.as_deref()).await,
    };
    // The answer is in already; this only says goodbye.
    let _ = io.shutdown().await;
    answer
}

#[cfg(test)]
mod tests;

//! Active health checks: what is asked (a probe), how answers add up (threshold), the loop (checker).

pub mod checker;
pub mod http;
pub mod tcp;
pub mod threshold;

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method};
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};

use self::tcp::Failed;
use crate::endpoint::State;

/// `[upstreams.X.health]` as validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub probe: Probe,
    /// From the start of one probe to the start of the next, shortened at random by up to `jitter`.
    pub interval: Duration,
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
    Http(HttpProbe),
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

/// Without descriptors nothing can be asked: time for connections to end.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks once, within `spec.timeout` once there is a descriptor for it. The error is a short reason for the log.
///
/// `h2`: HTTP probes speak HTTP/2; otherwise they do where TLS agrees on it. Dropping the future closes
/// the connection.
pub async fn probe(endpoint: &State, spec: &Spec, tls: Option<&ProbeTls>, h2: bool) -> Result<(), String> {
    let ask = || async {
        let mut io = tcp::connect(endpoint, spec.port, tls).await?;
        match &spec.probe {
            Probe::Tcp => {
                // The answer is in already; this only says goodbye.
                let _ = io.shutdown().await;
                Ok(())
            }
            Probe::Http(probe) => Ok(http::exchange(io, probe, &endpoint.configured, h2).await?),
        }
    };
    loop {
        match timeout(spec.timeout, ask()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(Failed::Endpoint(reason))) => return Err(reason),
            Ok(Err(Failed::Exhausted)) => sleep(PAUSE).await,
            Err(_) => return Err(format!("no answer within {:?}", spec.timeout)),
        }
    }
}

#[cfg(test)]
mod tests;

//! The TCP probe: a connection, and a TLS handshake where the upstream speaks TLS. Other probes begin with it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use tokio_rustls::{TlsConnector, TlsStream};

use super::{Failed, ProbeTls, Target};
use crate::net::addr::DialAddr;
use crate::net::dial;
use crate::net::nofile::exhausted;
use crate::tls::client;
use crate::tls::io::Io;

/// Connects to `target`, on `port` instead of its own where one is given. The caller gives the
/// deadline; dropping the future closes the connection.
pub async fn connect(target: &Target, port: Option<u16>, tls: Option<&ProbeTls>) -> Result<Io, Failed> {
    let mut addr = target.addr.clone();
    if let Some(port) = port {
        match &mut addr {
            DialAddr::Ip(addr) => addr.set_port(port),
            DialAddr::Any(addrs) => *addrs = Arc::new(addrs.with_port(port)),
            DialAddr::Unix(_) => {}
        }
    }
    let stream = dial::connect(&addr, dial::Opening::Unknown)
        .await
        .map_err(|e| match exhausted(&e) {
            true => Failed::Exhausted,
            false => Failed::Connect(reason(&e)),
        })?;
    let Some(tls) = tls else {
        return Ok(Io::Plain(stream));
    };
    let name = match &tls.server_name {
        Some(name) => name.clone(),
        None => client::name_of(&target.configured).map_err(Failed::Tls)?,
    };
    match TlsConnector::from(tls.config.clone()).connect(name, stream).await {
        Ok(stream) => Ok(Io::Tls(Box::new(TlsStream::Client(stream)))),
        Err(e) => Err(Failed::Tls(format!("TLS handshake failed: {}", reason(&e)))),
    }
}

/// What went wrong, without the number of the system's error where its kind says it all.
pub(super) fn reason(error: &io::Error) -> String {
    match error.kind() {
        kind @ (ErrorKind::ConnectionRefused
        | ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkUnreachable
        | ErrorKind::PermissionDenied) => kind.to_string(),
        _ => error.to_string(),
    }
}

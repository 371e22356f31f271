//! TLS on both sides: certificates chosen by SNI for clients, verification of endpoints.

pub mod client;
pub mod io;
pub mod load;
pub mod server;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;

/// `tls = …` of a listener, with its files read and checked.
#[derive(Debug, Clone)]
pub struct ServerSpec {
    /// The first is the default for clients without SNI or with an unknown name.
    pub certificates: Vec<Certificate>,
    /// TLS 1.2 is refused when set.
    pub only_tls13: bool,
}

/// One certificate chain and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    pub cert_path: PathBuf,
    pub key_path: PathBuf,
    pub certified: Arc<CertifiedKey>,
    /// DNS names of the certificate, lower case, `*.` kept.
    pub names: Vec<String>,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// `tls = …` of an upstream, with its files read and checked.
#[derive(Debug, Clone)]
pub struct ClientSpec {
    /// Certificates to trust instead of the system's.
    pub ca: Option<Arc<rustls::RootCertStore>>,
    /// Text of the CA file, to see whether it changed.
    pub ca_path: Option<PathBuf>,
    /// Sent as SNI and verified; default: the endpoint's host name, or its address.
    pub server_name: Option<String>,
    /// Shown to the endpoint when it asks.
    pub client_certificate: Option<Certificate>,
    /// `false` accepts any certificate.
    pub verify: bool,
    /// For the handshake alone; `None`: what is left of the connection's.
    pub handshake_timeout: Option<std::time::Duration>,
}

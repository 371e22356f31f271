//! Certificates made for a test, and TLS clients that trust them.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned};
use tempfile::TempDir;

use super::{Client, PATIENCE};

/// A self-signed certificate and its key.
pub struct Identity {
    pub cert: String,
    pub key: String,
}

impl Identity {
    pub fn of(names: &[&str]) -> Self {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let cert = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
        Self {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes `NAME.pem` and `NAME.key` into `dir`.
    pub fn write(&self, dir: &std::path::Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.pem")), &self.cert).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), &self.key).unwrap();
    }

    /// A folder with `cert.pem` and `key.pem`.
    pub fn dir(&self) -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cert.pem"), &self.cert).unwrap();
        std::fs::write(dir.path().join("key.pem"), &self.key).unwrap();
        dir
    }

    fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.cert.as_bytes()).unwrap()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }

    /// Serves with it.
    pub fn server(&self, alpn: &[&[u8]]) -> Arc<ServerConfig> {
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate()], self.private_key())
            .unwrap();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }

    /// Serves with it clients that show `client`.
    pub fn server_for(&self, client: &Identity) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(client.certificate()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![self.certificate()], self.private_key())
            .unwrap();
        Arc::new(config)
    }

    /// Trusts it.
    pub fn client(&self, alpn: &[&[u8]]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate()).unwrap();
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
        Arc::new(config)
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A client that asks for `name` and trusts `identity` alone.
#[track_caller]
pub fn tls_client(
    addr: SocketAddr,
    name: &str,
    identity: &Identity,
    alpn: &[&[u8]],
) -> Client<StreamOwned<ClientConnection, TcpStream>> {
    try_tls_client(addr, name, identity, alpn).unwrap()
}

/// As [`tls_client`], when the handshake may fail.
pub fn try_tls_client(
    addr: SocketAddr,
    name: &str,
    identity: &Identity,
    alpn: &[&[u8]],
) -> std::io::Result<Client<StreamOwned<ClientConnection, TcpStream>>> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut conn = ClientConnection::new(identity.client(alpn), name).map_err(std::io::Error::other)?;
    while conn.is_handshaking() {
        conn.complete_io(&mut stream)?;
    }
    Ok(Client::over(StreamOwned::new(conn, stream)))
}

/// Serves TLS over a connection of an origin.
pub fn serve_tls<'a>(
    config: &Arc<ServerConfig>,
    stream: &'a mut TcpStream,
) -> std::io::Result<impl Read + Write + use<'a>> {
    let conn = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
    let mut tls = StreamOwned::new(conn, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    Ok(tls)
}

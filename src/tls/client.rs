//! TLS towards endpoints: verified unless the configuration says otherwise in so many words.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::ClientSpec;
use crate::net::addr::EndpointAddr;

/// What endpoints of an upstream with `spec` are spoken to with. Fails when no trusted certificate is found.
pub fn config(spec: &ClientSpec, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let builder = if spec.verify {
        let roots = match &spec.ca {
            Some(roots) => roots.clone(),
            None => system_roots()?,
        };
        builder.with_root_certificates(roots)
    } else {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
    };
    let mut config = match &spec.client_certificate {
        None => builder.with_no_client_auth(),
        Some(c) => {
            let key = rustls::sign::SingleCertAndKey::from(c.certified.clone());
            builder.with_client_cert_resolver(Arc::new(key))
        }
    };
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    Ok(Arc::new(config))
}

/// The name an endpoint must prove, as sent in SNI: its host name or its address.
pub fn name_of(addr: &EndpointAddr) -> Result<ServerName<'static>, String> {
    match addr {
        EndpointAddr::Ip(addr) => Ok(ServerName::IpAddress(addr.ip().into())),
        EndpointAddr::Name { host, .. } => name(host.trim_end_matches('.')),
        EndpointAddr::Unix(_) => Err("a Unix socket has no name to verify: set `tls.server_name`".into()),
    }
}

/// A name as written in `tls.server_name`.
pub fn name(text: &str) -> Result<ServerName<'static>, String> {
    ServerName::try_from(text.to_owned()).map_err(|_| format!("`{text}` is not a name that a certificate can have"))
}

fn system_roots() -> Result<Arc<RootCertStore>, String> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(store)
    });
    if roots.is_empty() {
        return Err("this system has no trusted certificates: install `ca-certificates` or set `tls.ca`".into());
    }
    Ok(roots.clone())
}

/// `verify = false`: the connection is encrypted, but to whom is not known. Signatures are still checked.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

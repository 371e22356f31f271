//! TLS towards clients: the certificate by SNI, resumption, ALPN.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::{Ticketer, default_provider};
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use super::{Certificate, ServerSpec};

/// The keys of session tickets: made once per process, so that a reload does not end sessions.
#[derive(Debug, Clone)]
pub struct Tickets(Arc<dyn ProducesTickets>);

impl Tickets {
    /// New keys; they change by themselves every six hours.
    pub fn new() -> Result<Self, rustls::Error> {
        Ticketer::new().map(Self)
    }
}

/// What a listener with `spec` answers handshakes with; `certificates` are its own.
pub fn config(
    spec: &ServerSpec,
    certificates: &Arc<BySni>,
    alpn: &[&[u8]],
    tickets: &Tickets,
) -> Result<Arc<rustls::ServerConfig>, rustls::Error> {
    let versions: &[_] = if spec.only_tls13 { &[&TLS13] } else { &[&TLS13, &TLS12] };
    let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificates.clone());
    config.alpn_protocols = alpn.iter().map(|p| p.to_vec()).collect();
    config.ticketer = tickets.0.clone();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

/// Exact names over wildcards (one label, RFC 6125 section 6.4.3); else the first certificate.
#[derive(Debug)]
pub struct BySni {
    exact: HashMap<String, Arc<Certificate>>,
    /// `*.shop.example` as `shop.example`.
    wildcard: HashMap<String, Arc<Certificate>>,
    first: Option<Arc<Certificate>>,
}

impl BySni {
    pub fn new(spec: &ServerSpec) -> Self {
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        let certificates: Vec<_> = spec.certificates.iter().cloned().map(Arc::new).collect();
        for certificate in &certificates {
            for name in &certificate.names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut wildcard, parent),
                    None => (&mut exact, name.as_str()),
                };
                // Of two certificates for one name the first written counts.
                map.entry(name.to_owned()).or_insert_with(|| certificate.clone());
            }
        }
        let first = certificates.into_iter().next();
        Self { exact, wildcard, first }
    }

    /// The certificate for clients that ask for `name`, and whether it is for that name.
    pub fn find(&self, name: Option<&str>) -> Option<(&Arc<Certificate>, bool)> {
        // rustls hands over the name in lower case.
        let named = name.and_then(|name| {
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(name).or_else(|| self.wildcard.get(parent?))
        });
        named.map(|found| (found, true)).or(Some((self.first.as_ref()?, false)))
    }
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (found, _) = self.find(hello.server_name())?;
        Some(found.certified.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::load;

    #[test]
    fn exact_over_wildcard_over_first() {
        let dir = tempfile::tempdir().unwrap();
        let certificate = |file: &str, names: &[&str]| {
            let made =
                rcgen::generate_simple_self_signed(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
            let (cert, key) = (
                dir.path().join(format!("{file}.pem")),
                dir.path().join(format!("{file}.key")),
            );
            std::fs::write(&cert, made.cert.pem()).unwrap();
            std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
            load::certificate(&cert, &key).unwrap()
        };
        let spec = ServerSpec {
            certificates: vec![
                certificate("first", &["first.example"]),
                certificate("wild", &["*.shop.example"]),
                certificate("exact", &["a.shop.example"]),
            ],
            only_tls13: false,
        };
        let by_sni = Arc::new(BySni::new(&spec));
        let index = |name: Option<&str>| {
            let (found, _) = by_sni.find(name).unwrap();
            spec.certificates
                .iter()
                .position(|c| Arc::ptr_eq(&c.certified, &found.certified))
                .unwrap()
        };
        assert_eq!(index(Some("a.shop.example")), 2);
        assert_eq!(index(Some("b.shop.example")), 1);
        assert_eq!(index(Some("a.b.shop.example")), 0);
        assert_eq!(index(Some("shop.example")), 0);
        assert_eq!(index(None), 0);
        assert!(config(&spec, &by_sni, &[b"h2"], &Tickets::new().unwrap()).is_ok());
    }
}

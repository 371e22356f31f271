//! Reading certificates, keys and trust roots from PEM files (RFC 7468).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Certificate;

/// No PEM file larger than this is read: a bundle of every public root is 250 KiB.
const MAX_PEM: u64 = 4 << 20;

/// Reads the chain in `cert` (the leaf first) and its private key in `key` (PKCS#8, PKCS#1 or SEC1, not encrypted).
///
/// Fails, saying which file is at fault, when one cannot be read, holds no certificate or no usable key, or when the
/// two do not belong together. An expired certificate is no error: the caller looks at `not_after`.
pub fn certificate(cert: &Path, key: &Path) -> Result<Certificate, String> {
    let chain = chain(cert)?;
    let key_der = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| match error {
        PemError::NoItemsFound => format!(
            "no usable private key in `{}` (encrypted keys cannot be read)",
            key.display()
        ),
        error => format!("`{}` is not a valid PEM file: {error}", key.display()),
    })?;
    let signing_key = any_supported_type(&key_der)
        .map_err(|_| format!("the private key in `{}` is of no supported kind", key.display()))?;
    // `chain` is not empty.
    let (names, not_after) = describe(&chain[0]).map_err(|error| format!("`{}`: {error}", cert.display()))?;
    let certified = CertifiedKey::new(chain, signing_key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
        Err(rustls::Error::InconsistentKeys(_)) => {
            return Err(format!(
                "the private key in `{}` does not match the certificate in `{}`",
                key.display(),
                cert.display()
            ));
        }
        Err(error) => {
            return Err(format!(
                "`{}`: the first certificate is not usable: {error}",
                cert.display()
            ));
        }
    }
    Ok(Certificate {
        cert_path: cert.to_path_buf(),
        key_path: key.to_path_buf(),
        certified: Arc::new(certified),
        names,
        not_after,
    })
}

/// Reads the certificates in `ca` as the only ones to trust. Fails when there is none, or one cannot be a root.
pub fn roots(ca: &Path) -> Result<Arc<RootCertStore>, String> {
    let mut store = RootCertStore::empty();
    for (n, der) in chain(ca)?.into_iter().enumerate() {
        store
            .add(der)
            .map_err(|error| format!("certificate {} in `{}` cannot be trusted: {error}", n + 1, ca.display()))?;
    }
    Ok(Arc::new(store))
}

/// Every certificate in a file; at least one.
fn chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path)?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| format!("`{}` is not a valid PEM file: {error}", path.display()))?;
    match chain.is_empty() {
        true => Err(format!("no certificate in `{}`", path.display())),
        false => Ok(chain),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_PEM + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    match bytes.len() as u64 > MAX_PEM {
        true => Err(format!("`{}` is larger than 4 MiB", path.display())),
        false => Ok(bytes),
    }
}

/// The DNS names a certificate is for (subjectAltName alone, RFC 9525 section 2) and when it ends.
fn describe(der: &CertificateDer<'_>) -> Result<(Vec<String>, i64), String> {
    let (_, parsed) =
        X509Certificate::from_der(der).map_err(|error| format!("the first certificate is not usable: {error}"))?;
    let alternative = parsed
        .subject_alternative_name()
        .map_err(|error| format!("the certificate's names cannot be read: {error}"))?;
    let names = alternative
        .iter()
        .flat_map(|extension| &extension.value.general_names)
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    Ok((names, parsed.validity().not_after.timestamp()))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate for `names` and its key, written to `dir`.
    fn write(dir: &Path, stem: &str, names: &[&str]) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>()).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        let (cert_path, key_path) = (dir.join(format!("{stem}.pem")), dir.join(format!("{stem}.key")));
        std::fs::write(&cert_path, params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(&key_path, key.serialize_pem()).unwrap();
        (cert_path, key_path)
    }

    #[test]
    fn reads_names_and_end() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = write(dir.path(), "a", &["Shop.Example", "*.shop.example", "10.0.0.1"]);
        let read = certificate(&cert, &key).unwrap();
        assert_eq!(read.names, ["shop.example", "*.shop.example"]);
        assert_eq!(read.not_after, 1_609_459_200);
        assert_eq!(roots(&cert).unwrap().len(), 1);
    }

    #[test]
    fn says_what_is_wrong_and_with_which_file() {
        let dir = tempfile::tempdir().unwrap();
        let (cert, key) = write(dir.path(), "a", &["a.example"]);
        let (_, other) = write(dir.path(), "b", &["b.example"]);
        let none = dir.path().join("none.pem");
        let text = dir.path().join("text.pem");
        let broken = dir.path().join("broken.pem");
        std::fs::write(&text, "hello\n").unwrap();
        std::fs::write(
            &broken,
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        )
        .unwrap();
        for (cert, key, parts) in [
            (&cert, &other, ["does not match", "b.key"]),
            (&none, &key, ["cannot read", "none.pem"]),
            (&cert, &none, ["cannot read", "none.pem"]),
            (&text, &key, ["no certificate", "text.pem"]),
            (&cert, &cert, ["no usable private key", "a.pem"]),
            (&broken, &key, ["not usable", "broken.pem"]),
        ] {
            let error = certificate(cert, key).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        }
        assert!(roots(&text).unwrap_err().contains("no certificate"));
        assert!(roots(&broken).unwrap_err().contains("cannot be trusted"));
    }
}

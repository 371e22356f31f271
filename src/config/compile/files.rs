//! The certificates a configuration names: read, and their dates looked at.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::RootCertStore;

use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::schema::tls::CertificateFiles;
use crate::tls::{Certificate, load};

const DAY: i64 = 86_400;
/// Renewal by ACME is due 30 days before the end; when two weeks are left, it has failed for a while.
const SOON: i64 = 14 * DAY;

pub fn certificate(cx: &Context<'_>, files: &CertificateFiles) -> Option<Certificate> {
    let (cert, key) = (&files.cert, &files.key);
    match load::certificate(&cert.value, &key.value) {
        Ok(certificate) => {
            check_end(cx, cert, certificate.not_after);
            Some(certificate)
        }
        Err(message) => {
            let is_about_key = message.contains(&format!("`{}`", key.value.display())) && cert.value != key.value;
            let span = match is_about_key {
                true => key.span,
                false => cert.span,
            };
            cx.push(Diagnostic::error(span, message));
            None
        }
    }
}

pub fn roots(cx: &Context<'_>, path: &At<PathBuf>) -> Option<Arc<RootCertStore>> {
    load::roots(&path.value)
        .map_err(|message| cx.push(Diagnostic::error(path.span, message)))
        .ok()
}

fn check_end(cx: &Context<'_>, cert: &At<PathBuf>, not_after: i64) {
    let left = not_after.saturating_sub(cx.env.now);
    let days = |seconds: i64| match seconds / DAY {
        0 => "less than a day".to_owned(),
        1 => "1 day".to_owned(),
        n => format!("{n} days"),
    };
    let path = cert.value.display();
    let message = match left {
        ..0 => format!("the certificate in `{path}` expired {} ago", days(-left)),
        0..SOON => format!("the certificate in `{path}` expires in {}", days(left)),
        _ => return,
    };
    cx.push(Diagnostic::warning(cert.span, message));
}

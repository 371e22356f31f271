//! `tls = …` of listeners and upstreams. The files are read when the plan is compiled.

use std::path::PathBuf;
use std::time::Duration;

use rustls::pki_types::ServerName;

use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::reader::{Fields, Shape, mismatch, text};
use crate::config::value::{Node, Value};

/// A listener's.
#[derive(Debug)]
pub struct ServerTls {
    pub certificates: Vec<CertificateFiles>,
    pub only_tls13: bool,
}

/// An upstream's.
#[derive(Debug)]
pub struct ClientTls {
    pub ca: Option<At<PathBuf>>,
    pub server_name: Option<String>,
    pub verify: At<bool>,
    pub certificate: Option<CertificateFiles>,
    pub handshake_timeout: Option<At<Duration>>,
}

#[derive(Debug)]
pub struct CertificateFiles {
    pub cert: At<PathBuf>,
    pub key: At<PathBuf>,
}

pub const LISTENER_TLS: Shape = Shape {
    what: "a listener's `tls`",
    keys: &["certificates", "min_version"],
    later: &[],
};
pub const UPSTREAM_TLS: Shape = Shape {
    what: "an upstream's `tls`",
    keys: &["ca", "server_name", "verify", "certificate", "handshake_timeout"],
    later: &[],
};
pub const CERTIFICATE: Shape = Shape {
    what: "a certificate",
    keys: &["cert", "key"],
    later: &[],
};

pub fn server(cx: &Context<'_>, node: &Node) -> Option<ServerTls> {
    let fields = Fields::of(cx, node, &LISTENER_TLS)?;
    fields.require("certificates")?;
    let before = cx.errors();
    let what = "a list of certificates, each `{ cert = \"…\", key = \"…\" }`";
    let list = fields.list("certificates", what, |node| certificate(cx, node))?;
    if list.value.is_empty() && cx.errors() == before {
        cx.push(Diagnostic::error(
            list.span,
            "a listener with `tls` needs a certificate",
        ));
    }
    let version = fields.word("min_version", &[("1.2", false), ("1.3", true)], &[]);
    Some(ServerTls {
        certificates: list.value,
        only_tls13: version.is_some_and(|found| found.value),
    })
}

/// `true`, `false` or a table.
pub fn client(cx: &Context<'_>, node: &Node) -> Option<ClientTls> {
    let fields = match &node.value {
        Value::Boolean(false) => return None,
        Value::Boolean(true) => return Some(defaults(node.span)),
        Value::Table(table) => Fields::new(cx, table, node.span, &UPSTREAM_TLS),
        _ => {
            return mismatch(
                cx,
                node,
                "`true` or a table",
                "the keys of the table are `ca`, `server_name`, …",
            );
        }
    };
    let expected = "expected a host name or an IP address";
    let server_name = fields.parsed("server_name", expected, |text| match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_ascii_lowercase()),
        Err(_) => Err(format!("`{text}` is neither a host name nor an IP address")),
    });
    let verify = fields.get("verify").map_or(node.span, |node| node.span);
    let verify = At {
        value: fields.flag("verify").unwrap_or(true),
        span: verify,
    };
    if !verify.value {
        fields.refuse(&["ca"], "has no use while `verify = false` accepts every certificate");
    }
    let handshake_timeout = fields
        .optional_duration("handshake_timeout", Duration::from_millis(1))
        .zip(fields.get("handshake_timeout"))
        .map(|(value, node)| At { value, span: node.span });
    Some(ClientTls {
        ca: fields.get("ca").and_then(|node| path(cx, node)),
        server_name: server_name.map(|found| found.value),
        verify,
        certificate: fields.get("certificate").and_then(|node| certificate(cx, node)),
        handshake_timeout,
    })
}

/// `true`: everything as by default.
pub fn defaults(span: Span) -> ClientTls {
    ClientTls {
        ca: None,
        server_name: None,
        verify: At { value: true, span },
        certificate: None,
        handshake_timeout: None,
    }
}

fn certificate(cx: &Context<'_>, node: &Node) -> Option<CertificateFiles> {
    let fields = Fields::of(cx, node, &CERTIFICATE)?;
    let (cert, key) = (fields.require("cert"), fields.require("key"));
    Some(CertificateFiles {
        cert: path(cx, cert?)?,
        key: path(cx, key?)?,
    })
}

fn path(cx: &Context<'_>, node: &Node) -> Option<At<PathBuf>> {
    let found = text(cx, node)?;
    if found.value.is_empty() {
        cx.push(Diagnostic::error(found.span, "a file's name cannot be empty"));
        return None;
    }
    Some(found.with(cx.resolve(found.value, found.span)))
}

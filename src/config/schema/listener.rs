//! `[listeners.NAME]`.

use std::time::Duration;

use http::HeaderName;

use super::name::{bind, check_name, host_pattern, networks, reference};
use super::tls::{self, ServerTls};
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape};
use crate::config::value::Node;
use crate::config::{defaults, plan};
use crate::h1::desync::Mode;
use crate::net::addr::BindAddr;
use crate::route::HostPattern;

#[derive(Debug)]
pub struct Listener {
    pub name: At<String>,
    pub bind: Vec<At<BindAddr>>,
    pub tls: Option<ServerTls>,
    pub max_connections: Option<usize>,
    pub max_connections_per_source: Option<usize>,
    /// `None`: the protocol was not readable.
    pub serve: Option<Serve>,
}

#[derive(Debug)]
pub enum Serve {
    Http(plan::Http),
    Tcp(Tcp),
}

#[derive(Debug)]
pub struct Tcp {
    pub upstream: Option<At<String>>,
    pub sni: Vec<(At<HostPattern>, At<String>)>,
    pub idle_timeout: Duration,
    pub half_close_timeout: Duration,
}

pub const LISTENER: Shape = Shape {
    what: "a listener",
    keys: &[
        "bind",
        "protocol",
        "tls",
        "max_connections",
        "max_connections_per_source",
        "trusted_proxies",
        "desync",
        "max_head",
        "max_target",
        "max_headers",
        "max_body",
        "header_timeout",
        "idle_timeout",
        "body_timeout",
        "write_timeout",
        "min_rate",
        "tunnel_timeout",
        "max_streams",
        "max_requests",
        "deadline_header",
        "upstream",
        "sni",
        "half_close_timeout",
    ],
    later: &[],
};
const ONLY_HTTP: [&str; 14] = [
    "trusted_proxies",
    "desync",
    "max_head",
    "max_target",
    "max_headers",
    "max_body",
    "header_timeout",
    "body_timeout",
    "write_timeout",
    "min_rate",
    "tunnel_timeout",
    "max_streams",
    "max_requests",
    "deadline_header",
];
const ONLY_TCP: [&str; 3] = ["upstream", "sni", "half_close_timeout"];

/// A time-out shorter than this would end everything.
const LEAST: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, Copy)]
enum Protocol {
    Http,
    Tcp,
}

pub fn read(cx: &Context<'_>, name: &At<String>, node: &Node) -> Option<Listener> {
    check_name(cx, name);
    let fields = Fields::of(cx, node, &LISTENER)?;
    let protocol = match fields.get("protocol") {
        None => Some(Protocol::Http),
        Some(_) => {
            let words = [("http", Protocol::Http), ("tcp", Protocol::Tcp)];
            fields.word("protocol", &words, &["udp"]).map(|found| found.value)
        }
    };
    let serve = protocol.map(|protocol| match protocol {
        Protocol::Http => Serve::Http(http(&fields)),
        Protocol::Tcp => Serve::Tcp(tcp(&fields)),
    });
    Some(Listener {
        name: name.clone(),
        bind: addresses(&fields),
        tls: fields.get("tls").and_then(|node| tls::server(cx, node)),
        max_connections: fields.number("max_connections", 1..=10_000_000),
        max_connections_per_source: fields.number("max_connections_per_source", 1..=10_000_000),
        serve,
    })
}

fn addresses(fields: &Fields<'_>) -> Vec<At<BindAddr>> {
    let Some(node) = fields.require("bind") else {
        return Vec::new();
    };
    let before = fields.cx.errors();
    let list = fields
        .one_or_many("bind", |node| bind(fields.cx, node))
        .map(|found| found.value)
        .unwrap_or_default();
    if list.is_empty() && fields.cx.errors() == before {
        fields
            .cx
            .push(Diagnostic::error(node.span, "a listener needs an address to bind"));
    }
    list
}

fn http(fields: &Fields<'_>) -> plan::Http {
    fields.refuse(
        &ONLY_TCP,
        "is for listeners with `protocol = \"tcp\"`; requests go where `[[routes]]` say",
    );
    let max_head = fields
        .size("max_head", 1 << 10..=1 << 20, "1KiB to 1MiB")
        .map_or(defaults::MAX_HEAD, to_usize);
    let max_target = fields.size("max_target", 64..=1 << 20, "64B to 1MiB").map(to_usize);
    if let (Some(target), Some(node)) = (max_target, fields.get("max_target"))
        && target > max_head
    {
        let message = "`max_target` is larger than `max_head`, of which the target is a part";
        fields
            .cx
            .push(Diagnostic::error(node.span, message).label(format!("expected at most {max_head}B")));
    }
    let modes = [Mode::Strict, Mode::Defensive, Mode::Monitor].map(|mode| (mode.label(), mode));
    plan::Http {
        desync: fields
            .word("desync", &modes, &[])
            .map_or(defaults::DESYNC, |found| found.value),
        trusted_proxies: networks(fields, "trusted_proxies"),
        max_head,
        max_target: max_target.unwrap_or(defaults::MAX_TARGET.min(max_head)),
        max_headers: fields.number("max_headers", 1..=1000).unwrap_or(defaults::MAX_HEADERS),
        max_body: fields.size("max_body", 0..=u64::MAX, ""),
        header_timeout: fields.duration("header_timeout", LEAST, defaults::HEADER_TIMEOUT),
        idle_timeout: fields.duration("idle_timeout", LEAST, defaults::IDLE_TIMEOUT),
        body_timeout: fields.duration("body_timeout", LEAST, defaults::BODY_TIMEOUT),
        write_timeout: fields.duration("write_timeout", LEAST, defaults::WRITE_TIMEOUT),
        min_rate: fields
            .size("min_rate", 0..=1 << 30, "0B to 1GiB")
            .unwrap_or(defaults::MIN_RATE),
        tunnel_timeout: fields.duration("tunnel_timeout", LEAST, defaults::TUNNEL_TIMEOUT),
        max_streams: fields
            .number("max_streams", 1..=100_000)
            .unwrap_or(defaults::MAX_STREAMS),
        max_requests: fields.number("max_requests", 1..=1_000_000_000_000),
        deadline_header: deadline_header(fields),
    }
}

fn deadline_header(fields: &Fields<'_>) -> Option<HeaderName> {
    let expected = "expected the name of a field such as \"x-request-timeout\"";
    let read = |text: &str| match text.to_ascii_lowercase().as_str() {
        "grpc-timeout" => Err("`grpc-timeout` is always heeded".to_owned()),
        "connection" | "content-length" | "cookie" | "expect" | "host" | "te" | "transfer-encoding" | "upgrade" => {
            Err(format!("`{text}` says something else"))
        }
        name => HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{text}` is not the name of a field")),
    };
    fields
        .parsed("deadline_header", expected, read)
        .map(|found| found.value)
}

fn tcp(fields: &Fields<'_>) -> Tcp {
    fields.refuse(&ONLY_HTTP, "is for listeners with `protocol = \"http\"`");
    let cx = fields.cx;
    let mut sni: Vec<(At<HostPattern>, At<String>)> = Vec::new();
    if let Some(entries) = fields.entries("sni", "a table from host names to upstreams") {
        if entries.value.is_empty() {
            cx.push(Diagnostic::error(entries.span, "`sni` names no host"));
        }
        if let Some(tls) = fields.present(&["tls"]).first() {
            let message = "`sni` routes TLS that is left untouched, `tls` ends it here";
            cx.push(Diagnostic::error(entries.span, message).related(tls.span, "one of the two must go"));
        }
        for (name, node) in entries.value {
            let upstream = reference(cx, node);
            match host_pattern(&name.value) {
                Err(message) => cx.push(Diagnostic::error(name.span, message).label("expected a host name")),
                Ok(pattern) => match sni.iter().find(|(other, _)| other.value == pattern) {
                    Some((other, _)) => cx.push(
                        Diagnostic::error(name.span, format!("`{}` stands in `sni` twice", name.value))
                            .label("again here")
                            .related(other.span, "first here"),
                    ),
                    None => sni.extend(upstream.map(|upstream| (name.with(pattern), upstream))),
                },
            }
        }
    }
    if fields.get("sni").is_none() && fields.get("upstream").is_none() {
        cx.push(
            Diagnostic::error(fields.span, "this tcp listener serves nothing")
                .label("it needs `upstream`, or `sni` with a table from host names to upstreams"),
        );
    }
    Tcp {
        upstream: fields.get("upstream").and_then(|node| reference(cx, node)),
        sni,
        idle_timeout: fields.duration("idle_timeout", LEAST, defaults::TCP_IDLE_TIMEOUT),
        half_close_timeout: fields.duration("half_close_timeout", LEAST, defaults::HALF_CLOSE_TIMEOUT),
    }
}

/// Sizes that passed a range check fit.
fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

//! `[upstreams.NAME.health]`.

use std::time::Duration;

use http::Method;

use super::name::header_fields;
use crate::config::defaults;
use crate::config::diagnostic::{Context, Diagnostic};
use crate::config::reader::{Fields, Shape, listed, mismatch};
use crate::config::value::{Node, Value};
use crate::health::{HttpProbe, Probe, Spec};

pub const HEALTH: Shape = Shape {
    what: "`health`",
    keys: &[
        "http",
        "tcp",
        "method",
        "host",
        "headers",
        "expect_status",
        "expect_body",
        "interval",
        "timeout",
        "rise",
        "fall",
        "jitter",
        "port",
    ],
    later: &["grpc", "redis", "postgres"],
};
const ONLY_HTTP: [&str; 5] = ["method", "host", "headers", "expect_status", "expect_body"];

pub fn read(cx: &Context<'_>, node: &Node) -> Option<Spec> {
    let fields = Fields::of(cx, node, &HEALTH)?;
    let least = Duration::from_millis(10);
    let interval = fields.duration("interval", least, defaults::HEALTH_INTERVAL);
    let timeout = fields.optional_duration("timeout", Duration::from_millis(1));
    if let (Some(timeout), Some(node)) = (timeout, fields.get("timeout"))
        && timeout > interval
    {
        let message = "the time-out of a probe is longer than the interval between probes";
        cx.push(Diagnostic::error(node.span, message).label(format!("expected at most {interval:?}")));
    }
    let probe = probe(&fields);
    Some(Spec {
        probe: probe?,
        interval,
        jitter: fields.fraction("jitter", 0.0..=1.0).unwrap_or(defaults::HEALTH_JITTER),
        timeout: timeout.unwrap_or(defaults::HEALTH_TIMEOUT.min(interval)),
        rise: fields.number("rise", 1..=1000).unwrap_or(defaults::HEALTH_RISE),
        fall: fields.number("fall", 1..=1000).unwrap_or(defaults::HEALTH_FALL),
        port: fields.number("port", 1..=u16::MAX),
    })
}

fn probe(fields: &Fields<'_>) -> Option<Probe> {
    let cx = fields.cx;
    match fields.present(&["http", "tcp", "grpc", "redis", "postgres"]).as_slice() {
        [] => {
            let error = Diagnostic::error(fields.span, "this health check asks nothing");
            cx.push(error.label("expected `http = \"/path\"` or `tcp = true`"));
            None
        }
        [kind] if kind.value == "http" => http(fields).map(Probe::Http),
        [kind] if kind.value == "tcp" => {
            fields.refuse(&ONLY_HTTP, "is for health checks with `http`");
            match fields.flag("tcp") {
                Some(false) => {
                    let span = fields.get("tcp").map_or(fields.span, |node| node.span);
                    cx.push(Diagnostic::error(
                        span,
                        "`tcp` cannot be false: leave `health` out for no check",
                    ));
                    None
                }
                flag => flag.map(|_| Probe::Tcp),
            }
        }
        // Reported as not in this version.
        [_] => None,
        [first, second, ..] => {
            let message = format!("{} exclude each other", listed([&first.value, &second.value], "and"));
            cx.push(Diagnostic::error(second.span, message).related(first.span, "already said here"));
            None
        }
    }
}

fn http(fields: &Fields<'_>) -> Option<HttpProbe> {
    let path = fields.parsed("http", "expected a path such as \"/healthz\"", |text| match text {
        _ if !text.starts_with('/') => Err(format!("`{text}` does not start with `/`")),
        _ if text.bytes().any(|b| !b.is_ascii_graphic()) => {
            Err(format!("`{text}`: spaces and the like stand in paths percent-encoded"))
        }
        _ => Ok(text.to_owned()),
    });
    let method = fields.parsed(
        "method",
        "expected a method such as \"GET\"",
        |text| match Method::from_bytes(text.as_bytes()) {
            Ok(method) if text == text.to_ascii_uppercase() && method != Method::CONNECT => Ok(method),
            _ => Err(format!("`{text}` is not a method a health check can use")),
        },
    );
    let host = fields.parsed("host", "expected the value of a Host field", |text| match text
        .parse::<http::uri::Authority>()
    {
        Ok(authority) if !text.contains('@') && !authority.host().is_empty() => Ok(text.to_owned()),
        _ => Err(format!("`{text}` is not a host")),
    });
    Some(HttpProbe {
        path: path?.value,
        host: host.map(|found| found.value),
        method: method.map_or(Method::GET, |found| found.value),
        headers: header_fields(fields, "headers"),
        expect_status: statuses(fields),
        expect_body: expect_body(fields),
    })
}

fn expect_body(fields: &Fields<'_>) -> Option<String> {
    fields
        .parsed("expect_body", "expected a part of the body", |text| match text {
            "" => Err("every body holds an empty text: leave `expect_body` out".into()),
            _ => Ok(text.to_owned()),
        })
        .map(|found| found.value)
}

/// `200`, `"200-299"` or a list of such.
fn statuses(fields: &Fields<'_>) -> Vec<(u16, u16)> {
    let cx = fields.cx;
    let expected = "expected a status such as 200, a range such as \"200-299\", or a list of both";
    let before = cx.errors();
    let list = fields.one_or_many("expect_status", |node| {
        let range = match &node.value {
            Value::Integer(number) => range(&number.to_string()),
            Value::String(text) => range(text),
            _ => return mismatch(cx, node, "a status or a range of them", expected),
        };
        if let Err(message) = &range {
            cx.push(Diagnostic::error(node.span, message.as_str()).label(expected));
        }
        range.ok()
    });
    match list {
        None => vec![defaults::HEALTH_STATUS],
        Some(list) => {
            if list.value.is_empty() && cx.errors() == before {
                cx.push(Diagnostic::error(
                    list.span,
                    "`expect_status` is empty: no answer would pass",
                ));
            }
            list.value
        }
    }
}

fn range(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let status = |text: &str| match text.parse() {
        Ok(number @ 100..=599) if text.len() == 3 => Ok(number),
        _ => Err(format!("`{text}` is not a status: they go from 100 to 599")),
    };
    match (status(first)?, status(last)?) {
        (first, last) if first <= last => Ok((first, last)),
        _ => Err(format!("`{text}` ends before it begins")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ranges_of_statuses() {
        assert_eq!(range("200"), Ok((200, 200)));
        assert_eq!(range("200-299"), Ok((200, 299)));
        for text in ["", "2xx", "200-", "-200", "299-200", "99", "600", "+200", "200-299-300"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}

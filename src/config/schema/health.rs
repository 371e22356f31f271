//! `[upstreams.NAME.health]`.

use std::time::Duration;

use http::Method;

use super::name::header_fields;
use crate::base::secret::Secret;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape, listed, mismatch, text};
use crate::config::value::{Node, Value};
use crate::health::agent::{self, Place};
use crate::health::expect::Expect;
use crate::health::redis::Login;
use crate::health::{HttpProbe, Probe, Spec, postgres};
use crate::tls::client;

pub const HEALTH: Shape = Shape {
    what: "`health`",
    keys: &[
        "http",
        "tcp",
        "grpc",
        "tls",
        "redis",
        "postgres",
        "mysql",
        "exec",
        "agent",
        "agent_send",
        "method",
        "host",
        "headers",
        "expect_status",
        "expect_body",
        "send",
        "expect",
        "user",
        "password",
        "interval",
        "interval_down",
        "interval_changing",
        "timeout",
        "rise",
        "fall",
        "jitter",
        "port",
    ],
    later: &[],
};
const KINDS: [&str; 8] = ["http", "tcp", "grpc", "tls", "redis", "postgres", "mysql", "exec"];
/// Keys that belong to some kinds alone.
const ONLY: [(&[&str], &[&str]); 4] = [
    (
        &["http"],
        &["method", "host", "headers", "expect_status", "expect_body"],
    ),
    (&["tcp"], &["send", "expect"]),
    (&["redis", "postgres", "mysql"], &["user"]),
    (&["redis"], &["password"]),
];

/// The settings, with the place of what is asked.
pub fn read(cx: &Context<'_>, node: &Node) -> Option<At<Spec>> {
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
    let agent = agent(&fields);
    let spec = |probe: Probe| Spec {
        probe,
        agent: agent.clone(),
        interval,
        interval_down: fields.duration("interval_down", least, interval),
        interval_changing: fields.duration(
            "interval_changing",
            least,
            interval.min(defaults::HEALTH_INTERVAL_CHANGING),
        ),
        jitter: fields.fraction("jitter", 0.0..=1.0).unwrap_or(defaults::HEALTH_JITTER),
        timeout: timeout.unwrap_or(defaults::HEALTH_TIMEOUT.min(interval)),
        rise: fields.number("rise", 1..=1000).unwrap_or(defaults::HEALTH_RISE),
        fall: fields.number("fall", 1..=1000).unwrap_or(defaults::HEALTH_FALL),
        port: fields.number("port", 1..=u16::MAX),
    };
    probe.map(|found| At {
        span: found.span,
        value: spec(found.value),
    })
}

fn probe(fields: &Fields<'_>) -> Option<At<Probe>> {
    let cx = fields.cx;
    let kind = match fields.present(&KINDS).as_slice() {
        [] => {
            let error = Diagnostic::error(fields.span, "this health check asks nothing");
            cx.push(
                error
                    .label("expected `http = \"/path\"` or `tcp = true`")
                    .help(format!("what can be asked: {}", listed(KINDS, "or"))),
            );
            return None;
        }
        [kind] => *kind,
        [first, second, ..] => {
            let message = format!("{} exclude each other", listed([&first.value, &second.value], "and"));
            cx.push(Diagnostic::error(second.span, message).related(first.span, "already said here"));
            return None;
        }
    };
    for (kinds, keys) in ONLY {
        if !kinds.contains(&kind.value.as_str()) {
            let reason = format!("is for health checks with {}", listed(kinds, "or"));
            fields.refuse(keys, &reason);
        }
    }
    let probe = match kind.value.as_str() {
        "http" => Probe::Http(http(fields)?),
        "tcp" => tcp(fields)?,
        "grpc" => Probe::Grpc {
            service: flag_or_text(fields, "grpc", "the name of a service")?.unwrap_or_default(),
        },
        "tls" => Probe::Tls {
            server_name: match flag_or_text(fields, "tls", "the name to ask for")? {
                None => None,
                Some(_) => {
                    let name = fields.parsed("tls", "expected the name to ask for", client::name)?;
                    Some(name.value)
                }
            },
        },
        "redis" => redis(fields)?,
        "postgres" => {
            is_on(fields, "postgres")?;
            Probe::Postgres {
                user: user(fields).unwrap_or_else(|| postgres::USER.to_owned()),
            }
        }
        "mysql" => {
            is_on(fields, "mysql")?;
            Probe::Mysql { user: user(fields) }
        }
        _ => Probe::Exec(command(fields)?),
    };
    Some(kind.with(probe))
}

/// A port of each endpoint, or the address of an agent for all.
fn agent(fields: &Fields<'_>) -> Option<agent::Spec> {
    let send = fields.text("agent_send").map(|found| found.value.to_owned());
    let Some(node) = fields.get("agent") else {
        fields.refuse(&["agent_send"], "is for an `agent`, and there is none");
        return None;
    };
    let to = match &node.value {
        Value::Integer(_) => Place::Port(fields.number("agent", 1..=u16::MAX)?),
        _ => {
            let expected = "expected a port of the endpoints, or an address such as \"10.0.0.9:7777\"";
            let addr = fields.parsed("agent", expected, |text| {
                text.parse()
                    .map_err(|_| format!("`{text}` is not an address with a port"))
            });
            Place::Addr(addr?.value)
        }
    };
    Some(agent::Spec { to, send })
}

/// Whether the flag `key` is `true`, as it must be.
fn is_on(fields: &Fields<'_>, key: &str) -> Option<()> {
    match fields.flag(key)? {
        true => Some(()),
        false => {
            let span = fields.get(key).map_or(fields.span, |node| node.span);
            let message = format!("`{key}` cannot be false: leave `health` out for no check");
            fields.cx.push(Diagnostic::error(span, message));
            None
        }
    }
}

/// `true`, or a text that is not empty.
fn flag_or_text(fields: &Fields<'_>, key: &str, what: &str) -> Option<Option<String>> {
    match &fields.get(key)?.value {
        Value::Boolean(_) => is_on(fields, key).map(|()| None),
        _ => {
            let expected = format!("expected `true` or {what}");
            let text = fields.parsed(key, &expected, |text| match text.trim() {
                "" => Err(format!("`{key}` is empty")),
                _ => Ok(text.to_owned()),
            });
            text.map(|found| Some(found.value))
        }
    }
}

fn tcp(fields: &Fields<'_>) -> Option<Probe> {
    is_on(fields, "tcp")?;
    let text = |key| {
        let expected = "expected a text such as \"PING\\r\\n\"";
        let found = fields.parsed(key, expected, |text| match text {
            "" => Err(format!("`{key}` is empty: leave it out")),
            _ => Ok(text.to_owned()),
        });
        found.map(|found| found.value)
    };
    let (send, expect) = (text("send"), text("expect"));
    if let (Some(node), None) = (fields.get("send"), fields.get("expect")) {
        let message = "`send` without `expect` asks nothing: every endpoint that takes connections takes bytes";
        let error = Diagnostic::error(node.span, message);
        fields
            .cx
            .push(error.help("say in `expect` what must stand in the answer"));
    }
    Some(match (&send, &expect) {
        (None, None) => Probe::Tcp,
        _ => Probe::Expect(Expect { send, expect }),
    })
}

fn redis(fields: &Fields<'_>) -> Option<Probe> {
    is_on(fields, "redis")?;
    let password = fields.text("password").map(|found| Secret::new(found.value));
    if let (Some(node), None) = (fields.get("user"), fields.get("password")) {
        let error = Diagnostic::error(node.span, "Redis takes a `user` only with a `password`");
        fields.cx.push(error.label("a password is missing"));
    }
    Some(Probe::Redis(Login {
        user: user(fields),
        password,
    }))
}

fn user(fields: &Fields<'_>) -> Option<String> {
    let user = fields.parsed("user", "expected the name of a user", |text| {
        match text.is_empty() || text.contains('\0') || text.len() > 128 {
            true => Err("a user has a name of 1 to 128 bytes".into()),
            false => Ok(text.to_owned()),
        }
    });
    user.map(|found| found.value)
}

/// A program and its arguments, run without a shell.
fn command(fields: &Fields<'_>) -> Option<Vec<String>> {
    let cx = fields.cx;
    let what = "a program and its arguments, such as [\"/usr/local/bin/check\", \"--fast\"]";
    let before = cx.errors();
    let list = fields.list("exec", what, |node| text(cx, node).map(|found| found.value.to_owned()))?;
    match list.value.first() {
        _ if cx.errors() > before => return None,
        Some(program) if program.starts_with('/') => {}
        first => {
            let message = match first {
                Some(program) => format!("`{program}` is not an absolute path"),
                None => "no program is named".into(),
            };
            cx.push(Diagnostic::error(list.span, message).label(format!("expected {what}")));
            return None;
        }
    }
    Some(list.value)
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

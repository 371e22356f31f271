//! `[server]`, `[admin]`, `[log]` and `[access_log]`.

use std::num::NonZero;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use super::name::{bind, zone_name};
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, nearest};
use crate::config::plan::{AccessLog, Admin, Log, LogFormat, Server};
use crate::config::reader::{Fields, Shape};
use crate::config::value::Node;

pub const SERVER: Shape = Shape {
    what: "`[server]`",
    keys: &["workers", "shutdown_grace", "zone", "allow_exec"],
    later: &[],
};
pub const ADMIN: Shape = Shape {
    what: "`[admin]`",
    keys: &["bind"],
    later: &[],
};
pub const LOG: Shape = Shape {
    what: "`[log]`",
    keys: &["level", "format"],
    later: &[],
};
pub const ACCESS_LOG: Shape = Shape {
    what: "`[access_log]`",
    keys: &["format", "path"],
    later: &[],
};

const FORMATS: [(&str, LogFormat); 2] = [("text", LogFormat::Text), ("json", LogFormat::Json)];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub fn server(cx: &Context<'_>, node: Option<&Node>) -> Server {
    let fields = node.and_then(|node| Fields::of(cx, node, &SERVER));
    let cpus = || std::thread::available_parallelism().map_or(1, NonZero::get);
    Server {
        workers: fields
            .and_then(|fields| fields.number("workers", 1..=1024))
            .unwrap_or_else(cpus),
        shutdown_grace: fields.map_or(defaults::SHUTDOWN_GRACE, |fields| {
            fields.duration("shutdown_grace", Duration::ZERO, defaults::SHUTDOWN_GRACE)
        }),
        zone: fields
            .and_then(|fields| fields.text("zone"))
            .and_then(|zone| zone_name(zone.value)),
        allow_exec: fields.and_then(|fields| fields.flag("allow_exec")).unwrap_or(false),
    }
}

pub fn admin(cx: &Context<'_>, node: &Node) -> Option<At<Admin>> {
    let fields = Fields::of(cx, node, &ADMIN)?;
    let address = bind(cx, fields.require("bind")?)?;
    Some(At {
        span: address.span,
        value: Admin { bind: address.value },
    })
}

pub fn log(cx: &Context<'_>, node: Option<&Node>) -> Log {
    let fields = node.and_then(|node| Fields::of(cx, node, &LOG));
    let expected = "expected a level or a filter such as \"info\" or \"warn,evenkeel=debug\"";
    let level = fields.and_then(|fields| fields.parsed("level", expected, level));
    let format = fields.and_then(|fields| fields.word("format", &FORMATS, &[]));
    Log {
        level: level.map_or_else(|| defaults::LOG_LEVEL.into(), |found| found.value),
        format: format.map_or(LogFormat::Text, |found| found.value),
    }
}

pub fn access_log(cx: &Context<'_>, node: Option<&Node>) -> AccessLog {
    let Some(fields) = node.and_then(|node| Fields::of(cx, node, &ACCESS_LOG)) else {
        return AccessLog {
            format: None,
            path: None,
        };
    };
    let formats = [
        ("off", None),
        ("text", Some(LogFormat::Text)),
        ("json", Some(LogFormat::Json)),
    ];
    let format = fields.word("format", &formats, &[]);
    AccessLog {
        format: format.map_or(Some(LogFormat::Text), |found| found.value),
        path: fields.text("path").map(|found| cx.resolve(found.value, found.span)),
    }
}

/// A bare word must be a level: as a filter it would be the name of a module, and nothing would be logged.
pub fn level(text: &str) -> Result<String, String> {
    let is_word = !text.contains([',', '=', '[', ':']);
    if is_word && !LEVELS.contains(&text.to_ascii_lowercase().as_str()) {
        let hint = nearest(text, LEVELS)
            .map(|level| format!(": did you mean `{level}`?"))
            .unwrap_or_default();
        return Err(format!("there is no log level `{text}`{hint}"));
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.into()),
        Err(error) => Err(format!("`{text}` is not a log filter: {error}")),
    }
}

//! What an upstream may have under way: `max_active`, `max_active_per_endpoint`, `max_connections_per_endpoint`,
//! `adaptive_limit`, `queue`.

use std::time::Duration;

use crate::config::defaults;
use crate::config::diagnostic::Diagnostic;
use crate::config::plan::Limits;
use crate::config::reader::{Fields, Shape, mismatch};
use crate::config::value::Value;
use crate::policy::adaptive;
use crate::policy::queue;

pub const ADAPTIVE_LIMIT: Shape = Shape {
    what: "`adaptive_limit`",
    keys: &["initial", "min", "max", "tolerance"],
    later: &[],
};
pub const QUEUE: Shape = Shape {
    what: "`queue`",
    keys: &["size", "timeout"],
    later: &[],
};

const MOST: u32 = 1_000_000;

/// The limits in the table of an upstream. `None`: it has none. `h2`: its endpoints may speak HTTP/2; `min_idle`: connections
/// that each worker makes beforehand.
pub fn read(fields: &Fields<'_>, h2: bool, min_idle: usize) -> Option<Limits> {
    let max_active = fields.number("max_active", 1..=MOST);
    let max_active_per_endpoint = fields.number("max_active_per_endpoint", 1..=MOST);
    if let (Some(all), Some(one), Some(node)) = (
        max_active,
        max_active_per_endpoint,
        fields.get("max_active_per_endpoint"),
    ) && one > all
    {
        let message = "one endpoint never has so many: `max_active`, which is for all of them, is less";
        let error = Diagnostic::error(node.span, message);
        fields
            .cx
            .push(error.label(format!("expected at most `max_active`, {all}")));
    }
    let max_connections_per_endpoint = fields.number("max_connections_per_endpoint", 1..=MOST);
    if let Some(connections) = max_connections_per_endpoint {
        check_connections(fields, connections, max_active_per_endpoint.filter(|_| !h2), min_idle);
    }
    let adaptive = adaptive_limit(fields, max_active_per_endpoint);
    let queue = queue(fields);
    let keys = [
        "max_active",
        "max_active_per_endpoint",
        "max_connections_per_endpoint",
        "adaptive_limit",
    ];
    if fields.present(&keys).is_empty() {
        if let Some(node) = fields.get("queue") {
            let error = Diagnostic::error(node.span, "nobody would ever wait: this upstream has no limit");
            let help =
                "set `max_active`, `max_active_per_endpoint`, `max_connections_per_endpoint` or `adaptive_limit`";
            fields.cx.push(error.help(help));
        }
        return None;
    }
    let numbers = [max_active, max_active_per_endpoint, max_connections_per_endpoint];
    let is_limited = numbers.iter().any(Option::is_some) || adaptive.is_some();
    is_limited.then_some(Limits {
        max_active,
        max_active_per_endpoint,
        max_connections_per_endpoint,
        adaptive,
        queue,
    })
}

/// What an endpoint never comes to with so many connections. `active`: requests that it may have, each with a connection of
/// its own.
fn check_connections(fields: &Fields<'_>, connections: u32, active: Option<u32>, min_idle: usize) {
    if active.is_some_and(|active| active > connections)
        && let Some(node) = fields.get("max_active_per_endpoint")
    {
        let message = "an endpoint never has so many: over HTTP/1 and at Layer 4 each takes a connection of its own";
        let help = "`max_connections_per_endpoint` alone is enough here";
        let error = Diagnostic::error(node.span, message);
        fields.cx.push(
            error
                .label(format!(
                    "expected at most `max_connections_per_endpoint`, {connections}"
                ))
                .help(help),
        );
    }
    if min_idle > connections as usize
        && let Some(node) = fields.get("pool_min_idle")
    {
        let message = format!("`pool_min_idle` is above `max_connections_per_endpoint`, which is {connections}");
        let error = Diagnostic::error(node.span, message);
        fields.cx.push(
            error
                .label("each worker would make more than all may have together")
                .help("lower it, or raise `max_connections_per_endpoint`"),
        );
    }
}

/// `true`, `false` or a table. `most`: what no endpoint may have more of anyhow.
fn adaptive_limit(fields: &Fields<'_>, most: Option<u32>) -> Option<adaptive::Spec> {
    let cx = fields.cx;
    let node = fields.get("adaptive_limit")?;
    let default = adaptive::Spec {
        initial: defaults::ADAPTIVE_INITIAL,
        min: defaults::ADAPTIVE_MIN,
        max: defaults::ADAPTIVE_MAX,
        tolerance: defaults::ADAPTIVE_TOLERANCE,
    };
    let table = match &node.value {
        Value::Boolean(on) => return on.then_some(default),
        Value::Table(table) => Fields::new(cx, table, node.span, &ADAPTIVE_LIMIT),
        _ => return mismatch(cx, node, "`true` or a table", "as in `true` or `{ max = 200 }`"),
    };
    let min = table.number("min", 1..=MOST);
    let max = table.number("max", 1..=MOST);
    let initial = table.number("initial", 1..=MOST);
    let spec = adaptive::Spec {
        min: min.unwrap_or(default.min.min(max.unwrap_or(MOST))),
        max: max.unwrap_or(default.max.max(min.unwrap_or(1))),
        initial: initial.unwrap_or(default.initial),
        tolerance: table.fraction("tolerance", 1.05..=10.0).unwrap_or(default.tolerance),
    };
    if let (Some(min), Some(max), Some(node)) = (min, max, table.get("max"))
        && max < min
    {
        let error = Diagnostic::error(node.span, "the greatest limit is less than the least");
        cx.push(error.label(format!("expected at least `min`, {min}")));
    }
    if let (Some(initial), Some(node)) = (initial, table.get("initial"))
        && !(spec.min..=spec.max).contains(&initial)
        && spec.min <= spec.max
    {
        let error = Diagnostic::error(node.span, format!("`initial` cannot be {initial}"));
        cx.push(error.label(format!("expected `min` to `max`, {} to {}", spec.min, spec.max)));
    }
    if let (Some(max), Some(most)) = (max, most)
        && let (true, Some(node)) = (max > most, table.get("max"))
    {
        let error = Diagnostic::error(
            node.span,
            "the limit never gets there: `max_active_per_endpoint` comes before",
        );
        cx.push(error.label(format!("expected at most `max_active_per_endpoint`, {most}")));
    }
    Some(spec)
}

fn queue(fields: &Fields<'_>) -> queue::Spec {
    let mut spec = queue::Spec {
        size: defaults::QUEUE_SIZE,
        timeout: defaults::QUEUE_TIMEOUT,
    };
    if let Some(fields) = fields.get("queue").and_then(|node| Fields::of(fields.cx, node, &QUEUE)) {
        spec.size = fields.number("size", 0..=100_000).unwrap_or(spec.size);
        spec.timeout = fields.duration("timeout", Duration::from_millis(1), spec.timeout);
        if spec.size == 0 {
            fields.refuse(&["timeout"], "is for those who wait, and `size = 0` lets nobody wait");
        }
    }
    spec
}

//! `[upstreams.NAME.outlier]`.

use std::time::Duration;

use crate::config::defaults;
use crate::config::diagnostic::{Context, Diagnostic};
use crate::config::reader::{Fields, Shape, mismatch};
use crate::config::value::{Node, Value};
use crate::health::outlier::Spec;

pub const OUTLIER: Shape = Shape {
    what: "`outlier`",
    keys: &[
        "consecutive_5xx",
        "consecutive_gateway",
        "success_rate",
        "failure_rate",
        "latency",
        "minimum_hosts",
        "minimum_requests",
        "window",
        "base_ejection",
        "max_ejection",
        "max_ejected",
    ],
    later: &[],
};

/// `None`: off. Without the key, endpoints that do not answer are ejected and nothing else.
pub fn read(cx: &Context<'_>, node: Option<&Node>) -> Option<Spec> {
    let Some(node) = node else {
        return Some(Spec {
            consecutive_5xx: 0,
            success_rate: 0.0,
            failure_rate: 0.0,
            ..defaults::OUTLIER
        });
    };
    match &node.value {
        Value::Boolean(on) => on.then_some(defaults::OUTLIER),
        Value::Table(table) => Some(table_of(&Fields::new(cx, table, node.span, &OUTLIER))),
        _ => mismatch(cx, node, "a table or `false`", "`outlier` is a table, or `false`"),
    }
}

fn table_of(fields: &Fields<'_>) -> Spec {
    let default = defaults::OUTLIER;
    let least = Duration::from_millis(100);
    let factor = |key, default| fields.fraction(key, 0.0..=100.0).unwrap_or(default);
    let spec = Spec {
        consecutive_5xx: fields
            .number("consecutive_5xx", 0..=100_000)
            .unwrap_or(default.consecutive_5xx),
        consecutive_gateway: fields
            .number("consecutive_gateway", 0..=100_000)
            .unwrap_or(default.consecutive_gateway),
        success_rate: factor("success_rate", default.success_rate),
        failure_rate: fields
            .fraction("failure_rate", 0.0..=1.0)
            .unwrap_or(default.failure_rate),
        latency: factor("latency", default.latency),
        minimum_hosts: fields
            .number("minimum_hosts", 2..=10_000)
            .unwrap_or(default.minimum_hosts as u32) as usize,
        minimum_requests: u64::from(
            fields
                .number("minimum_requests", 1..=1_000_000_000u32)
                .unwrap_or(default.minimum_requests as u32),
        ),
        window: fields.duration("window", Duration::from_secs(1), default.window),
        base_ejection: fields.duration("base_ejection", least, default.base_ejection),
        max_ejection: fields.duration("max_ejection", least, default.max_ejection),
        max_ejected: fields.fraction("max_ejected", 0.0..=1.0).unwrap_or(default.max_ejected),
    };
    if spec.base_ejection > spec.max_ejection {
        let key = ["max_ejection", "base_ejection"]
            .into_iter()
            .find_map(|key| fields.get(key));
        let message = format!(
            "the first ejection ({:?}) would last longer than any may (`max_ejection` is {:?})",
            spec.base_ejection, spec.max_ejection
        );
        fields
            .cx
            .push(Diagnostic::error(key.map_or(fields.span, |node| node.span), message));
    }
    if let (0.0, Some(node)) = (spec.max_ejected, fields.get("max_ejected")) {
        let error = Diagnostic::error(node.span, "with `max_ejected = 0` nothing is ever ejected");
        fields.cx.push(error.help("write `outlier = false`"));
    }
    let comparing = ["success_rate", "failure_rate", "latency"];
    if !spec.compares() {
        let reason = "is for comparisons, which are all off";
        fields.refuse(&["minimum_hosts", "minimum_requests", "window"], reason);
    }
    if spec.consecutive_5xx == 0 && spec.consecutive_gateway == 0 && !spec.compares() {
        let error = Diagnostic::error(fields.span, "every detector is off");
        let hint = format!(
            "write `outlier = false`, or set one of {}",
            comparing.map(|k| format!("`{k}`")).join(", ")
        );
        fields.cx.push(error.help(hint));
    }
    spec
}

//! `retries = …`: a number, or a table with when, for whom, how often and how soon.

use std::time::Duration;

use http::{Method, StatusCode};

use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape, mismatch, text};
use crate::config::value::{Node, Value};
use crate::policy::backoff::Backoff;
use crate::policy::budget::Share;
use crate::policy::grpc;
use crate::policy::retry::{Failure, Methods, On, Spec};

pub const RETRIES: Shape = Shape {
    what: "`retries`",
    keys: &[
        "max",
        "on",
        "methods",
        "per_try_timeout",
        "budget",
        "min_concurrency",
        "min_per_second",
        "backoff",
        "buffer",
        "attempts_header",
    ],
    later: &[],
};
pub const BACKOFF: Shape = Shape {
    what: "`backoff`",
    keys: &["base", "max"],
    later: &[],
};

const LEAST: Duration = Duration::from_millis(1);
const MOST: u32 = 10;

/// What holds when nothing is written.
pub fn default() -> Spec {
    Spec {
        max: defaults::RETRIES,
        on: On::FAILURES,
        methods: Methods::Idempotent,
        per_try_timeout: None,
        budget: Share {
            of_active: defaults::RETRY_BUDGET,
            at_least: defaults::RETRY_MIN_CONCURRENCY,
            per_second: defaults::RETRY_MIN_PER_SECOND,
        },
        backoff: Backoff {
            base: defaults::RETRY_BACKOFF_BASE,
            max: defaults::RETRY_BACKOFF_MAX,
        },
        buffer: defaults::RETRY_BUFFER,
        tell: false,
    }
}

/// `retries` of the table `parent`, whose other time-outs end every attempt within `longest`.
pub fn read(parent: &Fields<'_>, longest: Duration) -> Spec {
    let mut spec = default();
    let Some(node) = parent.get("retries") else {
        return spec;
    };
    let Value::Table(_) = node.value else {
        match node.value {
            Value::Integer(_) => spec.max = parent.number("retries", 0..=MOST).unwrap_or(spec.max),
            _ => {
                mismatch::<()>(parent.cx, node, "a number or a table", "as in `1` or `{ max = 2 }`");
            }
        }
        return spec;
    };
    let Some(fields) = Fields::of(parent.cx, node, &RETRIES) else {
        return spec;
    };
    spec.max = fields.number("max", 0..=MOST).unwrap_or(spec.max);
    spec.on = on(&fields).unwrap_or(spec.on);
    spec.methods = methods(&fields).unwrap_or(spec.methods);
    spec.per_try_timeout = fields.optional_duration("per_try_timeout", LEAST);
    if let (Some(timeout), Some(node)) = (spec.per_try_timeout, fields.get("per_try_timeout"))
        && timeout >= longest
    {
        let message = "`per_try_timeout` never ends an attempt: the other time-outs do before";
        let label = format!("expected less than `connect_timeout` and `response_timeout` together, {longest:?}");
        fields.cx.push(Diagnostic::error(node.span, message).label(label));
    }
    spec.budget = Share {
        of_active: fields.fraction("budget", 0.0..=1.0).unwrap_or(spec.budget.of_active),
        at_least: fields
            .number("min_concurrency", 0..=1_000_000)
            .unwrap_or(spec.budget.at_least),
        per_second: fields
            .number("min_per_second", 0..=1_000_000)
            .unwrap_or(spec.budget.per_second),
    };
    let budget = spec.budget;
    if let (0.0, 0, 0, Some(node)) = (
        budget.of_active,
        budget.at_least,
        budget.per_second,
        fields.get("budget"),
    ) {
        let error = Diagnostic::error(
            node.span,
            "with `budget`, `min_concurrency` and `min_per_second` all 0 nothing is ever repeated",
        );
        fields.cx.push(error.help("for no retries at all set `retries = 0`"));
    }
    if spec.max == 0 {
        fields.refuse(&["backoff"], "is for repetitions, and `max = 0` makes none");
    }
    spec.backoff = backoff(&fields, spec.backoff);
    let buffer = fields.size("buffer", 0..=16 << 20, "0B to 16MiB");
    spec.buffer = buffer
        .and_then(|size| usize::try_from(size).ok())
        .unwrap_or(spec.buffer);
    spec.tell = fields.flag("attempts_header").unwrap_or(spec.tell);
    spec
}

fn on(fields: &Fields<'_>) -> Option<On> {
    let cx = fields.cx;
    let before = cx.errors();
    let mut on = On::NOTHING;
    let list = fields.one_or_many("on", |node| condition(cx, node, &mut on))?;
    if list.value.is_empty() && cx.errors() == before {
        let error = Diagnostic::error(list.span, "`on` is empty: nothing would ever be repeated");
        cx.push(error.help("for no retries at all set `retries = 0`"));
    }
    Some(on)
}

/// Adds what `node` names.
fn condition(cx: &Context<'_>, node: &Node, on: &mut On) -> Option<()> {
    let found = match &node.value {
        Value::Integer(number) => At {
            value: number.to_string(),
            span: node.span,
        },
        Value::String(word) => At {
            value: word.clone(),
            span: node.span,
        },
        _ => return mismatch(cx, node, "a word or a status", "as in `\"reset\"` or `503`"),
    };
    let word = found.value.as_str();
    if let Some((_, failure)) = Failure::WORDS.iter().find(|(name, _)| *name == word) {
        on.add(*failure);
        return Some(());
    }
    if let Some(name) = word.strip_prefix("grpc:") {
        match grpc::Status::of(name) {
            Some(status) => on.add_grpc(status),
            None => {
                let error = Diagnostic::error(found.span, format!("`{name}` is no failure that gRPC knows"));
                cx.push(error.did_you_mean(name, grpc::Status::names()));
                return None;
            }
        }
        return Some(());
    }
    let statuses = match word {
        "gateway_error" => 502..=504,
        "5xx" => 500..=599,
        _ => match word.parse::<u16>() {
            Ok(code @ 400..=599) => code..=code,
            Ok(code) => {
                let error = Diagnostic::error(found.span, format!("a response with status {code} is no failure"));
                cx.push(error.label("expected 400 to 599"));
                return None;
            }
            Err(_) => {
                let words = Failure::WORDS.iter().map(|(name, _)| *name);
                let error = Diagnostic::error(found.span, format!("`{word}` is nothing to retry on"))
                    .label("unknown word")
                    .did_you_mean(word, words.chain(["gateway_error", "5xx"]));
                let expected = "expected connect_failure, reset, refused_stream, timeout, bad_response, gateway_error, \
                                5xx, a status from 400 to 599, or `grpc:` and a status of gRPC such as unavailable";
                let has_help = error.help.is_some();
                cx.push(if has_help { error } else { error.help(expected) });
                return None;
            }
        },
    };
    statuses
        .filter_map(|code| StatusCode::from_u16(code).ok())
        .for_each(|status| on.add_status(status));
    Some(())
}

fn methods(fields: &Fields<'_>) -> Option<Methods> {
    let cx = fields.cx;
    let before = cx.errors();
    let list = fields.one_or_many("methods", |node| {
        let found = text(cx, node)?;
        let method = Method::from_bytes(found.value.as_bytes()).ok();
        let upper = found.value.to_ascii_uppercase();
        let Some(method) = method.filter(|_| upper == found.value) else {
            let error = Diagnostic::error(found.span, format!("`{}` is no method", found.value));
            cx.push(error.did_you_mean(&upper, ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"]));
            return None;
        };
        if matches!(method.as_str(), "POST" | "PATCH" | "LOCK" | "CONNECT") {
            let message = format!("`{method}` may do more when it is done twice: it is not repeated once begun");
            let help = "where nothing reached an endpoint, a request is repeated whatever its method";
            cx.push(Diagnostic::error(found.span, message).help(help));
            return None;
        }
        Some(method)
    })?;
    if list.value.is_empty() && cx.errors() == before {
        let error = Diagnostic::error(
            list.span,
            "`methods` is empty: leave it out for all that are idempotent",
        );
        cx.push(error);
    }
    Some(Methods::These(list.value.into()))
}

fn backoff(fields: &Fields<'_>, default: Backoff) -> Backoff {
    let Some(fields) = fields
        .get("backoff")
        .and_then(|node| Fields::of(fields.cx, node, &BACKOFF))
    else {
        return default;
    };
    let base = fields.duration("base", Duration::ZERO, default.base);
    let max = fields.optional_duration("max", Duration::ZERO);
    if let (Some(max), Some(node)) = (max, fields.get("max"))
        && max < base
    {
        let message = "the longest wait is shorter than the first";
        let error = Diagnostic::error(node.span, message).label(format!("expected at least {base:?}"));
        fields.cx.push(error);
    }
    Backoff {
        base,
        // Ten times the first, as the defaults are.
        max: max.unwrap_or_else(|| base.saturating_mul(10)),
    }
}

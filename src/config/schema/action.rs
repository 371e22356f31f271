//! What a route does: forward to an upstream, split over several, redirect, or respond by itself.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::cache;
use super::name::{header_fields, reference};
use crate::base::units::parse_duration;
use crate::config::defaults;
use crate::config::diagnostic::{At, Diagnostic, nearest};
use crate::config::plan::{Redirect, Respond};
use crate::config::reader::{Fields, Shape, listed};
use crate::policy::hedge::After;
use crate::policy::queue::Importance;

#[derive(Debug)]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Debug)]
pub struct Forward {
    /// Upstreams and their weights.
    pub split: Vec<(At<String>, u32)>,
    pub timeout: Option<Duration>,
    pub max_duration: Option<Duration>,
    pub max_body: Option<u64>,
    pub importance: Importance,
    pub hedge: Option<After>,
    pub cache: Option<Box<cache::Reference>>,
}

pub const SPLIT: Shape = Shape {
    what: "a part of `split`",
    keys: &["upstream", "weight"],
    later: &[],
};
pub const REDIRECT: Shape = Shape {
    what: "`redirect`",
    keys: &["to", "status"],
    later: &[],
};
pub const RESPOND: Shape = Shape {
    what: "`respond`",
    keys: &["status", "headers", "body"],
    later: &[],
};

const LEAST: Duration = Duration::from_millis(1);

const ACTIONS: [&str; 4] = ["upstream", "split", "redirect", "respond"];
const PLACEHOLDERS: [&str; 4] = ["path", "query", "host", "uri"];

/// Exactly one action of the route in `fields`; `None` when there is none or it is wrong.
pub fn read(fields: &Fields<'_>) -> Option<Action> {
    let present = fields.present(&ACTIONS);
    match present.as_slice() {
        [] => {
            let error = Diagnostic::error(fields.span, "this route does nothing");
            fields
                .cx
                .push(error.label(format!("expected one of {}", listed(ACTIONS, "or"))));
        }
        [_] => {}
        [first, second, ..] => {
            let message = format!(
                "{} exclude each other",
                listed(present.iter().map(|key| &key.value), "and")
            );
            fields
                .cx
                .push(Diagnostic::error(second.span, message).related(first.span, "already said here"));
        }
    }
    if fields.present(&["upstream", "split"]).is_empty() && !present.is_empty() {
        fields.refuse(
            &["timeout", "max_duration", "max_body", "importance", "hedge", "cache"],
            "is for routes with `upstream` or `split`",
        );
    }
    // All of them are read, so that each is checked.
    let (redirect, respond) = (redirect(fields), respond(fields));
    let split = match fields.get("upstream") {
        Some(node) => reference(fields.cx, node).map(|name| vec![(name, 1)]),
        None => split(fields),
    };
    let forward = Forward {
        split: split.unwrap_or_default(),
        timeout: fields.optional_duration("timeout", LEAST),
        max_duration: max_duration(fields),
        importance: importance(fields),
        hedge: hedge(fields),
        max_body: fields.size("max_body", 0..=u64::MAX, ""),
        cache: fields
            .get("cache")
            .and_then(|node| cache::used(fields.cx, node))
            .map(Box::new),
    };
    let forward = (!forward.split.is_empty()).then_some(Action::Forward(forward));
    forward
        .or(redirect.map(Action::Redirect))
        .or(respond.map(Action::Respond))
}

fn hedge(fields: &Fields<'_>) -> Option<After> {
    let read = |text: &str| match text {
        "p95" => Ok(After::P95),
        _ => match parse_duration(text) {
            Ok(time) if time >= LEAST => Ok(After::Time(time)),
            _ => Err(format!("`{text}` is no time after which an answer is late")),
        },
    };
    let found = fields.parsed("hedge", "expected \"p95\" or a duration such as \"50ms\"", read);
    if let (Some(found), Some(timeout)) = (&found, fields.optional_duration("timeout", LEAST))
        && matches!(found.value, After::Time(time) if time >= timeout)
    {
        let message = "a second attempt is never made: `timeout` ends the request before";
        let label = format!("expected less than `timeout`, {timeout:?}");
        fields.cx.push(Diagnostic::error(found.span, message).label(label));
    }
    found.map(|found| found.value)
}

fn importance(fields: &Fields<'_>) -> Importance {
    let words = [
        ("high", Importance::High),
        ("normal", Importance::Normal),
        ("low", Importance::Low),
    ];
    let found = fields.word("importance", &words, &[]);
    found.map_or(Importance::Normal, |found| found.value)
}

/// `max_duration`, which is for more than `timeout` is.
fn max_duration(fields: &Fields<'_>) -> Option<Duration> {
    let longest = fields.optional_duration("max_duration", LEAST)?;
    if let (Some(node), Some(timeout)) = (fields.get("timeout"), fields.optional_duration("timeout", LEAST))
        && timeout > longest
    {
        let message = "`timeout` never comes: `max_duration` ends the request before";
        let label = format!("expected at most `max_duration`, {longest:?}");
        fields.cx.push(Diagnostic::error(node.span, message).label(label));
    }
    Some(longest)
}

fn split(fields: &Fields<'_>) -> Option<Vec<(At<String>, u32)>> {
    let cx = fields.cx;
    let before = cx.errors();
    let what = "a list such as `[{ upstream = \"a\", weight = 9 }, { upstream = \"b\" }]`";
    let list = fields.list("split", what, |node| {
        let part = Fields::of(cx, node, &SPLIT)?;
        let upstream = reference(cx, part.require("upstream")?);
        let weight = part
            .number("weight", 0..=1_000_000)
            .unwrap_or(u32::from(defaults::WEIGHT));
        Some((upstream?, weight))
    })?;
    if cx.errors() == before && list.value.iter().all(|(_, weight)| *weight == 0) {
        cx.push(Diagnostic::error(list.span, "no part of `split` has a weight above 0"));
    }
    Some(list.value)
}

fn redirect(fields: &Fields<'_>) -> Option<Redirect> {
    let fields = Fields::of(fields.cx, fields.get("redirect")?, &REDIRECT)?;
    fields.require("to")?;
    let to = fields.parsed(
        "to",
        "expected a path or a URL, with `{path}`, `{query}`, `{host}` or `{uri}` in it",
        target,
    );
    let status = status(&fields, "expected 301, 302, 303, 307 or 308", |n| {
        matches!(n, 301..=303 | 307 | 308)
    });
    let default = StatusCode::from_u16(defaults::REDIRECT_STATUS).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    Some(Redirect {
        to: to?.value,
        status: status.map_or(default, |found| found.value),
    })
}

fn target(text: &str) -> Result<String, String> {
    let is_url = ["/", "http://", "https://", "{path}", "{uri}"]
        .iter()
        .any(|start| text.starts_with(start));
    if !is_url {
        return Err(format!(
            "`{text}` is neither a path nor a URL with `http://` or `https://`"
        ));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!(
            "`{text}`: {c:?} stands in URLs percent-encoded, as in `%20` for a space"
        ));
    }
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else {
            return Err(format!("`{text}`: a `{{` is not closed"));
        };
        if !PLACEHOLDERS.contains(&name) {
            let hint = nearest(name, PLACEHOLDERS).map(|near| format!(": did you mean `{{{near}}}`?"));
            return Err(format!("`{{{name}}}` stands for nothing{}", hint.unwrap_or_default()));
        }
        rest = after;
    }
    Ok(text.into())
}

fn respond(fields: &Fields<'_>) -> Option<Respond> {
    let cx = fields.cx;
    let fields = Fields::of(cx, fields.get("respond")?, &RESPOND)?;
    fields.require("status")?;
    let status = status(&fields, "expected 200 to 599", |n| (200..=599).contains(&n))?;
    let body = fields.text("body");
    if let Some(body) = &body
        && matches!(status.value.as_u16(), 204 | 205 | 304)
        && !body.value.is_empty()
    {
        let message = format!("a response with status {} has no body", status.value.as_u16());
        cx.push(Diagnostic::error(body.span, message).related(status.span, "the status stands here"));
    }
    let mut headers = HeaderMap::new();
    for (name, value) in header_fields(&fields, "headers") {
        let is_ours = [
            header::CONNECTION,
            header::CONTENT_LENGTH,
            header::DATE,
            header::TRANSFER_ENCODING,
            header::UPGRADE,
        ]
        .contains(&name);
        if is_ours {
            let entries = fields.entries("headers", "a table of header fields");
            let place = entries.and_then(|all| {
                all.value
                    .iter()
                    .find(|(key, _)| key.value.eq_ignore_ascii_case(name.as_str()))
            });
            let span = place.map_or(fields.span, |(key, _)| key.span);
            cx.push(Diagnostic::error(span, format!("`{name}` is set by the proxy itself")));
        }
        headers.insert(name, value);
    }
    Some(Respond {
        status: status.value,
        headers,
        body: Bytes::copy_from_slice(body.map_or(&[], |found| found.value.as_bytes())),
    })
}

/// `status`, where `accept` says which ones there may be.
fn status(fields: &Fields<'_>, expected: &str, accept: impl Fn(u16) -> bool) -> Option<At<StatusCode>> {
    let number: i64 = fields.number("status", i64::MIN..=i64::MAX)?;
    let span = fields.get("status").map_or(fields.span, |node| node.span);
    let status = u16::try_from(number).ok().filter(|number| accept(*number));
    match status.and_then(|number| StatusCode::from_u16(number).ok()) {
        Some(value) => Some(At { value, span }),
        None => {
            fields
                .cx
                .push(Diagnostic::error(span, format!("`status` cannot be {number}")).label(expected));
            None
        }
    }
}

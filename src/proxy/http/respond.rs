//! Responses of our own: errors, redirects, fixed answers.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::Response;
use super::admit::COME_BACK;
use super::body::ResponseBody;
use crate::fields::{Fields, Known};
use crate::h1::target::Target;
use crate::policy::grpc;
use crate::proxy::error::{Kind, ProxyError};

/// What a client gets in place of a response.
pub fn failure(e: &ProxyError, is_grpc: bool) -> Response {
    let mut response = match is_grpc {
        true => self::grpc(e.kind.grpc(), in_words(e)),
        false => plain(e.kind.status(), told(e)),
    };
    if matches!(e.kind, Kind::Overloaded | Kind::QueueTimeout | Kind::ConnectionsFull) {
        let mut seconds = itoa::Buffer::new();
        let seconds = seconds.format(COME_BACK.as_secs());
        response.fields.append_text("retry-after", seconds.as_bytes());
    }
    response
}

/// What a client is told of a failure: its own mistakes in words, ours by the status alone.
fn told(e: &ProxyError) -> &str {
    match e.kind {
        Kind::BadRequest | Kind::BodyTooLarge | Kind::BodyTimeout => &e.detail,
        Kind::Unavailable => "no endpoint is available",
        Kind::Overloaded | Kind::QueueTimeout | Kind::ConnectionsFull => "too much to do, try again later",
        _ => "",
    }
}

/// The same where there is no status to tell it.
fn in_words(e: &ProxyError) -> &str {
    match told(e) {
        "" => e.kind.status().canonical_reason().unwrap_or_default(),
        told => told,
    }
}

/// A short plain-text answer that says what is wrong and nothing about the inside.
pub fn plain(status: StatusCode, why: &str) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    let text = if why.is_empty() || why == reason {
        format!("{} {reason}\n", status.as_u16())
    } else {
        format!("{} {reason}: {why}\n", status.as_u16())
    };
    let mut fields = Fields::default();
    fields.append_text("content-type", b"text/plain; charset=utf-8");
    whole(status, fields, text.into())
}

/// The same for a call of gRPC: a response of trailers alone (gRPC over HTTP/2, "Responses").
pub fn grpc(status: grpc::Status, why: &str) -> Response {
    /// What stands in `grpc-message` percent-encoded.
    const SPECIAL: &AsciiSet = &CONTROLS.add(b'%');
    let mut fields = Fields::default();
    fields.append_text("content-type", b"application/grpc");
    let mut number = itoa::Buffer::new();
    fields.append_text("grpc-status", number.format(status.number()).as_bytes());
    let message = utf8_percent_encode(why, SPECIAL).to_string();
    fields.append_text("grpc-message", message.as_bytes());
    Response {
        status: StatusCode::OK,
        fields,
        body: ResponseBody::Empty,
        length: None,
    }
}

/// A complete body with its fields.
pub fn whole(status: StatusCode, mut fields: Fields, body: Bytes) -> Response {
    if !fields.has(Known::Date) {
        fields.append(Known::Date, httpdate::fmt_http_date(SystemTime::now()).as_bytes());
    }
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    Response {
        status,
        fields,
        length: (!bodiless).then_some(body.len() as u64),
        body: if bodiless {
            ResponseBody::Empty
        } else {
            ResponseBody::Full(body)
        },
    }
}

/// `redirect = { to, status }`: `{host}`, `{path}`, `{query}` (with its `?`) and `{uri}` are the request's.
pub fn redirect(to: &str, status: StatusCode, target: &Target, fields: &Fields, host: &str) -> Response {
    let (path, query) = target.parts(fields);
    let query = query.map(|q| format!("?{q}")).unwrap_or_default();
    let mut location = String::with_capacity(to.len() + 64);
    let mut rest = to;
    while let Some(open) = rest.find('{') {
        location.push_str(&rest[..open]);
        rest = &rest[open..];
        let (name, value) = match rest.find('}').map(|close| &rest[..=close]) {
            Some(name @ "{host}") => (name, host),
            Some(name @ "{path}") => (name, path),
            Some(name @ "{query}") => (name, query.as_str()),
            Some(name @ "{uri}") => {
                location.push_str(path);
                (name, query.as_str())
            }
            _ => ("{", "{"),
        };
        location.push_str(value);
        rest = &rest[name.len()..];
    }
    location.push_str(rest);
    // `//evil.example` would leave the site: a path of our own never begins with two slashes.
    if to.starts_with('/') || to.starts_with("{path}") || to.starts_with("{uri}") {
        let inside = location.trim_start_matches(['/', '\\']);
        location = format!("/{inside}");
    }
    let mut response = plain(status, "");
    if HeaderValue::try_from(&location).is_err() {
        return plain(StatusCode::BAD_REQUEST, "no location can be made of this request");
    }
    response.fields.append(Known::Location, location.as_bytes());
    response
}

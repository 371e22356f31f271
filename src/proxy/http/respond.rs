//! Responses of our own: errors, redirects, fixed answers.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::body::ResponseBody;
use super::{Request, Response};

/// A short plain-text answer that says what is wrong and nothing about the inside.
pub fn plain(status: StatusCode, why: &str) -> Response {
    let reason = status.canonical_reason().unwrap_or("Error");
    let text = if why.is_empty() || why == reason {
        format!("{} {reason}\n", status.as_u16())
    } else {
        format!("{} {reason}: {why}\n", status.as_u16())
    };
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    whole(status, headers, text.into())
}

/// A complete body with its fields.
pub fn whole(status: StatusCode, mut headers: HeaderMap, body: Bytes) -> Response {
    if !headers.contains_key(header::DATE)
        && let Ok(date) = HeaderValue::try_from(httpdate::fmt_http_date(SystemTime::now()))
    {
        headers.insert(header::DATE, date);
    }
    let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
    Response {
        status,
        headers,
        length: (!bodiless).then_some(body.len() as u64),
        body: if bodiless {
            ResponseBody::Empty
        } else {
            ResponseBody::Full(body)
        },
    }
}

/// `redirect = { to, status }`: `{host}`, `{path}`, `{query}` (with its `?`) and `{uri}` are the request's.
pub fn redirect(to: &str, status: StatusCode, request: &Request, host: &str) -> Response {
    let (path, query) = (request.uri.path(), request.uri.query());
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
    match HeaderValue::try_from(location) {
        Ok(location) => response.headers.insert(header::LOCATION, location),
        Err(_) => return plain(StatusCode::BAD_REQUEST, "no location can be made of this request"),
    };
    response
}

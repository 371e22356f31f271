//! Answers made of what is stored: whole, as ranges, or told to be current.

use bytes::Bytes;
use http::{Method, StatusCode, Version};

use super::status::Told;
use crate::cache::conditional;
use crate::cache::entry::{Body, Entry};
use crate::cache::fill::Seat;
use crate::cache::freshness::Freshness;
use crate::cache::range::{self, Asked};
use crate::fields::{Fields, Known};
use crate::proxy::http::body::{Filling, Pieces, ResponseBody, Window};
use crate::proxy::http::stored::StoredBody;
use crate::proxy::http::{Request, Response};

/// When an answer is made.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// Of the cache's clock, in milliseconds.
    pub clock: i64,
    /// Seconds since 1970: asked for only where dates are compared.
    pub wall: fn() -> i64,
}

/// The answer to `request`. `None`: what is stored is a part, and not the one that is asked for.
pub fn stored(entry: &Entry, freshness: &Freshness, request: &Request, now: Now, told: &Told) -> Option<Response> {
    let mut fields = entry.meta.head.fields();
    let status = StatusCode::from_u16(entry.meta.status).ok()?;
    let asks = request.fields.has(Known::IfNoneMatch) || request.fields.has(Known::IfModifiedSince);
    if asks && status == StatusCode::OK && conditional::is_current(&request.fields, &fields, (now.wall)()) {
        return Some(not_modified(fields, freshness, now, told));
    }
    let length = entry.body.length();
    match asked(request, status, &fields, length, now) {
        Asked::Whole => {}
        Asked::Unsatisfiable => return Some(unsatisfiable(fields, length, freshness, now, told)),
        // Several pieces of what is not in memory: a server need not answer with ranges (RFC 9110 section 14.2).
        Asked::Spans(spans) if spans.len() > 1 && !entry.body.is_held() => {}
        Asked::Spans(spans) => {
            let held = entry.body.span();
            if !spans.iter().all(|span| held.0 <= span.0 && span.1 <= held.1) {
                return None;
            }
            return Some(ranges(entry, fields, &spans, freshness, now, told));
        }
    }
    if !entry.body.is_whole() && request.method != Method::HEAD {
        return None;
    }
    finish(&mut fields, freshness, now, told);
    // Behind a body with a length HTTP/1 has no trailers, and HTTP/1.0 has none at all.
    let trails = entry.trailers.is_some()
        && entry.body.is_held()
        && request.method != Method::HEAD
        && request.version >= Version::HTTP_11;
    Some(Response {
        status,
        fields,
        body: match &entry.trailers {
            Some(trailers) if trails => ResponseBody::Pieces(Box::new(Pieces {
                data: entry.body.chunks().to_vec().into_iter(),
                trailers: Some(trailers.as_ref().clone()),
            })),
            _ => whole(&entry.body),
        },
        length: (status != StatusCode::NO_CONTENT && !trails).then_some(length),
    })
}

/// What of a response with these fields and a body of `length` bytes is asked for.
fn asked(request: &Request, status: StatusCode, fields: &Fields, length: u64, now: Now) -> Asked {
    let ranged = request.fields.has(Known::Range) && request.method == Method::GET && status == StatusCode::OK;
    match ranged && conditional::may_range(&request.fields, fields, (now.wall)()) {
        true => range::asked(&request.fields, length),
        false => Asked::Whole,
    }
}

fn unsatisfiable(mut fields: Fields, length: u64, freshness: &Freshness, now: Now, told: &Told) -> Response {
    fields.append(Known::ContentRange, format!("bytes */{length}").as_bytes());
    finish(&mut fields, freshness, now, told);
    Response {
        status: StatusCode::RANGE_NOT_SATISFIABLE,
        fields,
        body: ResponseBody::Empty,
        length: Some(0),
    }
}

/// The range that is asked for of a response that came whole and is for this client alone. Several ranges get the whole.
pub fn cut(response: &mut Response, request: &Request, now: Now) {
    let Some(length) = response.length else { return };
    let Asked::Spans(spans) = asked(request, response.status, &response.fields, length, now) else {
        return;
    };
    if let [span] = spans.as_slice() {
        let body = std::mem::replace(&mut response.body, ResponseBody::Empty);
        response.body = Window::of(body, *span);
        response.status = StatusCode::PARTIAL_CONTENT;
        response.length = Some(span.1 - span.0 + 1);
        let range = range::content_range(*span, length);
        response.fields.append(Known::ContentRange, range.as_bytes());
    }
}

fn whole(body: &Body) -> ResponseBody {
    match body {
        Body::One(bytes) if bytes.is_empty() => ResponseBody::Empty,
        Body::One(bytes) => ResponseBody::Full(bytes.clone()),
        Body::Stored(file) => ResponseBody::Stored(Box::new(StoredBody::new(file.clone(), body.span()))),
        body => pieces(body.chunks().to_vec()),
    }
}

fn pieces(mut pieces: Vec<Bytes>) -> ResponseBody {
    match pieces.len() {
        1 => ResponseBody::Full(pieces.remove(0)),
        _ => ResponseBody::Pieces(Box::new(Pieces {
            data: pieces.into_iter(),
            trailers: None,
        })),
    }
}

fn ranges(
    entry: &Entry,
    mut fields: Fields,
    spans: &[range::Span],
    freshness: &Freshness,
    now: Now,
    told: &Told,
) -> Response {
    let (chunks, length, offset) = (entry.body.chunks(), entry.body.length(), entry.body.span().0);
    let (body, sent) = match spans {
        [span] => {
            fields.append(Known::ContentRange, range::content_range(*span, length).as_bytes());
            let body = match &entry.body {
                Body::Stored(file) => ResponseBody::Stored(Box::new(StoredBody::new(file.clone(), *span))),
                _ => {
                    let mut parts = Vec::new();
                    range::cut(chunks, offset, *span, &mut parts);
                    pieces(parts)
                }
            };
            (body, span.1 - span.0 + 1)
        }
        spans => {
            let kind = http::header::CONTENT_TYPE;
            let content_type = fields.named(&kind).next().map(<[u8]>::to_vec);
            // Long enough to stand in no body by chance, and another for each answer.
            let boundary = format!("evenkeel-{:016x}-{:x}", freshness.born, now.clock);
            let (parts, sent) = range::multipart(chunks, offset, spans, length, content_type.as_deref(), &boundary);
            fields.remove_named(b"content-type");
            fields.append_text(
                "content-type",
                format!("multipart/byteranges; boundary={boundary}").as_bytes(),
            );
            (pieces(parts), sent)
        }
    };
    finish(&mut fields, freshness, now, told);
    Response {
        status: StatusCode::PARTIAL_CONTENT,
        fields,
        body,
        length: Some(sent),
    }
}

fn not_modified(mut fields: Fields, freshness: &Freshness, now: Now, told: &Told) -> Response {
    conditional::of_not_modified(&mut fields);
    finish(&mut fields, freshness, now, told);
    Response {
        status: StatusCode::NOT_MODIFIED,
        fields,
        body: ResponseBody::Empty,
        length: None,
    }
}

/// A response that is being fetched.
pub struct Streamed {
    pub status: StatusCode,
    /// As the one who fetches it got them, or as they are stored.
    pub fields: Fields,
    pub length: Option<u64>,
    pub seat: Seat,
}

/// The answer that streams it, or the range of it that is asked for.
pub fn streamed(streamed: Streamed, freshness: &Freshness, request: &Request, now: Now, told: &Told) -> Response {
    let Streamed {
        status,
        mut fields,
        length,
        seat,
    } = streamed;
    let asks = request.fields.has(Known::IfNoneMatch) || request.fields.has(Known::IfModifiedSince);
    if asks && status == StatusCode::OK && conditional::is_current(&request.fields, &fields, (now.wall)()) {
        return not_modified(fields, freshness, now, told);
    }
    if let Some(length) = length
        && asked(request, status, &fields, length, now) == Asked::Unsatisfiable
    {
        return unsatisfiable(fields, length, freshness, now, told);
    }
    finish(&mut fields, freshness, now, told);
    let empty = length == Some(0) || status == StatusCode::NO_CONTENT;
    let mut response = Response {
        status,
        fields,
        body: match empty {
            true => ResponseBody::Empty,
            false => ResponseBody::Filling(Box::new(Filling(seat))),
        },
        length,
    };
    cut(&mut response, request, now);
    response
}

/// The fields a cache tells anew each time.
fn finish(fields: &mut Fields, freshness: &Freshness, now: Now, told: &Told) {
    let age = freshness.age(now.clock);
    fields.remove(Known::Age);
    // What has just been made has none.
    if age > 0 || told.forwarded.is_none() {
        fields.append(Known::Age, itoa::Buffer::new().format(age).as_bytes());
    }
    told.tell(fields);
}

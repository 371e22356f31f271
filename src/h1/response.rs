//! One response head, held to the same strictness as requests.

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, Version};

use super::framing::{Declared, Framing, FramingError, declared};
use super::head::{self, HeadError, HeadSearch, Limits};
use super::plain;
use super::request::Connection;
use crate::fields::{Fields, Found};

/// A response as it stood on the wire.
#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub fields: Fields,
    pub framing: Framing,
    /// The endpoint keeps the connection open after the body.
    pub keep_alive: bool,
}

/// Why a response is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResponseError {
    Head(HeadError),
    Framing(FramingError),
    Status,
}

impl ResponseError {
    /// A few words for logs.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Head(e) => e.reason(),
            Self::Framing(e) => e.reason(),
            Self::Status => "invalid status",
        }
    }
}

impl From<HeadError> for ResponseError {
    fn from(e: HeadError) -> Self {
        Self::Head(e)
    }
}

/// Takes one head off the front of `buf`, 1xx ones included; `Ok(None)`: more bytes are needed.
pub fn parse(
    buf: &mut BytesMut,
    search: &mut HeadSearch,
    limits: &Limits,
    request_method: &Method,
) -> Result<Option<ResponseHead>, ResponseError> {
    if search.is_new()
        && let Some(plain) = plain::response(buf, limits)
    {
        let head = head::take(buf, plain.len);
        let line = StatusLine {
            status: plain.first,
            version: Version::HTTP_11,
            found: plain.found,
        };
        return build(line, head, request_method).map(Some);
    }
    let Some(end) = search.end(buf, limits)? else {
        return Ok(None);
    };
    let head = head::take(buf, end);
    if !head.starts_with(b"HTTP/1.") || head.get(8) != Some(&b' ') {
        return Err(HeadError::StartLine.into());
    }
    let line = head::with_room(limits, |room| {
        let mut parsed = httparse::Response::new(&mut []);
        match httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            &head,
            super::request::shorten(room),
        ) {
            Ok(httparse::Status::Complete(n)) if n == head.len() => status_line(&head, &parsed),
            Ok(_) => Err(HeadError::StartLine.into()),
            Err(e) => Err(head::reason(e).into()),
        }
    })?;
    build(line, head, request_method).map(Some)
}

/// What the status line says, and where the fields are.
struct StatusLine {
    status: StatusCode,
    version: Version,
    found: Found,
}

fn status_line(head: &[u8], parsed: &httparse::Response<'_, '_>) -> Result<StatusLine, ResponseError> {
    let (Some(code), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(HeadError::StartLine.into());
    };
    let status = StatusCode::from_u16(code)
        .ok()
        .filter(|s| (100..600).contains(&s.as_u16()))
        .ok_or(ResponseError::Status)?;
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let found = head::fields(head, parsed.headers)?;
    Ok(StatusLine { status, version, found })
}

fn build(line: StatusLine, head: Bytes, request_method: &Method) -> Result<ResponseHead, ResponseError> {
    let StatusLine { status, version, found } = line;
    let fields = found.within(head);
    let declared = declared(&fields).map_err(ResponseError::Framing)?;
    let connection = Connection::read(&fields);
    let bodiless = request_method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED;
    let framing = match declared {
        // RFC 9112 section 6.1: chunked in HTTP/1.0 is faulty framing.
        Declared::Chunked if version == Version::HTTP_10 => {
            return Err(ResponseError::Framing(FramingError::TransferEncoding));
        }
        _ if bodiless => Framing::None,
        Declared::Chunked => Framing::Chunked,
        Declared::Length { bytes: 0, .. } => Framing::None,
        Declared::Length { bytes, .. } => Framing::Length(bytes),
        Declared::Nothing => Framing::UntilClose,
    };
    let keep_alive = !connection.close
        && framing != Framing::UntilClose
        && status != StatusCode::SWITCHING_PROTOCOLS
        && (version == Version::HTTP_11 || connection.keep_alive);
    Ok(ResponseHead {
        status,
        version,
        fields,
        framing,
        keep_alive,
    })
}

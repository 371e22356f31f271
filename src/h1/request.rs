//! One request head, strictly.

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, Version};

use super::desync::{Mode, Reason};
use super::framing::{Declared, Framing, FramingError, declared};
use super::head::{self, HeadError, HeadSearch, Limits};
use super::host;
use super::mended::second_reading;
use super::plain;
use super::target::Target;
use crate::fields::{Fields, Found, Known};

/// A request as it stood on the wire.
#[derive(Debug)]
pub struct RequestHead {
    pub method: Method,
    /// An absolute form has given its authority to Host.
    pub target: Target,
    /// HTTP/1.0 or 1.1.
    pub version: Version,
    pub fields: Fields,
    pub framing: Framing,
    /// Another request may follow.
    pub keep_alive: bool,
    pub expect_continue: bool,
    /// The Upgrade field, when Connection names it.
    pub upgrade: Option<HeaderValue>,
    /// Why it is not compliant. What is more than acceptable has been brought into its one reading.
    pub deviation: Option<Reason>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestError {
    Head(HeadError),
    Framing(FramingError),
    TargetTooLong,
    Target,
    /// None, several, or not an authority.
    Host,
    /// Another one than the target's.
    HostMismatch,
    /// CONNECT and TRACE.
    Method,
    Version,
    /// Transfer-Encoding in HTTP/1.0.
    ChunkedInHttp10,
    Expectation,
}

/// A request that is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub error: RequestError,
    /// How it deviates; `None`: it was refused for another reason, such as a limit.
    pub reason: Option<Reason>,
}

impl From<RequestError> for Refused {
    /// For what is found before there is a head to look into.
    #[cold]
    fn from(error: RequestError) -> Self {
        let reason = Reason::of(error, &[]);
        Self { error, reason }
    }
}

impl From<HeadError> for Refused {
    fn from(error: HeadError) -> Self {
        RequestError::from(error).into()
    }
}

impl RequestError {
    /// What the client is told.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Head(HeadError::TooLarge | HeadError::TooManyFields) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Head(HeadError::Version) | Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Framing(FramingError::UnknownCoding) => StatusCode::NOT_IMPLEMENTED,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// A few words for logs and error pages.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Head(e) => e.reason(),
            Self::Framing(e) => e.reason(),
            Self::TargetTooLong => "request-target too long",
            Self::Target => "invalid request-target",
            Self::Host => "exactly one valid Host is needed",
            Self::HostMismatch => "Host differs from the request-target",
            Self::Method => "method not allowed",
            Self::Version => "unknown HTTP version",
            Self::ChunkedInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::Expectation => "unknown expectation",
        }
    }
}

impl From<HeadError> for RequestError {
    fn from(e: HeadError) -> Self {
        Self::Head(e)
    }
}

/// The client preface of HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection begins with HTTP/2; `None`: too few bytes to tell.
pub fn is_h2_preface(buf: &[u8]) -> Option<bool> {
    let n = buf.len().min(PREFACE.len());
    if buf[..n] != PREFACE[..n] {
        Some(false)
    } else {
        (n == PREFACE.len()).then_some(true)
    }
}

/// Takes one head off the front of `buf`; `Ok(None)`: more bytes are needed. After an error the connection
/// cannot be used further: where the next request would begin is not known.
pub fn parse(
    buf: &mut BytesMut,
    search: &mut HeadSearch,
    limits: &Limits,
    mode: Mode,
) -> Result<Option<RequestHead>, Refused> {
    if search.is_new()
        && let Some(plain) = plain::request(buf, limits)
    {
        let head = head::take(buf, plain.len);
        let (method, target) = plain.first;
        let line = FirstLine {
            method,
            target,
            version: Version::HTTP_11,
            found: plain.found,
        };
        return match build(line, head, None) {
            Ok(read) => Ok(Some(read)),
            Err((error, head)) => second_reading(error, head, limits, mode, None).map(Some),
        };
    }
    // Robustness of RFC 9112 section 2.2, bounded: one empty line before a request.
    if search.in_first_line() && buf.starts_with(b"\r\n") {
        if search.skipped_line() {
            return Err(HeadError::StartLine.into());
        }
        let _ = buf.split_to(2);
        *search = HeadSearch::after_empty_line();
        if buf.starts_with(b"\r\n") {
            return Err(HeadError::StartLine.into());
        }
    }
    let Some(end) = search.end(buf, limits).map_err(|e| too_long(e.into(), buf, limits))? else {
        if first_target(buf, limits) > limits.max_target {
            return Err(RequestError::TargetTooLong.into());
        }
        return Ok(None);
    };
    let head = head::take(buf, end);
    let before = search.skipped_line().then_some(Reason::EmptyLine);
    match read(head, limits, before) {
        Ok(read) => Ok(Some(read)),
        Err((error, head)) => {
            let error = too_long(error, &head, limits);
            second_reading(error, head, limits, mode, before).map(Some)
        }
    }
}

/// Reads a whole head strictly. An error gives the head back. `before`: a deviation found already.
// Inlined like what it calls: the head of every request is written once, where the caller wants it.
#[inline(always)]
pub(super) fn read(head: Bytes, limits: &Limits, before: Option<Reason>) -> Result<RequestHead, (RequestError, Bytes)> {
    let line = head::with_room(limits, |room| {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(&head, shorten(room)) {
            Ok(httparse::Status::Complete(n)) if n == head.len() => first_line(&head, &parsed, limits),
            Ok(_) => Err(HeadError::StartLine.into()),
            Err(httparse::Error::Version) if !names_a_version(&head) => Err(HeadError::StartLine.into()),
            Err(e) => Err(head::reason(e).into()),
        }
    });
    match line {
        Ok(line) => build(line, head, before),
        Err(e) => Err((e, head)),
    }
}

/// What the first line says, and where the fields are.
struct FirstLine {
    method: Method,
    target: std::ops::Range<usize>,
    version: Version,
    found: Found,
}

/// Whether the request line has three parts, the last of them like `HTTP/1.1`: only then is its version the fault.
fn names_a_version(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\r').next().unwrap_or_default();
    let parts: Vec<_> = line.split(|b| *b == b' ').collect();
    matches!(parts[..], [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Lets the room for fields be used for a shorter time than its type says.
pub(super) fn shorten<'s, 'h>(
    room: &'s mut [std::mem::MaybeUninit<httparse::Header<'static>>],
) -> &'s mut [std::mem::MaybeUninit<httparse::Header<'h>>]
where
    'h: 's,
{
    // SAFETY: the elements are uninitialised and only written to with `'h` in the call that borrows them; nobody reads
    // them as `'static` afterwards, because `with_room` drops them unread (`MaybeUninit` drops nothing).
    unsafe { std::mem::transmute(room) }
}

#[inline(always)]
fn first_line(head: &[u8], parsed: &httparse::Request<'_, '_>, limits: &Limits) -> Result<FirstLine, RequestError> {
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HeadError::StartLine.into());
    };
    if target.len() > limits.max_target {
        return Err(RequestError::TargetTooLong);
    }
    let version = if minor == 1 { Version::HTTP_11 } else { Version::HTTP_10 };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::StartLine)?;
    if method == Method::CONNECT || method == Method::TRACE {
        return Err(RequestError::Method);
    }
    if !target.bytes().all(|b| (0x21..=0x7e).contains(&b) && b != b'#') {
        return Err(RequestError::Target);
    }
    Ok(FirstLine {
        method,
        target: head::place(head, target.as_bytes()),
        version,
        found: head::fields(head, parsed.headers)?,
    })
}

#[inline(always)]
fn build(line: FirstLine, head: Bytes, before: Option<Reason>) -> Result<RequestHead, (RequestError, Bytes)> {
    let FirstLine {
        method,
        target: place,
        version,
        found,
    } = line;
    let mut fields = found.within(head);
    match judge(&mut fields, place, &method, version) {
        Ok(said) => Ok(RequestHead {
            method,
            target: said.target,
            version,
            fields,
            framing: said.framing,
            keep_alive: said.keep_alive,
            expect_continue: said.expect_continue,
            upgrade: said.upgrade,
            deviation: said.deviation.or(before),
        }),
        Err(e) => Err((e, fields.head().clone())),
    }
}

/// What the fields say about the request and the connection.
struct Said {
    target: Target,
    framing: Framing,
    keep_alive: bool,
    expect_continue: bool,
    upgrade: Option<HeaderValue>,
    deviation: Option<Reason>,
}

#[inline(always)]
fn judge(
    fields: &mut Fields,
    place: std::ops::Range<usize>,
    method: &Method,
    version: Version,
) -> Result<Said, RequestError> {
    let target = target(fields, place, method, version)?;
    let mut deviation = None;
    let framing = match declared(fields).map_err(RequestError::Framing)? {
        Declared::Nothing => Framing::None,
        Declared::Chunked if version == Version::HTTP_10 => return Err(RequestError::ChunkedInHttp10),
        told => {
            deviation = unusual(told, method);
            match told {
                Declared::Length { bytes: 0, .. } | Declared::Nothing => Framing::None,
                Declared::Length { bytes, .. } => Framing::Length(bytes),
                Declared::Chunked => Framing::Chunked,
            }
        }
    };
    let connection = Connection::read(fields);
    let keep_alive = !connection.close && (version == Version::HTTP_11 || connection.keep_alive);
    let expect_continue = match fields.get(Known::Expect) {
        None => false,
        Some(v) if v.eq_ignore_ascii_case(b"100-continue") => version == Version::HTTP_11,
        Some(_) => return Err(RequestError::Expectation),
    };
    let upgrade = match fields.get(Known::Upgrade) {
        Some(value) if connection.upgrade && version == Version::HTTP_11 && !names_h2c(value) => {
            HeaderValue::from_bytes(value).ok()
        }
        _ => None,
    };
    Ok(Said {
        target,
        framing,
        keep_alive,
        expect_continue,
        upgrade,
        deviation,
    })
}

/// An endpoint that took it up would speak HTTP/2 with the client through a tunnel, past every route and rule here.
/// The upgrade is gone from HTTP (RFC 9113 section 3.1); ignoring one is always allowed.
fn names_h2c(upgrade: &[u8]) -> bool {
    let mut protocols = upgrade.split(|b| *b == b',');
    protocols.any(|protocol| protocol.trim_ascii().eq_ignore_ascii_case(b"h2c"))
}

/// Framing that everybody reads alike and few send.
fn unusual(told: Declared, method: &Method) -> Option<Reason> {
    let get = *method == Method::GET || *method == Method::HEAD;
    match told {
        Declared::Length { repeated: true, .. } => Some(Reason::RepeatedLength),
        Declared::Length { bytes: 0, .. } if get => Some(Reason::ZeroLengthGet),
        _ if get => Some(Reason::GetWithContent),
        _ => None,
    }
}

/// The target in origin form, and the one Host that goes with it.
#[inline(always)]
fn target(
    fields: &mut Fields,
    place: std::ops::Range<usize>,
    method: &Method,
    version: Version,
) -> Result<Target, RequestError> {
    let bytes = fields.head().get(place.clone()).unwrap_or_default();
    let target = std::str::from_utf8(bytes).map_err(|_| RequestError::Target)?;
    let (first, second) = {
        let mut hosts = fields.all(Known::Host);
        (hosts.next(), hosts.next())
    };
    let named = match (first, second) {
        (Some(host), None) if host::validate(host) => Some(host),
        (None, _) if version == Version::HTTP_10 => None,
        _ => return Err(RequestError::Host),
    };
    if target.starts_with('/') || (target == "*" && method == Method::OPTIONS) {
        return Ok(Target::within(place.start, target));
    }
    // Absolute form (RFC 9112 section 3.2.2): its authority counts; one that differs from Host is a trap.
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| {
            target
                .get(..scheme.len())
                .filter(|s| s.eq_ignore_ascii_case(scheme))
                .map(|_| &target[scheme.len()..])
        })
        .ok_or(RequestError::Target)?;
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if !host::validate(authority.as_bytes()) {
        return Err(RequestError::Target);
    }
    if named.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(RequestError::HostMismatch);
    }
    let host = authority.as_bytes().to_vec();
    let target = match path.as_bytes().first() {
        None => Target::own("/".into()),
        Some(b'?') => Target::own(format!("/{path}")),
        Some(_) => Target::within(place.end - path.len(), path),
    };
    fields.set(Known::Host, &host);
    Ok(target)
}

/// What Connection says about the connection itself.
#[derive(Debug, Default)]
pub(super) struct Connection {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

impl Connection {
    pub fn read(fields: &Fields) -> Self {
        let mut said = Self::default();
        for value in fields.all(Known::Connection) {
            // Nearly always one of these, as it stands.
            match value {
                b"keep-alive" => said.keep_alive = true,
                b"close" => said.close = true,
                _ => said.add(value),
            }
        }
        said
    }

    fn add(&mut self, value: &[u8]) {
        for option in value.split(|b| *b == b',') {
            let option = option.trim_ascii();
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
        }
    }
}

/// How much of the first line's target has come, within what a head may be.
fn first_target(buf: &[u8], limits: &Limits) -> usize {
    let buf = &buf[..buf.len().min(limits.max_head)];
    let line = &buf[..memchr::memchr(b'\n', buf).unwrap_or(buf.len())];
    let target = memchr::memchr(b' ', line).map_or(&[][..], |space| &line[space + 1..]);
    memchr::memchr(b' ', target).unwrap_or(target.len())
}

/// A target that is too long comes before whatever else is wrong, however much of the head came at once.
#[cold]
fn too_long(error: RequestError, buf: &[u8], limits: &Limits) -> RequestError {
    if first_target(buf, limits) > limits.max_target {
        RequestError::TargetTooLong
    } else {
        error
    }
}

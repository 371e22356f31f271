//! Bodies off the wire: by length, in chunks, until the close.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::framing::Framing;

/// Chunk extensions of one body, and its trailers, in bytes. Extensions are dropped.
const MAX_EXTENSIONS: usize = 16 * 1024;
const MAX_TRAILERS: usize = 16 * 1024;
const MAX_TRAILER_FIELDS: usize = 100;
/// A chunk's size line without extensions: 16 hexadecimal digits.
const MAX_SIZE_DIGITS: usize = 16;

/// What comes next of a body.
#[derive(Debug)]
pub enum Step {
    Data(Bytes),
    /// More bytes are needed.
    More,
    /// The body is complete.
    End(Option<HeaderMap>),
}

/// Why a body is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyError {
    ChunkSize,
    /// A chunk does not end in CRLF, or a line of it is broken otherwise.
    ChunkEnd,
    TooLarge,
    Trailer,
    /// The connection ended within the body.
    Truncated,
}

impl BodyError {
    /// A few words for logs and error pages.
    pub fn reason(self) -> &'static str {
        match self {
            Self::ChunkSize => "invalid chunk size",
            Self::ChunkEnd => "invalid end of a chunk",
            Self::TooLarge => "chunk extensions or trailers too large",
            Self::Trailer => "invalid trailer",
            Self::Truncated => "the body is incomplete",
        }
    }
}

/// One body being read.
#[derive(Debug)]
pub struct Decoder {
    state: State,
    extensions: usize,
}

#[derive(Debug)]
enum State {
    Length(u64),
    UntilClose,
    ChunkSize,
    Chunk(u64),
    ChunkEnd,
    Trailers(usize),
    End,
}

impl Decoder {
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::End,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilClose => State::UntilClose,
        };
        Self { state, extensions: 0 }
    }

    /// The whole body has been taken.
    pub fn is_end(&self) -> bool {
        matches!(self.state, State::End | State::Length(0))
    }

    /// Bytes still to come, where that is known.
    pub fn remaining(&self) -> Option<u64> {
        match self.state {
            State::Length(n) => Some(n),
            State::End => Some(0),
            _ => None,
        }
    }

    /// Bytes still to come of a body whose length frames it.
    pub fn counted(&self) -> Option<u64> {
        match self.state {
            State::Length(n) => Some(n),
            _ => None,
        }
    }

    /// `n` bytes of such a body went another way.
    pub fn passed(&mut self, n: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(n);
        }
    }

    /// The connection has ended.
    pub fn eof(&mut self) -> Result<(), BodyError> {
        match self.state {
            State::UntilClose | State::End | State::Length(0) => {
                self.state = State::End;
                Ok(())
            }
            _ => Err(BodyError::Truncated),
        }
    }

    /// Takes the next part off the front of `buf`.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Step, BodyError> {
        loop {
            match self.state {
                State::End => return Ok(Step::End(None)),
                State::Length(0) => self.state = State::End,
                State::Length(ref mut n) | State::Chunk(ref mut n) if *n > 0 => {
                    if buf.is_empty() {
                        return Ok(Step::More);
                    }
                    let take = usize::try_from(*n).unwrap_or(usize::MAX).min(buf.len());
                    *n -= take as u64;
                    return Ok(Step::Data(buf.split_to(take).freeze()));
                }
                State::Length(_) => return Ok(Step::More),
                State::Chunk(_) => self.state = State::ChunkEnd,
                State::UntilClose => {
                    if buf.is_empty() {
                        return Ok(Step::More);
                    }
                    return Ok(Step::Data(buf.split().freeze()));
                }
                State::ChunkSize => {
                    let Some(size) = self.chunk_size(buf)? else {
                        return Ok(Step::More);
                    };
                    self.state = if size == 0 {
                        State::Trailers(0)
                    } else {
                        State::Chunk(size)
                    };
                }
                State::ChunkEnd => match buf.get(..2) {
                    Some(b"\r\n") => {
                        buf.advance(2);
                        self.state = State::ChunkSize;
                    }
                    None if buf.is_empty() || buf[0] == b'\r' => return Ok(Step::More),
                    _ => return Err(BodyError::ChunkEnd),
                },
                State::Trailers(scanned) => {
                    let Some(len) = trailers_len(buf, scanned)? else {
                        self.state = State::Trailers(buf.len());
                        return Ok(Step::More);
                    };
                    let block = buf.split_to(len).freeze();
                    self.state = State::End;
                    return Ok(Step::End(trailers(&block)?));
                }
            }
        }
    }

    /// Reads `hex [";" extension] CRLF`.
    fn chunk_size(&mut self, buf: &mut BytesMut) -> Result<Option<u64>, BodyError> {
        let digits = buf
            .iter()
            .take(MAX_SIZE_DIGITS + 1)
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
        if digits > MAX_SIZE_DIGITS {
            return Err(BodyError::ChunkSize);
        }
        match buf.get(digits) {
            // Optional whitespace is allowed before `;` (RFC 9112 section 7.1.1) and nowhere else.
            Some(b'\r' | b';' | b' ' | b'\t') if digits > 0 => {}
            None => return Ok(None),
            _ => return Err(BodyError::ChunkSize),
        }
        let found = memchr::memchr(b'\n', buf);
        // The same for a line that has come whole and for one that comes bit by bit; one byte more is its CR.
        let end = found.unwrap_or(buf.len());
        if self.extensions + (end - digits) > MAX_EXTENSIONS + 1 {
            return Err(BodyError::TooLarge);
        }
        if found.is_none() {
            return Ok(None);
        }
        let line = &buf[..end];
        let Some(extension) = line[digits..].strip_suffix(b"\r") else {
            return Err(BodyError::ChunkEnd);
        };
        let begins = extension.trim_ascii_start();
        let clean = extension.iter().all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f));
        if !(extension.is_empty() || begins.starts_with(b";")) || !clean {
            return Err(BodyError::ChunkSize);
        }
        self.extensions += extension.len();
        let size = line[..digits]
            .iter()
            .fold(0u64, |n, b| n << 4 | u64::from((*b as char).to_digit(16).unwrap_or(0)));
        if size > u64::MAX >> 1 {
            return Err(BodyError::ChunkSize);
        }
        buf.advance(end + 1);
        Ok(Some(size))
    }
}

/// Length of the trailer section with its closing empty line.
fn trailers_len(buf: &[u8], scanned: usize) -> Result<Option<usize>, BodyError> {
    for i in memchr::memchr_iter(b'\n', &buf[scanned.min(buf.len())..]) {
        let at = scanned + i;
        if at > MAX_TRAILERS {
            return Err(BodyError::TooLarge);
        }
        if at == 0 || buf[at - 1] != b'\r' {
            return Err(BodyError::ChunkEnd);
        }
        if at == 1 || (at >= 3 && buf[at - 3..at] == *b"\r\n\r") {
            return if at < MAX_TRAILERS {
                Ok(Some(at + 1))
            } else {
                Err(BodyError::TooLarge)
            };
        }
    }
    if buf.len() > MAX_TRAILERS {
        Err(BodyError::TooLarge)
    } else {
        Ok(None)
    }
}

/// The trailers that may be passed on.
fn trailers(block: &Bytes) -> Result<Option<HeaderMap>, BodyError> {
    if block.len() == 2 {
        return Ok(None);
    }
    super::head::check_breaks(block).map_err(|_| BodyError::Trailer)?;
    let mut room = [httparse::EMPTY_HEADER; MAX_TRAILER_FIELDS];
    let fields = match httparse::parse_headers(block, &mut room) {
        Ok(httparse::Status::Complete((n, fields))) if n == block.len() => fields,
        _ => return Err(BodyError::Trailer),
    };
    let mut map = HeaderMap::with_capacity(fields.len());
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| BodyError::Trailer)?;
        let value = HeaderValue::from_maybe_shared(block.slice_ref(field.value)).map_err(|_| BodyError::Trailer)?;
        if !field.name.contains('_') && is_allowed_trailer(&name) {
            map.append(name, value);
        }
    }
    Ok((!map.is_empty()).then_some(map))
}

/// Fields that frame, route, authenticate or describe the content have no place after it (RFC 9110 section 6.5.1).
pub fn is_allowed_trailer(name: &HeaderName) -> bool {
    const FAMILIES: [&str; 4] = ["content-", "proxy-", "x-forwarded-", "if-"];
    let text = name.as_str();
    !FAMILIES.iter().any(|family| text.starts_with(family)) && !NEVER_TRAILERS.contains(name)
}

const NEVER_TRAILERS: [HeaderName; 24] = [
    HeaderName::from_static("keep-alive"),
    header::TRANSFER_ENCODING,
    header::CONNECTION,
    header::HOST,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::SET_COOKIE,
    header::COOKIE,
    header::EXPECT,
    header::RANGE,
    header::FORWARDED,
    header::CACHE_CONTROL,
    header::VIA,
    header::AGE,
    header::EXPIRES,
    header::DATE,
    header::LOCATION,
    header::VARY,
    header::WWW_AUTHENTICATE,
    header::MAX_FORWARDS,
    header::PRAGMA,
    header::RETRY_AFTER,
];

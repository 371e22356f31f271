//! What request and response heads share: finding their end, limits, fields.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};

use crate::fields::Found;

/// What a head may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The whole head, in bytes.
    pub max_head: usize,
    /// The request-target, in bytes.
    pub max_target: usize,
    /// Number of fields.
    pub max_headers: usize,
}

/// Remembers how far the search for a head's end went, so that bytes are looked at once however slowly
/// they come. Reset (`default()`) for every head.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadSearch {
    scanned: usize,
    /// Complete lines so far.
    lines: usize,
    /// An empty line before the head has been left out.
    skipped: bool,
}

/// What is wrong with the bytes of a head, whichever kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// A line feed without its carriage return, or the other way round.
    BareLineBreak,
    TooLarge,
    TooManyFields,
    FieldName,
    FieldValue,
    StartLine,
    Version,
}

impl HeadSearch {
    /// Length of the head at the front of `buf` with its closing empty line; `None`: more bytes are needed.
    pub(super) fn end(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<usize>, HeadError> {
        for i in memchr::memchr_iter(b'\n', buf.get(self.scanned..).unwrap_or_default()) {
            let at = self.scanned + i;
            if at == 0 || buf[at - 1] != b'\r' {
                // Had the bytes come one by one, the limit would have been reached first.
                return Err(if at >= limits.max_head {
                    HeadError::TooLarge
                } else {
                    HeadError::BareLineBreak
                });
            }
            self.lines += 1;
            if at >= 3 && buf[at - 3..at] == *b"\r\n\r" {
                if at + 1 > limits.max_head {
                    return Err(HeadError::TooLarge);
                }
                // Every line feed has its carriage return before it: as many of these are no more than those.
                let head = &buf[..=at];
                if memchr::memchr_iter(b'\r', head).count() != self.lines {
                    return Err(HeadError::BareLineBreak);
                }
                return Ok(Some(head.len()));
            }
        }
        self.scanned = buf.len();
        if buf.len() > limits.max_head {
            return Err(HeadError::TooLarge);
        }
        Ok(None)
    }

    /// For a head that an empty line stood before.
    pub(super) fn after_empty_line() -> Self {
        Self {
            skipped: true,
            ..Self::default()
        }
    }

    /// Nothing has been looked at yet.
    pub(super) fn is_new(&self) -> bool {
        self.scanned == 0 && !self.skipped
    }

    pub(super) fn skipped_line(&self) -> bool {
        self.skipped
    }

    /// The first line is not complete yet.
    pub(super) fn in_first_line(&self) -> bool {
        self.lines == 0
    }
}

/// Fields on the stack for usual heads; a listener may allow more, which then costs an allocation.
const USUAL: usize = 256;

/// Runs `parse` with room for as many fields as the limits allow.
#[inline(always)]
pub(super) fn with_room<T>(
    limits: &Limits,
    parse: impl FnOnce(&mut [MaybeUninit<httparse::Header<'static>>]) -> T,
) -> T {
    if limits.max_headers <= USUAL {
        let mut room = [const { MaybeUninit::uninit() }; USUAL];
        parse(&mut room[..limits.max_headers])
    } else {
        parse(&mut vec![MaybeUninit::uninit(); limits.max_headers])
    }
}

/// Bytes no line of a head may hold besides its end: httparse lets none of them into fields, this catches
/// a carriage return that does not end a line.
pub(super) fn check_breaks(head: &[u8]) -> Result<(), HeadError> {
    if memchr::memchr_iter(b'\r', head).all(|i| head.get(i + 1) == Some(&b'\n')) {
        Ok(())
    } else {
        Err(HeadError::BareLineBreak)
    }
}

/// Where the fields stand that httparse found in `head`.
pub(super) fn fields(head: &[u8], parsed: &[httparse::Header<'_>]) -> Result<Found, HeadError> {
    // `x_y` beside `x-y` are one variable in CGI and its heirs: a client could pass a field off as ours.
    let suspect = memchr::memchr(b'_', head).is_some();
    let mut found = Found::with_capacity(parsed.len());
    for field in parsed {
        if suspect && field.name.contains('_') {
            return Err(HeadError::FieldName);
        }
        let (name, value) = (place(head, field.name.as_bytes()), place(head, field.value));
        found.add(head, name, value).map_err(|_| HeadError::TooLarge)?;
    }
    Ok(found)
}

/// Where `part` stands in the head it was found in.
pub(super) fn place(head: &[u8], part: &[u8]) -> std::ops::Range<usize> {
    let at = part.as_ptr().addr().wrapping_sub(head.as_ptr().addr());
    at..at.wrapping_add(part.len())
}

/// httparse's reasons as ours.
pub(super) fn reason(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::HeaderName => HeadError::FieldName,
        httparse::Error::HeaderValue => HeadError::FieldValue,
        httparse::Error::NewLine => HeadError::BareLineBreak,
        httparse::Error::TooManyHeaders => HeadError::TooManyFields,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Status | httparse::Error::Token => HeadError::StartLine,
    }
}

/// Splits the head off the front of `buf`.
pub(super) fn take(buf: &mut BytesMut, len: usize) -> Bytes {
    if len == buf.len() {
        // Nothing follows: the buffer itself becomes the head, without a count of who shares it.
        return std::mem::take(buf).freeze();
    }
    buf.split_to(len).freeze()
}

impl HeadError {
    /// A few words for logs and error pages.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BareLineBreak => "a line does not end in CRLF",
            Self::TooLarge => "head too large",
            Self::TooManyFields => "too many fields",
            Self::FieldName => "invalid field name",
            Self::FieldValue => "invalid field value",
            Self::StartLine => "invalid first line",
            Self::Version => "unknown HTTP version",
        }
    }
}

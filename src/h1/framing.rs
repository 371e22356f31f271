//! How long a body is (RFC 9112 section 6), from fields that allow one reading only.

use crate::fields::{Fields, Known};

/// Where a body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    /// In bytes.
    Length(u64),
    Chunked,
    /// Responses alone.
    UntilClose,
}

/// Why the framing fields allow more than one reading, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FramingError {
    /// Content-Length and Transfer-Encoding together.
    Both,
    ContentLength,
    /// Transfer-Encoding is not exactly `chunked`.
    TransferEncoding,
    /// A coding that is not ours to undo.
    UnknownCoding,
}

impl FramingError {
    /// A few words for logs and error pages.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Both => "Content-Length and Transfer-Encoding together",
            Self::ContentLength => "invalid Content-Length",
            Self::TransferEncoding => "invalid Transfer-Encoding",
            Self::UnknownCoding => "unknown transfer coding",
        }
    }
}

/// What the framing fields say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declared {
    Nothing,
    Length {
        bytes: u64,
        /// Several times, always the same.
        repeated: bool,
    },
    Chunked,
}

/// Reads Content-Length and Transfer-Encoding.
pub fn declared(fields: &Fields) -> Result<Declared, FramingError> {
    let length = one_length(fields)?;
    let mut codings = fields.all(Known::TransferEncoding);
    let Some(first) = codings.next() else {
        return Ok(length);
    };
    if length != Declared::Nothing {
        return Err(FramingError::Both);
    }
    let known = |v: &str| {
        [
            "gzip",
            "x-gzip",
            "deflate",
            "compress",
            "x-compress",
            "identity",
            "chunked",
        ]
        .iter()
        .any(|k| v.eq_ignore_ascii_case(k))
    };
    match std::str::from_utf8(first) {
        Ok(value) if codings.next().is_none() => {
            if value.eq_ignore_ascii_case("chunked") {
                Ok(Declared::Chunked)
            } else if !value.is_empty()
                && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !known(value)
            {
                Err(FramingError::UnknownCoding)
            } else {
                Err(FramingError::TransferEncoding)
            }
        }
        _ => Err(FramingError::TransferEncoding),
    }
}

/// The one length that all Content-Length fields and their list members agree on.
pub fn content_length(fields: &Fields) -> Result<Option<u64>, FramingError> {
    Ok(match one_length(fields)? {
        Declared::Length { bytes, .. } => Some(bytes),
        _ => None,
    })
}

#[inline(always)]
fn one_length(fields: &Fields) -> Result<Declared, FramingError> {
    let mut values = fields.all(Known::ContentLength);
    if let (Some(value), None) = (values.next(), values.next())
        && let Some(bytes) = digits(value)
    {
        return Ok(Declared::Length { bytes, repeated: false });
    }
    let mut length = None;
    let mut repeated = false;
    for value in fields.all(Known::ContentLength) {
        for part in value.split(|b| *b == b',') {
            let n = digits(part.trim_ascii()).ok_or(FramingError::ContentLength)?;
            if length.is_some_and(|l| l != n) {
                return Err(FramingError::ContentLength);
            }
            repeated |= length.is_some();
            length = Some(n);
        }
    }
    Ok(length.map_or(Declared::Nothing, |bytes| Declared::Length { bytes, repeated }))
}

/// At most 18 digits: no overflow, and beyond any body there is.
fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 18 {
        return None;
    }
    text.iter().try_fold(0u64, |n, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| n * 10 + u64::from(digit))
    })
}

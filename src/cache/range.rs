//! Ranges of a stored body (RFC 9110 section 14): which are asked for, and a body that is made of several.

use bytes::Bytes;

use super::key::Key;
use crate::fields::{Fields, Known};

/// More than this of one request are an attack on whoever serves them: it gets the whole.
const MAX_RANGES: usize = 32;

/// Bytes of Range, and of If-Range, of requests that wait for each other; longer ones are nobody else's.
const MAX_FIELD: usize = 128;
/// What is known to be no larger is fetched whole by the range that misses: it costs an endpoint one answer instead of many.
const SMALL: u64 = 1 << 20;

/// First and last byte.
pub type Span = (u64, u64);

/// How a range of what is not stored is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Misses {
    /// As a range, until a part that is stored tells that the whole is small.
    #[default]
    Auto,
    /// The whole always, of which each gets the range it asked for.
    Whole,
    /// Always as a range.
    Part,
}

impl Misses {
    /// Whether the whole is fetched. `length`: of that, in bytes, where it is known; `most`: what is stored at all.
    pub fn takes_whole(self, length: Option<u64>, most: u64) -> bool {
        match self {
            Self::Auto => length.is_some_and(|length| length <= SMALL.min(most)),
            Self::Whole => length.is_none_or(|length| length <= most),
            Self::Part => false,
        }
    }
}

/// What requests for the same range of `key` have in common, while it is fetched. `None`: too much for a key.
pub fn shared(key: &Key, request: &Fields) -> Option<Key> {
    let mut shared = key.clone();
    for known in [Known::Range, Known::IfRange] {
        let mut lines = request.all(known);
        let line = lines.next().unwrap_or_default().trim_ascii();
        if line.len() > MAX_FIELD || lines.next().is_some() {
            return None;
        }
        // No value has one; a variant's key has another byte behind its first.
        shared.text.extend_from_slice(b"\n\n");
        shared.text.extend_from_slice(line);
    }
    Some(shared)
}

/// What a Range field asks of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// Nothing that could be understood.
    Whole,
    /// Nothing of it exists: 416.
    Unsatisfiable,
    Spans(Vec<Span>),
}

/// Reads Range for a body of `length` bytes.
pub fn asked(request: &Fields, length: u64) -> Asked {
    let mut lines = request.all(Known::Range);
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return Asked::Whole;
    };
    read(line, length).unwrap_or(Asked::Whole)
}

fn read(line: &[u8], length: u64) -> Option<Asked> {
    let text = std::str::from_utf8(line).ok()?.trim();
    let (unit, set) = text.split_once('=')?;
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    let mut spans: Vec<Span> = Vec::new();
    let mut count = 0;
    for spec in set.split(',').map(str::trim).filter(|spec| !spec.is_empty()) {
        count += 1;
        if count > MAX_RANGES {
            return None;
        }
        let (first, last) = spec.split_once('-')?;
        let span = match (number(first), number(last)) {
            (Some(first), None) if last.is_empty() => (first, u64::MAX),
            (Some(first), Some(last)) if first <= last => (first, last),
            (None, Some(suffix)) if first.is_empty() => match suffix {
                0 => continue,
                n => (length.saturating_sub(n), u64::MAX),
            },
            _ => return None,
        };
        if span.0 < length {
            spans.push((span.0, span.1.min(length - 1)));
        }
    }
    if count == 0 {
        return None;
    }
    if spans.is_empty() {
        return Some(Asked::Unsatisfiable);
    }
    Some(Asked::Spans(coalesced(spans)))
}

/// Digits alone; what is too large is as large as can be.
fn number(text: &str) -> Option<u64> {
    let valid = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    valid.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Those that overlap or touch become one (RFC 9110 section 14.2), so that no byte is sent twice.
fn coalesced(spans: Vec<Span>) -> Vec<Span> {
    let mut ordered = spans.clone();
    ordered.sort_unstable();
    let mut joined: Vec<Span> = Vec::with_capacity(ordered.len());
    for (first, last) in ordered {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    // In the order they were asked for, when nothing had to be joined.
    if joined.len() == spans.len() { spans } else { joined }
}

/// The bytes `span` of `chunks`, of which the first byte is byte `offset` of the body.
pub fn cut(chunks: &[Bytes], offset: u64, span: Span, out: &mut Vec<Bytes>) {
    let mut at = offset;
    for chunk in chunks {
        let end = at + chunk.len() as u64;
        let (first, after) = (span.0.max(at), span.1.saturating_add(1).min(end));
        if first < after {
            out.push(chunk.slice((first - at) as usize..(after - at) as usize));
        }
        at = end;
    }
}

/// `bytes 0-4/10`
pub fn content_range(span: Span, length: u64) -> String {
    format!("bytes {}-{}/{length}", span.0, span.1)
}

/// Reads `bytes 0-4/10`; `None` also where the length is not told.
pub fn read_content_range(value: &[u8]) -> Option<(Span, u64)> {
    let text = std::str::from_utf8(value).ok()?;
    let rest = text.trim().strip_prefix("bytes ")?;
    let (span, length) = rest.split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last, length) = (number(first)?, number(last)?, number(length)?);
    (first <= last && last < length).then_some(((first, last), length))
}

/// A body of several ranges, and the length of it (RFC 9110 section 15.3.7.2).
pub fn multipart(
    chunks: &[Bytes],
    offset: u64,
    spans: &[Span],
    length: u64,
    content_type: Option<&[u8]>,
    boundary: &str,
) -> (Vec<Bytes>, u64) {
    let mut pieces = Vec::new();
    for span in spans {
        let mut head = format!("\r\n--{boundary}\r\n").into_bytes();
        if let Some(kind) = content_type {
            head.extend_from_slice(b"content-type: ");
            head.extend_from_slice(kind);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("content-range: {}\r\n\r\n", content_range(*span, length)).as_bytes());
        pieces.push(Bytes::from(head));
        cut(chunks, offset, *span, &mut pieces);
    }
    pieces.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));
    let total = pieces.iter().map(|piece| piece.len() as u64).sum();
    (pieces, total)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str, length: u64) -> Asked {
        let mut map = HeaderMap::new();
        map.append("range", HeaderValue::from_str(text).unwrap());
        asked(&Fields::from(&map), length)
    }

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let spans = |list: &[Span]| Asked::Spans(list.to_vec());
        for (text, found) in [
            ("bytes=0-1", spans(&[(0, 1)])),
            ("Bytes=5-", spans(&[(5, 9)])),
            ("bytes=-3", spans(&[(7, 9)])),
            ("bytes=-30", spans(&[(0, 9)])),
            ("bytes=8-99999999999999999999999", spans(&[(8, 9)])),
            ("bytes=0-0, 9-9", spans(&[(0, 0), (9, 9)])),
            ("bytes=9-9,0-0", spans(&[(9, 9), (0, 0)])),
            ("bytes=0-5, 3-7,,-1", spans(&[(0, 7), (9, 9)])),
            ("bytes=0-1,2-3", spans(&[(0, 3)])),
            ("bytes=0-1, 50-", spans(&[(0, 1)])),
            ("bytes=10-", Asked::Unsatisfiable),
            ("bytes=-0", Asked::Unsatisfiable),
            ("bytes=5-4", Asked::Whole),
            ("bytes=", Asked::Whole),
            ("bytes=a-b", Asked::Whole),
            ("bytes=--1", Asked::Whole),
            ("bytes=1", Asked::Whole),
            ("items=0-1", Asked::Whole),
            ("bytes 0-1", Asked::Whole),
        ] {
            assert_eq!(of(text, 10), found, "{text}");
        }
        assert_eq!(of("bytes=0-", 0), Asked::Unsatisfiable);
        let thousand = format!("bytes={}", vec!["0-0"; 1000].join(","));
        assert_eq!(of(&thousand, 10), Asked::Whole);
    }

    #[test]
    fn content_ranges() {
        assert_eq!(read_content_range(b"bytes 4-9/10"), Some(((4, 9), 10)));
        for bad in [
            "bytes 4-10/10",
            "bytes 5-4/10",
            "bytes 0-1/*",
            "bytes */10",
            "items 0-1/2",
            "0-1/2",
        ] {
            assert_eq!(read_content_range(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn the_whole_is_fetched_where_that_is_allowed_or_known_to_be_small() {
        let all = [Misses::Auto, Misses::Whole, Misses::Part];
        for (length, most, expected) in [
            (None, 10 << 20, [false, true, false]),
            (Some(SMALL), 10 << 20, [true, true, false]),
            (Some(SMALL + 1), 10 << 20, [false, true, false]),
            (Some(1000), 999, [false, false, false]),
        ] {
            assert_eq!(
                all.map(|misses| misses.takes_whole(length, most)),
                expected,
                "{length:?}"
            );
        }
    }

    #[test]
    fn only_the_same_range_under_the_same_condition_is_waited_for() {
        let key = Key::of(false, "a", b"a", "/", None).unwrap();
        let of = |lines: &[(&'static str, &str)]| {
            let mut fields = Fields::default();
            for (name, value) in lines {
                fields.append_text(name, value.as_bytes());
            }
            shared(&key, &fields)
        };
        let one = of(&[("range", "bytes=0-1")]).unwrap();
        assert_eq!(
            (one.primary(), of(&[("range", " bytes=0-1 ")]).as_ref()),
            (key.primary(), Some(&one))
        );
        assert_ne!(of(&[("range", "bytes=0-2")]).unwrap(), one);
        assert_ne!(of(&[("range", "bytes=0-1"), ("if-range", "\"a\"")]).unwrap(), one);
        assert_eq!(of(&[("range", "bytes=0-1"), ("range", "bytes=0-1")]), None);
        assert_eq!(of(&[("range", &"0".repeat(MAX_FIELD + 1))]), None);
    }

    #[test]
    fn several_ranges_are_parts() {
        let chunks = [Bytes::from_static(b"01234"), Bytes::from_static(b"56789")];
        let (pieces, length) = multipart(&chunks, 0, &[(0, 0), (4, 5)], 10, Some(b"text/plain"), "B");
        let text = pieces.concat();
        assert_eq!(text.len() as u64, length);
        assert_eq!(
            String::from_utf8(text).unwrap(),
            "\r\n--B\r\ncontent-type: text/plain\r\ncontent-range: bytes 0-0/10\r\n\r\n0\
             \r\n--B\r\ncontent-type: text/plain\r\ncontent-range: bytes 4-5/10\r\n\r\n45\r\n--B--\r\n"
        );
    }

    proptest! {
        #[test]
        fn cuts_are_what_was_asked(sizes in prop::collection::vec(0usize..5, 1..6), offset in 0u64..5, a in 0u64..30, n in 0u64..30) {
            let total: usize = sizes.iter().sum();
            let data: Vec<u8> = (0..total as u8).collect();
            let mut at = 0;
            let chunks: Vec<Bytes> = sizes.iter().map(|n| { at += n; Bytes::copy_from_slice(&data[at - n..at]) }).collect();
            let mut out = Vec::new();
            cut(&chunks, offset, (a, a + n), &mut out);
            let expected: Vec<u8> = (a..=a + n)
                .filter(|i| *i >= offset && *i < offset + total as u64)
                .map(|i| (i - offset) as u8)
                .collect();
            prop_assert_eq!(out.concat(), expected);
        }

        #[test]
        fn nothing_makes_it_panic(text in "(bytes=)?[0-9, -]{0,40}", length in any::<u64>()) {
            if let Asked::Spans(spans) = of(&text, length) {
                prop_assert!(spans.iter().all(|(first, last)| first <= last && *last < length));
            }
        }
    }
}

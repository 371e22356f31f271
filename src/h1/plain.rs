//! The usual head, read in one pass: what nearly all clients and endpoints send.
//!
//! Nothing is refused here. What is not of this form, complete and within the limits is left to the strict parser,
//! which alone decides whether it is only unusual. So this form is a narrow one: the common methods, a target in origin
//! form, HTTP/1.1, and lines of `name: value` in visible ASCII without an underscore in the name.

use std::ops::Range;

use http::{Method, StatusCode};

use super::head::Limits;
use crate::fields::{Found, Known};

/// Bytes looked at: beyond them no head is usual.
const MOST: usize = 60 * 1024;
/// Likewise for a name.
const LONGEST_NAME: usize = 64;
/// Fields of which the list has room at first.
const FIELDS: usize = 24;

/// A head and where its parts stand.
pub(super) struct Plain<F> {
    pub first: F,
    pub found: Found,
    /// Its length with the closing empty line.
    pub len: usize,
}

/// A request whose whole head stands at the front of `buf`.
#[inline(always)]
pub(super) fn request(buf: &[u8], limits: &Limits) -> Option<Plain<(Method, Range<usize>)>> {
    let buf = buf.get(..buf.len().min(limits.max_head).min(MOST))?;
    let (method, begin) = method(buf)?;
    let text = buf.get(begin..)?;
    if text.first() != Some(&b'/') {
        return None;
    }
    let len = run(text, |word| not_visible(word) | is(word, b'#'));
    let rest = text.get(len..)?.strip_prefix(b" HTTP/1.1\r\n")?;
    if len > limits.max_target {
        return None;
    }
    let (found, len_of_all) = fields(buf, buf.len() - rest.len(), limits.max_headers)?;
    Some(Plain {
        first: (method, begin..begin + len),
        found,
        len: len_of_all,
    })
}

/// A response whose whole head stands at the front of `buf`.
#[inline(always)]
pub(super) fn response(buf: &[u8], limits: &Limits) -> Option<Plain<StatusCode>> {
    let buf = buf.get(..buf.len().min(limits.max_head).min(MOST))?;
    let (status, begin) = if buf.starts_with(b"HTTP/1.1 200 OK\r\n") {
        (StatusCode::OK, 17)
    } else {
        let rest = buf.strip_prefix(b"HTTP/1.1 ")?;
        let (code, rest) = rest.split_at_checked(3)?;
        let reason = rest.strip_prefix(b" ")?;
        let len = run(reason, not_text);
        let rest = reason.get(len..)?.strip_prefix(b"\r\n")?;
        let status = StatusCode::from_bytes(code).ok().filter(|s| s.as_u16() < 600)?;
        (status, buf.len() - rest.len())
    };
    let (found, len) = fields(buf, begin, limits.max_headers)?;
    Some(Plain {
        first: status,
        found,
        len,
    })
}

fn method(buf: &[u8]) -> Option<(Method, usize)> {
    let usual = [
        (&b"GET "[..], Method::GET),
        (b"POST ", Method::POST),
        (b"HEAD ", Method::HEAD),
        (b"PUT ", Method::PUT),
        (b"DELETE ", Method::DELETE),
        (b"PATCH ", Method::PATCH),
        (b"OPTIONS ", Method::OPTIONS),
    ];
    let mut found = usual.into_iter().filter(|(name, _)| buf.starts_with(name));
    found.next().map(|(name, method)| (method, name.len()))
}

/// The fields from `at` to the empty line, and where it ends.
#[inline(always)]
fn fields(head: &[u8], mut at: usize, most: usize) -> Option<(Found, usize)> {
    let mut found = Found::with_capacity(FIELDS);
    loop {
        let line = head.get(at..)?;
        if line.starts_with(b"\r\n") {
            return Some((found, at + 2));
        }
        let name = colon(line)?;
        let known = match Known::at(line, name) {
            Some(known) => known,
            None => Known::of(line.get(..name)?),
        };
        if known == Known::Other && !line.get(..name)?.iter().all(|b| NAME[*b as usize]) {
            return None;
        }
        let value = line.get(name..)?.strip_prefix(b": ")?;
        let len = run(value, not_text);
        let trimmed = value.first() != Some(&b' ') && value.get(..len)?.last().is_some_and(|b| *b != b' ');
        if !trimmed || !value.get(len..)?.starts_with(b"\r\n") || found.len() == most {
            return None;
        }
        found.add_plain(at, name, len, known);
        at += name + 2 + len + 2;
    }
}

/// Letters, digits and `-`: other names are rare enough.
static NAME: [bool; 256] = {
    let mut all = [false; 256];
    let mut b = 0;
    while b < 256 {
        all[b] = (b as u8).is_ascii_alphanumeric() || b as u8 == b'-';
        b += 1;
    }
    all
};

/// Where the first colon stands.
#[inline(always)]
fn colon(line: &[u8]) -> Option<usize> {
    let mut at = 0;
    while at < LONGEST_NAME {
        let marks = is(u64::from_le_bytes(*line.get(at..)?.first_chunk()?), b':');
        if marks != 0 {
            return Some(at + first(marks)).filter(|n| *n > 0);
        }
        at += 8;
    }
    None
}

/// How many bytes stand before the first that `stops` marks, as it does zero.
#[inline(always)]
fn run(bytes: &[u8], stops: impl Fn(u64) -> u64) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (i, word) in words.iter().enumerate() {
        let marks = stops(u64::from_le_bytes(*word));
        if marks != 0 {
            return i * 8 + first(marks);
        }
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let marks = stops(u64::from_le_bytes(last));
    words.len() * 8 + first(marks).min(rest.len())
}

// Eight bytes at once. A mark is the highest bit of a byte; those above the lowest mark may be wrong, as a subtraction
// borrows from there.

const ONES: u64 = u64::from_ne_bytes([1; 8]);
const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);

/// The byte the lowest mark stands in.
fn first(marks: u64) -> usize {
    (marks.trailing_zeros() / 8) as usize
}

fn below(word: u64, byte: u8) -> u64 {
    word.wrapping_sub(ONES * u64::from(byte)) & !word & HIGH
}

fn is(word: u64, byte: u8) -> u64 {
    below(word ^ (ONES * u64::from(byte)), 1)
}

/// Marks what is neither visible ASCII nor a space.
fn not_text(word: u64) -> u64 {
    below(word, b' ') | is(word, 0x7f) | (word & HIGH)
}

/// Marks what is not visible ASCII.
fn not_visible(word: u64) -> u64 {
    below(word, b'!') | is(word, 0x7f) | (word & HIGH)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        max_head: 4096,
        max_target: 64,
        max_headers: 8,
    };

    #[test]
    fn each_byte_is_marked_at_each_place() {
        for byte in 0..=255u8 {
            for place in 0..8 {
                let mut bytes = [b'a'; 8];
                bytes[place] = byte;
                let word = u64::from_le_bytes(bytes);
                let at = |wrong: bool| if wrong { place } else { 8 };
                assert_eq!(run(&bytes, not_text), at(!(0x20..0x7f).contains(&byte)), "{byte}");
                assert_eq!(run(&bytes, not_visible), at(!(0x21..0x7f).contains(&byte)), "{byte}");
                assert_eq!(is(word, b':') != 0, byte == b':');
            }
        }
    }

    #[test]
    fn the_usual_is_read() {
        let head = b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nx-Other: some text\r\n\r\nrest";
        let Plain { first, found, len } = request(head, &LIMITS).unwrap();
        assert_eq!(first, (Method::GET, 4..8));
        assert_eq!(&head[len..len + 4], b"rest");
        let fields = found.within(bytes::Bytes::from_static(head));
        let all: Vec<_> = fields.iter().collect();
        assert_eq!(all, [(&b"Host"[..], &b"a.example"[..]), (b"x-Other", b"some text")]);
        assert_eq!(fields.get(Known::Host), Some(&b"a.example"[..]));

        let head = b"HTTP/1.1 404 Not Found\r\ndate: now\r\n\r\n";
        assert_eq!(response(head, &LIMITS).unwrap().first, StatusCode::NOT_FOUND);
    }

    #[test]
    fn the_rest_is_left() {
        for head in [
            "BREW / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET * HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.0\r\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\nhost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost:a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost:  a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a \r\n\r\n",
            "GET / HTTP/1.1\r\nhost: \r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\rb\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\tb\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: \u{e4}\r\n\r\n",
            "GET / HTTP/1.1\r\nx_y: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhos\rt: a\r\n\r\n",
            "GET / HTTP/1.1\r\n host: a\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: a\r\n",
            "GET /",
            "",
        ] {
            assert!(request(head.as_bytes(), &LIMITS).is_none(), "{head:?}");
        }
        let target = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(64));
        assert!(request(target.as_bytes(), &LIMITS).is_none());
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(9));
        assert!(request(many.as_bytes(), &LIMITS).is_none());
        let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "b".repeat(4096));
        assert!(request(large.as_bytes(), &LIMITS).is_none());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_left(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = request(&bytes, &LIMITS);
            let _ = response(&bytes, &LIMITS);
            let lines = [b"GET / HTTP/1.1\r\n", bytes.as_slice(), b"\r\n\r\n"].concat();
            if let Some(plain) = request(&lines, &LIMITS) {
                prop_assert!(plain.len <= lines.len());
            }
        }
    }
}

//! However the bytes come, the messages and the errors are the same.

use evenkeel::h1::desync::Mode;
use evenkeel::h1::head::Limits;
use proptest::prelude::*;

use crate::corpus::{Rng, Sample, mutated, mutations, requests, responses};
use crate::reading::{End, Kind, LIMITS, Read, SMALL, in_parts, read};

/// One way to read.
#[derive(Clone, Copy)]
enum What {
    Requests(Mode, Limits),
    Responses(Limits),
}

const WAYS: [What; 6] = [
    What::Requests(Mode::Strict, LIMITS),
    What::Requests(Mode::Defensive, LIMITS),
    What::Requests(Mode::Monitor, LIMITS),
    What::Requests(Mode::Strict, SMALL),
    What::Responses(LIMITS),
    What::Responses(SMALL),
];

impl What {
    fn read<'a>(self, parts: impl IntoIterator<Item = &'a [u8]>) -> Read {
        match self {
            Self::Requests(mode, limits) => in_parts(Kind::Requests(mode), limits, parts),
            Self::Responses(limits) => in_parts(Kind::Responses, limits, parts),
        }
    }

    fn samples(self) -> Vec<Sample> {
        match self {
            Self::Requests(..) => requests(),
            Self::Responses(_) => responses(),
        }
    }
}

#[test]
fn byte_by_byte_and_cut_anywhere() {
    for way in WAYS {
        for Sample { name, bytes } in way.samples() {
            let whole = way.read([&bytes[..]]);
            assert_eq!(way.read(bytes.chunks(1)), whole, "{name}, byte by byte");
            for cut in 1..bytes.len() {
                let (front, back) = bytes.split_at(cut);
                assert_eq!(way.read([front, back]), whole, "{name}, cut at {cut}");
            }
        }
    }
}

#[test]
fn mutations_cut_anywhere() {
    for way in WAYS {
        let samples = way.samples();
        for seed in 0..mutations() / 4 {
            let bytes = mutated(&samples, seed);
            let whole = way.read([&bytes[..]]);
            assert_eq!(way.read(bytes.chunks(1)), whole, "{}", bytes.escape_ascii());
            let rng = &mut Rng(seed);
            for _ in 0..4 {
                let mut parts = Vec::new();
                let mut rest = &bytes[..];
                while !rest.is_empty() {
                    let (part, more) = rest.split_at(1 + rng.below(rest.len().min(40)));
                    parts.push(part);
                    rest = more;
                }
                assert_eq!(way.read(parts.iter().copied()), whole, "{}", bytes.escape_ascii());
            }
        }
    }
}

/// Sizes around every limit of the codec itself: chunk extensions, trailers, chunk sizes.
#[test]
fn around_the_limits_of_bodies() {
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for extra in 16_376..16_392 {
        let long = "e".repeat(extra);
        for body in [
            format!("1;{long}\r\nx\r\n0\r\n\r\n"),
            format!("1;{long}\nx\r\n0\r\n\r\n"),
            format!("1;aaa\r\nx\r\n1;{long}\r\nx\r\n0\r\n\r\n"),
            format!("0\r\nX: {long}\r\n\r\n"),
            format!("0\r\nX: {long}\n\r\n"),
            format!("0\r\nX: {long}\r\n\n"),
            format!("0\r\n{}\r\n\r\n", "X: y\r\n".repeat(extra - 16_300)),
        ] {
            let bytes = [head, &body].concat().into_bytes();
            let whole = read(Kind::Requests(Mode::Strict), LIMITS, &bytes);
            for size in [1000, 16_384] {
                let parts = in_parts(Kind::Requests(Mode::Strict), LIMITS, bytes.chunks(size));
                assert_eq!(parts, whole, "{extra}, by {size}");
            }
            let (most, last) = bytes.split_at(bytes.len() - 60);
            let parts = std::iter::once(most).chain(last.chunks(1));
            let parts = in_parts(Kind::Requests(Mode::Strict), LIMITS, parts);
            assert_eq!(parts, whole, "{extra}, the end byte by byte");
        }
    }
}

#[test]
fn around_the_limits_of_heads() {
    let limits = Limits {
        max_head: 200,
        max_target: 100,
        max_headers: 5,
    };
    for n in (80..105).chain(150..205) {
        let long = "x".repeat(n);
        for bytes in [
            format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET /{long} HTTP/1.1\nHost: a\r\n\r\n"),
            format!("GET /{long} HTTP/1.1\r\nHost : a\r\n\r\n"),
            format!("GET /{long}"),
            format!("{long} / HTTP/1.1\r\nHost: a\r\n\r\n"),
            format!("GET  {long} HTTP/1.1\r\nHost: a\r\n\r\n"),
            // Found by fuzzing: both limits are passed, which of them first is what counts.
            format!("{long} {} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(120)),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\n"),
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\ry\r\n\r\n"),
            format!("\r\nGET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        ] {
            let way = |parts| in_parts(Kind::Requests(Mode::Monitor), limits, parts);
            let whole = way(vec![bytes.as_bytes()]);
            assert_eq!(way(bytes.as_bytes().chunks(1).collect()), whole, "{bytes:?}");
            for cut in 1..bytes.len() {
                let (front, back) = bytes.as_bytes().split_at(cut);
                assert_eq!(way(vec![front, back]), whole, "{bytes:?} at {cut}");
            }
        }
    }
}

#[test]
fn a_target_just_short_enough_may_come_in_parts() {
    let limits = Limits { max_target: 6, ..SMALL };
    let bytes = b"GET /12345 HTTP/1.1\r\nHost: a\r\n\r\n";
    for cut in 1..bytes.len() {
        let (front, back) = bytes.split_at(cut);
        let read = in_parts(Kind::Requests(Mode::Strict), limits, [front, back]);
        assert_eq!((read.messages.len(), read.end), (1, End::More), "cut at {cut}");
    }
}

#[test]
fn one_empty_line_and_no_more_however_they_come() {
    for (lines, good) in [(1, true), (2, false), (3, false)] {
        let bytes = ["\r\n".repeat(lines).as_bytes(), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        for size in 1..bytes.len() {
            let read = in_parts(Kind::Requests(Mode::Strict), LIMITS, bytes.chunks(size));
            assert_eq!(read.messages.len() == 1, good, "{lines} by {size}: {read:?}");
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_in_any_parts(
        bytes in proptest::collection::vec(prop_oneof![
            3 => any::<u8>(),
            2 => Just(b'\r'), 3 => Just(b'\n'), 1 => Just(b' '), 1 => Just(b':'), 2 => Just(b'0'),
        ], 1..200),
        sizes in proptest::collection::vec(1usize..30, 1..20),
        front in 0usize..5,
    ) {
        let heads: [&[u8]; 5] = [
            b"",
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n",
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ];
        let bytes = [heads[front], &bytes].concat();
        let mut parts = Vec::new();
        let mut rest = &bytes[..];
        for size in sizes.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (part, more) = rest.split_at((*size).min(rest.len()));
            parts.push(part);
            rest = more;
        }
        for way in WAYS {
            prop_assert_eq!(way.read(parts.iter().copied()), way.read([&bytes[..]]));
        }
    }
}

//! Second readings: what is not strict enough passes in one form, which everybody reads alike, or not at all.

use bytes::BytesMut;
use evenkeel::fields::Known;
use evenkeel::h1::desync::{Class, Mode, Reason, TABLE};
use evenkeel::h1::encode::{self, BodyLength, Connection};
use evenkeel::h1::framing::Framing;
use evenkeel::h1::head::HeadSearch;
use evenkeel::h1::request::{RequestHead, parse};

use crate::corpus::{mutated, mutations, requests};
use crate::reading::{End, Kind, LIMITS, Message, read, request};

fn head(bytes: &[u8], mode: Mode) -> Option<(RequestHead, BytesMut)> {
    let mut buf = BytesMut::from(bytes);
    let head = parse(&mut buf, &mut HeadSearch::default(), &LIMITS, mode).ok()??;
    Some((head, buf))
}

/// As it would be sent on, before fields are added and hop-by-hop ones removed.
fn written(head: &RequestHead) -> BytesMut {
    let mut out = BytesMut::new();
    let length = match head.framing {
        Framing::None => BodyLength::None,
        Framing::Length(n) => BodyLength::Known(n),
        Framing::Chunked | Framing::UntilClose => BodyLength::Chunked,
    };
    let target = head.target.text(&head.fields);
    let mut fields = head.fields.clone();
    if !fields.has(Known::Host) {
        // HTTP/1.0: sent on as 1.1, where it must be there (RFC 9112 section 3.2).
        fields.append(Known::Host, b"a");
    }
    encode::request(&mut out, &head.method, target, &fields, length, Connection::None);
    out
}

/// Without what encoding says by itself.
fn comparable(message: Message) -> Message {
    let ours = ["content-length", "transfer-encoding", "connection", "upgrade"];
    let fields = message.fields.into_iter().filter(|(name, _)| !ours.contains(&&**name));
    Message {
        fields: fields.collect(),
        keep_alive: true,
        upgrade: false,
        deviation: None,
        minor: 1,
        expect_continue: false,
        at: 0,
        ..message
    }
}

fn check(bytes: &[u8]) {
    let shown = bytes.escape_ascii();
    let strict = read(Kind::Requests(Mode::Strict), LIMITS, bytes);
    for message in &strict.messages {
        assert!(
            message.deviation.is_none_or(|r| r.class() == Class::Acceptable),
            "{shown}"
        );
    }
    let mut passed = strict.messages.len();
    for mode in [Mode::Strict, Mode::Defensive, Mode::Monitor] {
        let lenient = read(Kind::Requests(mode), LIMITS, bytes);
        // What is compliant or acceptable is read the same in every mode.
        assert_eq!(lenient.messages[..strict.messages.len()], strict.messages, "{shown}");
        assert!(lenient.messages.len() >= passed, "{mode:?} passes less: {shown}");
        passed = lenient.messages.len();
        let more = lenient.messages.iter().skip(strict.messages.len());
        for message in more.chain(&lenient.cut) {
            let reason = message.deviation;
            assert!(
                reason.is_none_or(|r| r.passes(mode)) || lenient.cut.is_some(),
                "{shown}"
            );
            if reason.is_some_and(Reason::closes) {
                assert!(!message.keep_alive && !message.upgrade, "{mode:?}: {shown}");
            }
        }
        // Nothing is read behind a request that had to be mended.
        if lenient
            .messages
            .last()
            .and_then(|m| m.deviation)
            .is_some_and(Reason::closes)
        {
            assert_eq!(lenient.end, End::Closed, "{shown}");
        }
        if let End::Refused(_, Some(reason)) = lenient.end {
            assert!(!reason.passes(mode) || reason.closes(), "{mode:?} {reason:?}: {shown}");
        }
        let Some((head, rest)) = head(bytes, mode) else {
            continue;
        };
        // Sent on, it is compliant, and says the same.
        let again = written(&head);
        let (second, left) = self::head(&again, Mode::Strict).unwrap_or_else(|| panic!("{}", again.escape_ascii()));
        assert!(left.is_empty());
        assert_eq!(second.framing, head.framing, "{shown}");
        let acceptable = second.deviation.is_none_or(|r| r == Reason::GetWithContent);
        assert!(acceptable, "{:?}: {}", second.deviation, again.escape_ascii());
        if head.version == http::Version::HTTP_11 {
            assert_eq!(comparable(request(&second)), comparable(request(&head)), "{shown}");
        }
        assert!(bytes.ends_with(&rest), "what follows is touched: {shown}");
    }
}

#[test]
fn whatever_passes_has_one_reading() {
    let samples = requests();
    samples.iter().for_each(|sample| check(&sample.bytes));
    for seed in 0..mutations() * 4 {
        check(&mutated(&samples, seed));
    }
}

/// Every reason is found in the corpus or its mutations, so that no row of the table is only words.
#[test]
fn every_reason_occurs() {
    let samples = requests();
    let mut missing: Vec<Reason> = TABLE.iter().map(|row| row.reason).collect();
    let corpus = samples.iter().map(|s| s.bytes.clone());
    for bytes in corpus.chain((0..mutations()).map(|seed| mutated(&samples, seed))) {
        let read = read(Kind::Requests(Mode::Strict), LIMITS, &bytes);
        let found = read.messages.iter().filter_map(|m| m.deviation);
        let refused = match read.end {
            End::Refused(_, reason) => reason,
            _ => None,
        };
        for reason in found.chain(refused) {
            missing.retain(|r| *r != reason);
        }
    }
    assert_eq!(missing, []);
}

#[test]
fn readings() {
    let host = "Host: a\r\n";
    // (what is sent, reason, from which mode on it passes, what is sent on)
    let cases = [
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(),
            Reason::BothFramings,
            Some(Mode::Defensive),
            "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}X: a\r\n\t b\r\n  c \r\nY: z\r\n\r\n"),
            Reason::FoldedField,
            Some(Mode::Defensive),
            "GET / HTTP/1.1\r\nHost: a\r\nX: a b c\r\nY: z\r\n\r\n",
        ),
        (
            format!("GET / HTTP/1.1\r\nX_Y: 1\r\n{host}_: 2\r\nX-Y: 3\r\n\r\n"),
            Reason::Underscore,
            Some(Mode::Defensive),
            "GET / HTTP/1.1\r\nHost: a\r\nX-Y: 3\r\n\r\n",
        ),
        (
            "GET http://B:1/x HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
            Reason::HostMismatch,
            Some(Mode::Defensive),
            "GET /x HTTP/1.1\r\nhost: B:1\r\n\r\n",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}X: y\r\nhost:A\r\n\r\n"),
            Reason::RepeatedHost,
            Some(Mode::Monitor),
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}X \t: y\r\n\r\n"),
            Reason::BlankBeforeColon,
            Some(Mode::Monitor),
            "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n",
        ),
        (
            // Several at once: the gravest counts, and all are mended.
            format!(
                "POST http://b/ HTTP/1.1\r\n{host}X_Y: 1\r\nX : 2\r\n 3\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
            ),
            Reason::BlankBeforeColon,
            Some(Mode::Monitor),
            "POST / HTTP/1.1\r\nX: 2 3\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}X_Y: 1\r\nContent-Length: +1\r\n\r\n"),
            Reason::Underscore,
            None,
            "",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}Content_Length: 1\r\n\r\n"),
            Reason::DisguisedField,
            None,
            "",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}Content-Length : 1\r\n\r\n"),
            Reason::DisguisedField,
            None,
            "",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}Transfer_Encoding : chunked\r\n\r\n"),
            Reason::DisguisedField,
            None,
            "",
        ),
        (
            format!("GET / HTTP/1.1\r\n X: y\r\n{host}\r\n"),
            Reason::MisplacedFold,
            None,
            "",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}X: y\r\n \t\r\n\r\n"),
            Reason::MisplacedFold,
            None,
            "",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n".to_owned(),
            Reason::MisplacedFold,
            None,
            "",
        ),
        (
            format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding:\r\n chunked\r\n\r\n"),
            Reason::MisplacedFold,
            None,
            "",
        ),
        (
            format!("GET / HTTP/1.1\r\n{host}X: y\r\nz\r\n\r\n"),
            Reason::FieldName,
            None,
            "",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(),
            Reason::Host,
            None,
            "",
        ),
        (
            format!("POST / HTTP/1.0\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Reason::BothFramings,
            None,
            "",
        ),
    ];
    for (bytes, reason, from, sent) in cases {
        let mut passing = false;
        for mode in [Mode::Strict, Mode::Defensive, Mode::Monitor] {
            passing |= Some(mode) == from;
            let mut buf = BytesMut::from(&*bytes);
            match parse(&mut buf, &mut HeadSearch::default(), &LIMITS, mode) {
                Ok(Some(head)) => {
                    assert!(passing, "{mode:?}: {bytes:?}");
                    assert_eq!(head.deviation, Some(reason), "{bytes:?}");
                    assert!(!head.keep_alive);
                    assert_eq!(
                        written(&head).escape_ascii().to_string(),
                        sent.escape_default().to_string()
                    );
                }
                Ok(None) => panic!("{bytes:?}"),
                Err(refused) => {
                    assert!(!passing, "{mode:?}: {bytes:?}: {refused:?}");
                    // A mode that goes on finds more.
                    let found = refused.reason.unwrap();
                    assert!(
                        found == reason || found.class() > reason.class() || mode == Mode::Strict,
                        "{bytes:?}: {refused:?}"
                    );
                }
            }
        }
    }
}

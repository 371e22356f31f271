//! Request heads in every mode: the same however the bytes come, and what passes is compliant when it is sent on.
#![no_main]

use bytes::BytesMut;
use evenkeel::fields::{Fields, Known};
use evenkeel::h1::desync::{Class, Mode, Reason};
use evenkeel::h1::encode::{self, BodyLength, Connection};
use evenkeel::h1::framing::Framing;
use evenkeel::h1::head::{HeadSearch, Limits};
use evenkeel::h1::request::{Refused, RequestHead, parse};
use evenkeel_fuzz::{in_parts, limits, list};

type Outcome = Option<Result<RequestHead, Refused>>;

fn read(bytes: &[u8], size: usize, limits: &Limits, mode: Mode) -> (Outcome, usize) {
    let mut search = HeadSearch::default();
    in_parts(bytes, size, |buf| parse(buf, &mut search, limits, mode).transpose())
}

/// What must not depend on how the bytes come.
fn shown(outcome: &Outcome) -> String {
    match outcome {
        None => "more".into(),
        Some(Err(refused)) => format!("{refused:?}"),
        Some(Ok(head)) => format!("{head:?}"),
    }
}

fn written(head: &RequestHead) -> Vec<u8> {
    let length = match head.framing {
        Framing::None => BodyLength::None,
        Framing::Length(n) => BodyLength::Known(n),
        Framing::Chunked => BodyLength::Chunked,
        Framing::UntilClose => panic!("no request ends with its connection"),
    };
    let mut fields = head.fields.clone();
    if !fields.has(Known::Host) {
        assert_eq!(head.version, http::Version::HTTP_10);
        fields.append(Known::Host, b"a");
    }
    let mut out = BytesMut::new();
    let target = head.target.text(&head.fields);
    encode::request(&mut out, &head.method, target, &fields, length, Connection::None);
    out.to_vec()
}

/// Without what encoding says by itself, and Host, which an old request need not have.
fn others(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = list(fields);
    let ours: [&[u8]; 5] = [
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"upgrade",
        b"host",
    ];
    list.retain(|(name, _)| !ours.contains(&&name[..]));
    list
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let limits = limits(choice & 4 != 0);
    let mode = [Mode::Strict, Mode::Defensive, Mode::Monitor, Mode::Strict][usize::from(choice & 3)];
    let size = usize::from(choice >> 3) + 1;
    let (whole, taken) = read(bytes, bytes.len().max(1), &limits, mode);
    let (parts, taken_in_parts) = read(bytes, size, &limits, mode);
    assert_eq!(shown(&whole), shown(&parts));
    let (strict, _) = read(bytes, bytes.len().max(1), &limits, Mode::Strict);
    let Some(Ok(head)) = whole else {
        assert!(!matches!(strict, Some(Ok(_))), "a lenient mode refuses more");
        return;
    };
    assert_eq!(taken, taken_in_parts);
    assert!(taken <= limits.max_head + 2);
    match &strict {
        Some(Ok(strict)) => {
            assert_eq!(format!("{strict:?}"), format!("{head:?}"));
            assert!(head.deviation.is_none_or(|r| r.class() == Class::Acceptable));
        }
        Some(Err(_)) => {
            assert!(head.deviation.is_some_and(|r| r.closes() && r.passes(mode)), "{head:?}");
            assert!(!head.keep_alive && head.upgrade.is_none());
        }
        None => panic!("strict waits for more"),
    }
    // Sent on, it is compliant and says the same.
    let wide = Limits {
        max_head: 1 << 20,
        max_target: 1 << 20,
        max_headers: 200,
    };
    let again = written(&head);
    let (second, read_again) = read(&again, again.len(), &wide, Mode::Strict);
    let Some(Ok(second)) = second else {
        panic!("{}", again.escape_ascii())
    };
    assert_eq!(read_again, again.len());
    assert!(
        second.deviation.is_none_or(|r| r == Reason::GetWithContent),
        "{second:?}"
    );
    assert_eq!((&second.method, second.framing), (&head.method, head.framing));
    assert_eq!(second.target.text(&second.fields), head.target.text(&head.fields));
    assert_eq!(others(&second.fields), others(&head.fields));
    if let Some(host) = head.fields.get(Known::Host) {
        assert_eq!(second.fields.get(Known::Host), Some(host));
    }
});

//! Response heads: the same however the bytes come, and the same when they are written and read again.
#![no_main]

use bytes::BytesMut;
use evenkeel::h1::encode::{self, BodyLength, Connection};
use evenkeel::h1::framing::Framing;
use evenkeel::h1::head::HeadSearch;
use evenkeel::h1::response::{ResponseError, ResponseHead, parse};
use evenkeel_fuzz::{in_parts, limits, list};
use http::Method;

fn read(
    bytes: &[u8],
    size: usize,
    small: bool,
    method: &Method,
) -> (Option<Result<ResponseHead, ResponseError>>, usize) {
    let mut search = HeadSearch::default();
    in_parts(bytes, size, |buf| {
        parse(buf, &mut search, &limits(small), method).transpose()
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let small = choice & 4 != 0;
    let method = [Method::GET, Method::HEAD][usize::from(choice & 1)].clone();
    let (whole, taken) = read(bytes, bytes.len().max(1), small, &method);
    let (parts, taken_in_parts) = read(bytes, usize::from(choice >> 3) + 1, small, &method);
    assert_eq!(format!("{whole:?}"), format!("{parts:?}"));
    let Some(Ok(head)) = whole else { return };
    assert_eq!(taken, taken_in_parts);
    let length = match head.framing {
        Framing::None => BodyLength::None,
        Framing::Length(n) => BodyLength::Known(n),
        Framing::Chunked => BodyLength::Chunked,
        Framing::UntilClose => BodyLength::Close,
    };
    let mut out = BytesMut::new();
    encode::response(&mut out, head.status, &head.fields, length, Connection::None);
    let (second, read_again) = read(&out, out.len(), false, &method);
    let Some(Ok(second)) = second else {
        panic!("{}", out.escape_ascii())
    };
    assert_eq!(read_again, out.len());
    assert_eq!(second.status, head.status);
    // Nothing is written where nothing may follow or nothing does: then a reader of GET waits for the close.
    if head.framing != Framing::None {
        assert_eq!(second.framing, head.framing);
    }
    let others = |head: &ResponseHead| {
        let ours: [&[u8]; 4] = [b"content-length", b"transfer-encoding", b"connection", b"upgrade"];
        let mut list = list(&head.fields);
        list.retain(|(name, _)| !ours.contains(&&name[..]));
        list
    };
    assert_eq!(others(&second), others(&head));
});

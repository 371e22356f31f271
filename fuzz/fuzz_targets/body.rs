//! Bodies in each framing: the same however the bytes come, and the same when they are framed and read again.
#![no_main]

use bytes::{Bytes, BytesMut};
use evenkeel::h1::decode::{BodyError, Decoder, Step};
use evenkeel::h1::encode;
use evenkeel::h1::framing::Framing;
use evenkeel_fuzz::in_parts;
use http::HeaderMap;

#[derive(Debug, PartialEq)]
struct Body {
    data: Vec<u8>,
    end: Option<Result<Option<HeaderMap>, BodyError>>,
    taken: usize,
    at_close: Result<(), BodyError>,
}

fn read(bytes: &[u8], size: usize, framing: Framing) -> Body {
    let mut decoder = Decoder::new(framing);
    let mut data = Vec::new();
    let (end, taken) = in_parts(bytes, size, |buf| {
        loop {
            let held = buf.len();
            match decoder.decode(buf) {
                Ok(Step::Data(part)) => {
                    assert!(!part.is_empty() && part.len() <= held);
                    data.extend_from_slice(&part);
                }
                Ok(Step::More) => return None,
                Ok(Step::End(trailers)) => {
                    assert!(decoder.is_end());
                    return Some(Ok(trailers));
                }
                Err(e) => return Some(Err(e)),
            }
        }
    });
    let at_close = decoder.eof();
    Body {
        data,
        end,
        taken,
        at_close,
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((choice, bytes)) = data.split_first() else {
        return;
    };
    let framing = match choice & 3 {
        0 => Framing::Length(u64::from(choice >> 2) * 3),
        1 => Framing::UntilClose,
        _ => Framing::Chunked,
    };
    let whole = read(bytes, bytes.len().max(1), framing);
    let parts = read(bytes, usize::from(choice >> 2) % 17 + 1, framing);
    assert_eq!(
        (&whole.data, &whole.end, whole.at_close),
        (&parts.data, &parts.end, parts.at_close)
    );
    if let Framing::Length(n) = framing {
        assert_eq!(whole.data, bytes[..bytes.len().min(n as usize)]);
        assert!(!matches!(whole.end, Some(Err(_))));
    }
    if framing == Framing::UntilClose {
        assert_eq!(whole.data, bytes);
    }
    let Some(Ok(trailers)) = &whole.end else { return };
    assert_eq!(whole.taken, parts.taken);
    for (name, value) in trailers.iter().flatten() {
        assert!(evenkeel::h1::decode::is_allowed_trailer(name), "{name}");
        assert!(!value.as_bytes().iter().any(|b| matches!(b, b'\r' | b'\n' | 0)));
    }
    // In chunks of ours it is the same body.
    let mut out = BytesMut::new();
    for chunk in whole.data.chunks(7) {
        encode::chunk_start(&mut out, chunk.len());
        out.extend_from_slice(chunk);
        encode::chunk_end(&mut out);
    }
    encode::last_chunk(&mut out, trailers.as_ref());
    let out: Bytes = out.freeze();
    let again = read(&out, out.len(), Framing::Chunked);
    assert_eq!(
        (&again.data, &again.end, again.taken),
        (&whole.data, &whole.end, out.len())
    );
});

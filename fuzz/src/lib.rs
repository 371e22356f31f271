//! What the targets share: limits by a number, parts by a size, fields that cannot end their line.

use bytes::BytesMut;
use evenkeel::fields::Fields;
use evenkeel::h1::head::Limits;

/// The limits of a listener, or ones so small that inputs reach them.
pub fn limits(small: bool) -> Limits {
    if small {
        Limits {
            max_head: 120,
            max_target: 16,
            max_headers: 4,
        }
    } else {
        Limits {
            max_head: 32 * 1024,
            max_target: 8 * 1024,
            max_headers: 100,
        }
    }
}

/// `parse` with `bytes` as they come in parts of `size`; with what is left of them when it has an answer.
pub fn in_parts<T>(bytes: &[u8], size: usize, mut parse: impl FnMut(&mut BytesMut) -> Option<T>) -> (Option<T>, usize) {
    let mut buf = BytesMut::new();
    let mut fed = 0;
    for part in bytes.chunks(size) {
        buf.extend_from_slice(part);
        fed += part.len();
        let answer = parse(&mut buf);
        assert!(fed >= buf.len(), "bytes were made");
        assert_eq!(buf, bytes[fed - buf.len()..fed], "what is left was touched");
        if answer.is_some() {
            return (answer, fed - buf.len());
        }
    }
    (None, fed - buf.len())
}

/// Names in lower case, and values. None of them holds what could end its line.
pub fn list(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    let list = fields.iter().map(|(name, value)| {
        for text in [name, value] {
            assert!(!text.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)), "{fields:?}");
        }
        assert!(!name.is_empty() && value.trim_ascii() == value, "{fields:?}");
        (name.to_ascii_lowercase(), value.to_vec())
    });
    list.collect()
}

//! Name and value pairs inside a request, read in place: its cookies and its query.

use memchr::memchr2;

/// The cookies of all `Cookie` fields, whose values these are, in order, as sent (RFC 6265 section 5.4). Pieces without
/// `=` are passed over.
pub fn cookies<'a>(fields: impl Iterator<Item = &'a [u8]>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields
        .flat_map(|field| field.split(|byte| *byte == b';'))
        .filter_map(|piece| split(piece.trim_ascii()))
}

/// The parameters of a query, in order, still encoded. `?a` is `a` with an empty value.
pub fn parameters(query: &str) -> impl Iterator<Item = (&[u8], &[u8])> {
    query
        .as_bytes()
        .split(|byte| *byte == b'&')
        .filter(|piece| !piece.is_empty())
        .map(|piece| split(piece).unwrap_or((piece, b"")))
}

fn split(piece: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut halves = piece.splitn(2, |byte| *byte == b'=');
    Some((halves.next()?, halves.next()?))
}

/// Whether a part of a query holds anything that [`decoded`] would change.
pub fn is_encoded(raw: &[u8]) -> bool {
    memchr2(b'%', b'+', raw).is_some()
}

/// A part of a query with its percent-encodings decoded and `+` as a space. A broken encoding stands for itself.
pub fn decoded(raw: &[u8]) -> impl Iterator<Item = u8> {
    let mut rest = raw;
    std::iter::from_fn(move || match rest {
        [b'%', high, low, tail @ ..] if let Some(byte) = hex_byte(*high, *low) => {
            rest = tail;
            Some(byte)
        }
        [b'+', tail @ ..] => {
            rest = tail;
            Some(b' ')
        }
        [byte, tail @ ..] => {
            rest = tail;
            Some(*byte)
        }
        [] => None,
    })
}

/// Whether `raw`, decoded, is `plain`. Allocates nothing.
pub fn decodes_to(raw: &[u8], plain: &[u8]) -> bool {
    if is_encoded(raw) {
        decoded(raw).eq(plain.iter().copied())
    } else {
        raw == plain
    }
}

/// The byte that two hexadecimal digits write.
pub fn hex_byte(high: u8, low: u8) -> Option<u8> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    Some(digit(high)? << 4 | digit(low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_cookies_over_several_fields() {
        let fields: [&[u8]; 2] = [b"a=1; b = 2;c; d=x=y", b"a=3"];
        let pairs: Vec<_> = cookies(fields.into_iter()).collect();
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b ", b" 2"), (b"d", b"x=y"), (b"a", b"3")];
        assert_eq!(pairs, expected);
    }

    #[test]
    fn reads_parameters() {
        let expected: [(&[u8], &[u8]); 4] = [(b"a", b"1"), (b"b", b""), (b"", b"2"), (b"c", b"d=e")];
        assert_eq!(parameters("a=1&&b&=2&c=d=e").collect::<Vec<_>>(), expected);
        assert_eq!(parameters("").count(), 0);
    }

    #[test]
    fn decodes_as_forms_are_written() {
        for (raw, plain) in [
            ("a+b", "a b"),
            ("a%20b", "a b"),
            ("%2b", "+"),
            ("%", "%"),
            ("%4", "%4"),
            ("%zz", "%zz"),
            ("%C3%a9", "é"),
        ] {
            assert!(decodes_to(raw.as_bytes(), plain.as_bytes()), "{raw}");
        }
        assert!(!decodes_to(b"a+b", b"a+b"));
        assert!(!decodes_to(b"ab", b"abc") && !decodes_to(b"a%62c", b"ab"));
    }
}

//! The authority in Host and in targets (RFC 3986 section 3.2, without user information).

use std::borrow::Cow;

/// Whether `authority` is `host [":" port]`: a name, an IPv4 address or an IPv6 address in brackets.
pub fn validate(authority: &[u8]) -> bool {
    let (host, port) = match authority.strip_prefix(b"[") {
        Some(rest) => match memchr::memchr(b']', rest) {
            Some(end) => {
                let literal = std::str::from_utf8(&rest[..end]).unwrap_or("");
                if literal.parse::<std::net::Ipv6Addr>().is_err() {
                    return false;
                }
                match &rest[end + 1..] {
                    [] => return true,
                    [b':', port @ ..] => return is_port(port),
                    _ => return false,
                }
            }
            None => return false,
        },
        None => match memchr::memchr(b':', authority) {
            Some(colon) => (&authority[..colon], Some(&authority[colon + 1..])),
            None => (authority, None),
        },
    };
    // Sub-delimiters and percent-encodings are legal in RFC 3986, used by nobody and read differently by many.
    let name = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    !host.is_empty() && host.len() <= 255 && host.iter().all(name) && port.is_none_or(is_port)
}

fn is_port(port: &[u8]) -> bool {
    !port.is_empty()
        && port.len() <= 5
        && port.iter().all(u8::is_ascii_digit)
        && port.iter().fold(0u32, |n, d| n * 10 + u32::from(d - b'0')) <= 65_535
}

/// The host of a valid authority in lower case, without port and trailing dot; brackets stay. Borrows when
/// nothing changes.
pub fn name(authority: &str) -> Cow<'_, str> {
    let bytes = authority.as_bytes();
    let end = match bytes.first() {
        Some(b'[') => memchr::memchr(b']', bytes).map(|bracket| bracket + 1),
        _ => bytes.iter().position(|b| *b == b':'),
    };
    let host = end.and_then(|end| authority.get(..end)).unwrap_or(authority);
    let host = host.strip_suffix('.').unwrap_or(host);
    // All bytes at once: most names have no capitals.
    if host.bytes().fold(false, |any, b| any | b.is_ascii_uppercase()) {
        Cow::Owned(host.to_ascii_lowercase())
    } else {
        Cow::Borrowed(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authorities() {
        for good in [
            "a",
            "a.example",
            "A.example:80",
            "127.0.0.1",
            "[::1]",
            "[::1]:8080",
            "x_y.example",
            "a.",
        ] {
            assert!(validate(good.as_bytes()), "{good}");
        }
        for bad in [
            "", ":80", "a:", "a:b", "a:65536", "u@a", "a b", "a/b", "[::1", "[::1]x", "[a]", "a,b", "a%41", "::1",
            "a\0",
        ] {
            assert!(!validate(bad.as_bytes()), "{bad}");
        }
        assert_eq!(name("Shop.Example.:443"), "shop.example");
        assert_eq!(name("[::1]:80"), "[::1]");
    }
}

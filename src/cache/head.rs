//! The fields of a stored response: one run of plain lines, copied onto the wire at once.

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use crate::fields::{Fields, Found, Known, Set};

/// Fields that are told anew for every answer, or belong to the connection the response came by.
const ANEW: Set = Set::of(&[
    Known::Age,
    Known::ContentLength,
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
    Known::Te,
]);
const NEVER: [&str; 2] = ["proxy-authentication-info", "trailer"];

/// Lines, each `name: value` and CRLF.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Head {
    text: Bytes,
    lines: u16,
}

impl Head {
    /// What of `fields` is stored; `date`: where they have none. `None`: too large.
    pub fn store(fields: &Fields, without: &[String], keep_cookies: bool, date: &str, most: usize) -> Option<Self> {
        let mut fields = fields.clone();
        for name in NEVER {
            fields.remove_named(name.as_bytes());
        }
        for name in without {
            fields.remove_named(name.as_bytes());
        }
        if !keep_cookies {
            fields.remove(Known::SetCookie);
        }
        fields.remove_all(ANEW);
        if !fields.has(Known::Date) {
            fields.append(Known::Date, date.as_bytes());
        }
        let mut text = BytesMut::with_capacity(fields.text_len());
        fields.write(&mut text, Set::of(&[]));
        let lines = u16::try_from(fields.len()).ok()?;
        (text.len() <= most).then(|| Self {
            // The length it has, not the room it took.
            text: Bytes::copy_from_slice(&text),
            lines,
        })
    }

    /// What a head was written down as. `None`: no head that would be stored.
    pub fn read(text: &[u8]) -> Option<Self> {
        let mut lines = 0u16;
        let mut rest = text;
        while !rest.is_empty() {
            let end = memchr::memchr(b'\n', rest)?;
            let line = rest.get(..end)?.strip_suffix(b"\r")?;
            let colon = memchr::memchr(b':', line)?;
            let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?.strip_prefix(b" ")?);
            HeaderName::from_bytes(name).ok()?;
            HeaderValue::from_bytes(value).ok()?;
            lines = lines.checked_add(1)?;
            rest = rest.get(end + 1..)?;
        }
        let head = Self {
            text: Bytes::copy_from_slice(text),
            lines,
        };
        (!head.fields().has_any(ANEW)).then_some(head)
    }

    /// As it is written down.
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The fields as any message has them.
    pub fn fields(&self) -> Fields {
        let mut found = Found::with_capacity(usize::from(self.lines));
        let mut at = 0;
        for end in memchr::memchr_iter(b'\n', &self.text) {
            let line = self.text.get(at..=end).unwrap_or_default();
            if let Some(colon) = memchr::memchr(b':', line) {
                // Between `: ` and CRLF.
                let value = (at + colon + 2).min(end)..end.saturating_sub(1).max(at + colon + 2).min(end);
                // A head that was small enough once is small enough now.
                let _ = found.add(&self.text, at..at + colon, value);
            }
            at = end + 1;
        }
        found.within(self.text.clone())
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn only_what_would_be_stored_is_read() {
        for text in ["", "a: b\r\n", "A: \r\nx: y: z\r\n"] {
            assert_eq!(Head::read(text.as_bytes()).unwrap().text, text);
        }
        for text in [
            "a: b",
            "a: b\n",
            "a:b\r\n",
            "a b: c\r\n",
            ": c\r\n",
            "a: b\rc\r\n",
            "a: \0\r\n",
            "content-length: 1\r\n",
            "Transfer-Encoding: chunked\r\n",
            "\r\n",
        ] {
            assert_eq!(Head::read(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_stored_comes_back_and_what_is_not_does_not() {
        let mut map = HeaderMap::new();
        for (name, value) in [
            ("etag", "\"a\""),
            ("age", "5"),
            ("content-length", "9"),
            ("te", "x"),
            ("proxy-authentication-info", "x"),
            ("set-cookie", "a=b"),
            ("x-empty", ""),
            ("x-secret", "1"),
            ("x-colon", "a: b"),
        ] {
            map.append(name, HeaderValue::from_static(value));
        }
        let head = Head::store(&Fields::from(&map), &["x-secret".into()], false, "DATE", 1000).unwrap();
        let fields = head.fields();
        let list: Vec<_> = fields
            .iter()
            .map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
            .collect();
        assert_eq!(list, ["etag=\\\"a\\\"", "x-empty=", "x-colon=a: b", "date=DATE"]);
        let mut out = BytesMut::new();
        fields.write(&mut out, Set::of(&[]));
        assert_eq!(out.len(), head.len());
        assert_eq!(Head::store(&Fields::from(&map), &[], true, "DATE", 20), None);
    }
}

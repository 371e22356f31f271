//! What a stored response is found by: scheme, host, port, path and query, exactly as the endpoint gets them. What is
//! no part of the key does not reach the endpoint, or keeps the request out of the cache.

use http::{HeaderName, Method};

use super::query::Query;
use crate::fields::{Fields, Known};

/// A longer one is not worth its place.
const MAX: usize = 8 * 1024;

/// Fields by which some applications answer for another resource, method or origin: whoever sends one would have the
/// answer stored for everybody else.
const OVERRIDES: [&str; 18] = [
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "x-http-host-override",
    "x-http-path-override",
    "x-original-url",
    "x-original-uri",
    "x-original-path",
    "x-original-host",
    "x-rewrite-url",
    "x-rewrite-uri",
    "x-override-url",
    "x-invoke-path",
    "x-forwarded-prefix",
    "x-forwarded-path",
    "x-forwarded-uri",
    "x-middleware-subrequest",
    "x-host",
];

/// Fields that proxies in front send with each request, and that only a client who is none has a reason to make up.
const CLAIMS: [&str; 6] = [
    "x-forwarded-scheme",
    "x-forwarded-protocol",
    "x-forwarded-server",
    "x-forwarded-ssl",
    "x-url-scheme",
    "x-scheme",
];

/// A key, and what was added to it for one variant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Key {
    pub text: Vec<u8>,
    /// Bytes that all variants share.
    pub primary: usize,
    /// The URL's own, where this is one that several share (No-Vary-Search).
    pub exact: Option<Box<[u8]>>,
}

impl Key {
    /// `None`: it would be too long. `host`: in lower case, without its port; `authority`: the Host field; `path`: as
    /// it is sent on.
    pub fn of(https: bool, host: &str, authority: &[u8], path: &str, query: Option<&str>) -> Option<Self> {
        let port = port(authority);
        let length = 12 + host.len() + port.len() + path.len() + query.map_or(0, str::len);
        if length > MAX {
            return None;
        }
        // Room for a variant, too.
        let mut text = Vec::with_capacity(length + 64);
        text.extend_from_slice(if https { b"https://" } else { b"http://" });
        text.extend_from_slice(host.as_bytes());
        let default = if https { "443" } else { "80" };
        if !port.is_empty() && port != default.as_bytes() {
            text.push(b':');
            text.extend_from_slice(port);
        }
        text.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            text.push(b'?');
            text.extend_from_slice(query.as_bytes());
        }
        Some(Self {
            primary: text.len(),
            text,
            exact: None,
        })
    }

    /// A key without a variant, as it stands.
    pub fn of_text(text: &[u8]) -> Self {
        Self {
            text: text.into(),
            primary: text.len(),
            exact: None,
        }
    }

    /// The URL with a request's content: what tells contents apart stands in the variant.
    pub fn with_content(&self, method: &Method) -> Self {
        // No URL that is sent has a `#`.
        Self::of_text(&[self.primary(), b"#", method.as_str().as_bytes()].concat())
    }

    /// The URL's own again.
    pub fn restore(&mut self) {
        if let Some(exact) = self.exact.take() {
            self.primary = exact.len();
            self.text = exact.into();
        }
    }

    /// A key for a URL as people write it: of a purge, or of a field such as Location.
    pub fn of_url(url: &str, kept: &Query) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let https = match scheme.to_ascii_lowercase().as_str() {
            "http" => false,
            "https" => true,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = (rest.get(..end)?, rest.get(end..)?);
        if !crate::h1::host::validate(authority.as_bytes()) {
            return None;
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let path = if path.is_empty() { "/" } else { path };
        let host = crate::h1::host::name(authority);
        let query = query.and_then(|query| kept.kept(query));
        Self::of(https, &host, authority.as_bytes(), path, query.as_deref())
    }

    pub fn primary(&self) -> &[u8] {
        self.text.get(..self.primary).unwrap_or_default()
    }

    /// The URL a reference leads to, when it is of the same origin (RFC 9111 section 4.4).
    pub fn same_origin(&self, reference: &[u8], kept: &Query) -> Option<Self> {
        let reference = std::str::from_utf8(reference).ok()?.trim();
        let own = std::str::from_utf8(self.primary()).ok()?;
        let start = own.find("://")? + 3;
        let end = own.get(start..)?.find(['/', '?'])? + start;
        let origin = own.get(..end)?;
        let found = if reference.contains("://") {
            Self::of_url(reference, kept)?
        } else if reference.starts_with("//") {
            let scheme = own.split_once(':')?.0;
            Self::of_url(&format!("{scheme}:{reference}"), kept)?
        } else if reference.starts_with('/') {
            Self::of_url(&format!("{origin}{reference}"), kept)?
        } else {
            let path = own.split('?').next()?;
            let folder = path.get(..=path.rfind('/')?)?;
            let joined = format!("{folder}{reference}");
            let (before, query) = match joined.split_once('?') {
                Some((before, query)) => (before.to_owned(), Some(query.to_owned())),
                None => (joined, None),
            };
            let path = without_dots(before.get(end..)?);
            let url = match query {
                Some(query) => format!("{origin}{path}?{query}"),
                None => format!("{origin}{path}"),
            };
            Self::of_url(&url, kept)?
        };
        let rest = found.primary().strip_prefix(origin.as_bytes())?;
        rest.starts_with(b"/").then_some(found)
    }
}

/// What all variants share of a key.
pub fn primary_of(key: &[u8]) -> &[u8] {
    // No URL has one in it.
    let end = memchr::memchr(b'\n', key).unwrap_or(key.len());
    key.get(..end).unwrap_or_default()
}

/// RFC 3986 section 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments = || path.split('/').skip(1);
    for segment in segments() {
        match segment {
            "." => {}
            ".." => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let ends = matches!(segments().last(), Some("." | ".."));
    format!("/{}{}", kept.join("/"), if ends && !kept.is_empty() { "/" } else { "" })
}

/// The digits behind a valid authority's last colon.
fn port(authority: &[u8]) -> &[u8] {
    let end = memchr::memrchr(b']', authority).map_or(0, |n| n + 1);
    match authority.get(end..).and_then(|rest| memchr::memchr(b':', rest)) {
        Some(colon) => authority.get(end + colon + 1..).unwrap_or_default(),
        None => &[],
    }
}

/// Whether a field of the request could make the endpoint answer for another resource. `apart`: fields that are told apart;
/// `trusted`: the client is a proxy that is believed.
pub fn is_overridden(request: &Fields, apart: &[HeaderName], trusted: bool) -> bool {
    let is = |name: &[u8], field: &str| name.eq_ignore_ascii_case(field.as_bytes());
    request.iter().any(|(name, _)| {
        matches!(name.first(), Some(b'x' | b'X'))
            && Known::of(name) == Known::Other
            && (OVERRIDES.iter().any(|field| is(name, field))
                || (!trusted && CLAIMS.iter().any(|field| is(name, field))))
            && !apart.iter().any(|field| is(name, field.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(https: bool, authority: &str, path: &str, query: Option<&str>) -> String {
        let host = crate::h1::host::name(authority);
        let key = Key::of(https, &host, authority.as_bytes(), path, query).unwrap();
        String::from_utf8(key.text).unwrap()
    }

    #[test]
    fn everything_the_endpoint_sees_is_in_it() {
        for (https, authority, path, query, expected) in [
            (false, "Shop.Example", "/a", None, "http://shop.example/a"),
            (false, "shop.example:80", "/a", Some(""), "http://shop.example/a?"),
            (
                true,
                "shop.example:80",
                "/a",
                Some("b=1&c"),
                "https://shop.example:80/a?b=1&c",
            ),
            (true, "[::1]:443", "/%61", None, "https://[::1]/%61"),
            (true, "[::1]:8443", "/", None, "https://[::1]:8443/"),
        ] {
            assert_eq!(key(https, authority, path, query), expected);
        }
        assert_eq!(
            Key::of(false, "a", b"a", &format!("/{}", "x".repeat(100_000)), None),
            None
        );
    }

    #[test]
    fn urls_are_read_as_requests_are_keyed() {
        for (url, expected) in [
            ("HTTP://Shop.Example:80/a?b#c", Some("http://shop.example/a?b")),
            ("https://shop.example", Some("https://shop.example/")),
            ("https://shop.example?x", Some("https://shop.example/?x")),
            ("ftp://shop.example/", None),
            ("http://u@shop.example/", None),
            ("shop.example/", None),
        ] {
            let found = Key::of_url(url, &Query::All).map(|key| String::from_utf8(key.text).unwrap());
            assert_eq!(found.as_deref(), expected, "{url}");
        }
    }

    #[test]
    fn references_of_the_same_origin_alone() {
        let base = Key::of_url("http://a.example:81/x/y?q", &Query::All).unwrap();
        for (reference, expected) in [
            ("/b", Some("http://a.example:81/b")),
            ("b?c", Some("http://a.example:81/x/b?c")),
            ("../b", Some("http://a.example:81/b")),
            ("http://A.example:81/b", Some("http://a.example:81/b")),
            ("//a.example:81/b", Some("http://a.example:81/b")),
            ("http://a.example/b", None),
            ("https://a.example:81/b", None),
            ("http://a.example:811/b", None),
            ("http://evil.example/", None),
            ("//evil.example/b", None),
        ] {
            let found = base.same_origin(reference.as_bytes(), &Query::All);
            let found = found.map(|key| String::from_utf8(key.text).unwrap());
            assert_eq!(found.as_deref(), expected, "{reference}");
        }
    }

    #[test]
    fn fields_that_override_are_found() {
        let mut fields = Fields::default();
        fields.append_text("x-forwarded-for", b"1");
        fields.append_text("x-custom", b"1");
        assert!(!is_overridden(&fields, &[], false));
        fields.append_text("X-Scheme", b"https");
        assert!(is_overridden(&fields, &[], false) && !is_overridden(&fields, &[], true));
        fields.append_text("X-Forwarded-Prefix", b"/a");
        assert!(is_overridden(&fields, &[], true));
        let prefix = [HeaderName::from_static("x-forwarded-prefix")];
        assert!(!is_overridden(&fields, &prefix, true) && is_overridden(&fields, &prefix, false));
        fields.append_text("X-HTTP-Method-Override", b"DELETE");
        assert!(is_overridden(&fields, &prefix, true));
    }
}

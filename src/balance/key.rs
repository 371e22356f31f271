//! What a hashing balancer hashes: reading its name, and finding it in a request.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::LazyLock;

use http::HeaderName;

use super::HashKey;
use crate::base::{hash, pairs};
use crate::fields::{Fields, Known};

static NO_HEADERS: LazyLock<Fields> = LazyLock::new(Fields::default);

/// Where a key may be found.
#[derive(Debug, Clone, Copy)]
pub struct KeyParts<'a> {
    pub source: IpAddr,
    /// Lower case, without port.
    pub host: &'a str,
    /// Normalised, without the query.
    pub path: &'a str,
    /// Without its `?`.
    pub query: Option<&'a str>,
    pub headers: &'a Fields,
}

impl KeyParts<'static> {
    /// Of a connection, of which only its source is known.
    pub fn of_connection(source: IpAddr) -> Self {
        Self {
            source,
            host: "",
            path: "",
            query: None,
            headers: &NO_HEADERS,
        }
    }
}

impl HashKey {
    /// The hash of this key in a request, the same in every process; `None` where the request lacks it or it is
    /// empty (all who lack it would else meet at one endpoint). Allocates nothing.
    ///
    /// Of several cookies or query parameters with the name the first counts; of several header fields, all.
    pub fn of(&self, parts: &KeyParts<'_>) -> Option<u64> {
        match self {
            // A client is the same one on a dual-stack socket (`::ffff:10.0.0.1`) and on an IPv4 socket.
            Self::SourceIp => Some(match parts.source.to_canonical() {
                IpAddr::V4(address) => hash::stable(&address.octets()),
                IpAddr::V6(address) => hash::stable(&address.octets()),
            }),
            Self::Path => present(parts.path.as_bytes()),
            Self::Uri => present(parts.path.as_bytes()).map(|path| match parts.query {
                Some(query) => hash::stable_seeded(query.as_bytes(), path),
                None => path,
            }),
            Self::Host => present(parts.host.as_bytes()),
            Self::Header(name) => {
                let values = parts.headers.named(name);
                let mut values = values.filter(|value| !value.is_empty());
                let first = present(values.next()?)?;
                Some(values.fold(first, |so_far, value| hash::stable_seeded(value, so_far)))
            }
            Self::Cookie(name) => {
                let mut cookies = pairs::cookies(parts.headers.all(Known::Cookie));
                present(cookies.find(|(cookie, _)| *cookie == name.as_bytes())?.1)
            }
            Self::Query(name) => {
                let mut parameters = pairs::parameters(parts.query?);
                let (_, value) = parameters.find(|(key, _)| pairs::decodes_to(key, name.as_bytes()))?;
                if pairs::is_encoded(value) {
                    Some(hash::stable_of(pairs::decoded(value)))
                } else {
                    present(value)
                }
            }
        }
    }
}

fn present(bytes: &[u8]) -> Option<u64> {
    (!bytes.is_empty()).then(|| hash::stable(bytes))
}

/// As it is written in a configuration.
impl fmt::Display for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SourceIp => f.write_str("source_ip"),
            Self::Path => f.write_str("path"),
            Self::Uri => f.write_str("uri"),
            Self::Host => f.write_str("host"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Query(name) => write!(f, "query:{name}"),
        }
    }
}

impl FromStr for HashKey {
    type Err = String;

    /// Reads `source_ip`, `path`, `uri`, `host`, `header:N`, `cookie:N` or `query:N`.
    fn from_str(text: &str) -> Result<Self, String> {
        const EXPECTED: &str =
            "expected `source_ip`, `path`, `uri`, `host`, `header:NAME`, `cookie:NAME` or `query:NAME`";
        let (kind, name) = match text.split_once(':') {
            Some((kind, name)) => (kind, Some(name)),
            None => (text, None),
        };
        match (kind, name) {
            ("source_ip", None) => Ok(Self::SourceIp),
            ("path", None) => Ok(Self::Path),
            ("uri", None) => Ok(Self::Uri),
            ("host", None) => Ok(Self::Host),
            ("header" | "cookie" | "query", None | Some("")) => {
                Err(format!("`{kind}` needs a name, as in `{kind}:user`"))
            }
            ("header", Some(name)) => match HeaderName::from_bytes(name.as_bytes()) {
                Ok(name) => Ok(Self::Header(name)),
                Err(_) => Err(format!("`{name}` is not the name of a header")),
            },
            ("cookie", Some(name)) => {
                if name
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !br#"()<>@,;:\"/[]?={}"#.contains(&byte))
                {
                    Ok(Self::Cookie(name.into()))
                } else {
                    // RFC 6265 section 4.1.1: a cookie's name is a token.
                    Err(format!("`{name}` is not the name of a cookie"))
                }
            }
            ("query", Some(name)) => Ok(Self::Query(name.into())),
            ("source_ip" | "path" | "uri" | "host", Some(_)) => Err(format!("`{kind}` takes no name: write `{kind}`")),
            _ => Err(format!("`{text}` is nothing that can be hashed: {EXPECTED}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers() -> Fields {
        let mut headers = Fields::default();
        for (name, value) in [
            ("x-user", "ann"),
            ("x-two", "a"),
            ("x-two", "b"),
            ("x-empty", ""),
            ("cookie", "theme=dark; sid=7; none="),
        ] {
            headers.append_named(&HeaderName::from_static(name), &value.parse().unwrap());
        }
        headers
    }

    fn of(key: &str, query: Option<&str>) -> Option<u64> {
        let headers = headers();
        key.parse::<HashKey>().unwrap().of(&KeyParts {
            source: "192.0.2.1".parse().unwrap(),
            host: "shop.example",
            path: "/a",
            query,
            headers: &headers,
        })
    }

    #[test]
    fn finds_each_kind() {
        let hash_of = |text: &str| Some(hash::stable(text.as_bytes()));
        assert_eq!(of("path", Some("q")), hash_of("/a"));
        assert_eq!(of("host", None), hash_of("shop.example"));
        assert_eq!(of("header:X-User", None), hash_of("ann"));
        assert_eq!(of("cookie:sid", None), hash_of("7"));
        assert_eq!(of("query:u", Some("t=1&u=x&u=y")), hash_of("x"));
        assert_eq!(of("query:u", Some("t=1&%75=a+%62")), hash_of("a b"));
        assert_eq!(of("source_ip", None), Some(hash::stable(&[192, 0, 2, 1])));
        assert_ne!(of("header:x-two", None), hash_of("a"));
    }

    #[test]
    fn a_uri_is_path_and_query() {
        assert_eq!(of("uri", None), of("path", None));
        assert_ne!(of("uri", Some("")), of("uri", None));
        assert_ne!(of("uri", Some("a")), of("uri", Some("b")));
        assert_eq!(of("uri", Some("a")), of("uri", Some("a")));
    }

    #[test]
    fn what_is_missing_or_empty_has_no_hash() {
        for key in [
            "header:x-none",
            "header:x-empty",
            "cookie:SID",
            "cookie:none",
            "query:u",
        ] {
            assert_eq!(of(key, Some("v=1&u=")), None, "{key}");
        }
        assert_eq!(of("query:u", None), None);
    }

    #[test]
    fn a_connection_has_only_its_source() {
        let v4 = KeyParts::of_connection("192.0.2.1".parse().unwrap());
        let mapped = KeyParts::of_connection("::ffff:192.0.2.1".parse().unwrap());
        let other = KeyParts::of_connection("2001:db8::1".parse().unwrap());
        assert_eq!(HashKey::SourceIp.of(&v4), HashKey::SourceIp.of(&mapped));
        assert_ne!(HashKey::SourceIp.of(&v4), HashKey::SourceIp.of(&other));
        for key in ["path", "uri", "host", "header:a", "cookie:a", "query:a"] {
            assert_eq!(key.parse::<HashKey>().unwrap().of(&v4), None, "{key}");
        }
    }

    #[test]
    fn reads_what_the_reference_names() {
        assert_eq!(
            "header:X-User".parse(),
            Ok(HashKey::Header(HeaderName::from_static("x-user")))
        );
        assert_eq!("cookie:sid".parse(), Ok(HashKey::Cookie("sid".into())));
        assert_eq!("query:a:b".parse(), Ok(HashKey::Query("a:b".into())));
        for text in [
            "source_ip",
            "path",
            "uri",
            "host",
            "header:x-user",
            "cookie:sid",
            "query:u",
        ] {
            assert_eq!(text.parse::<HashKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (text, part) in [
            ("", "expected"),
            ("source", "`source_ip`"),
            ("Path", "expected"),
            ("header", "needs a name"),
            ("cookie:", "needs a name"),
            ("header:a b", "not the name of a header"),
            ("cookie:a;b", "not the name of a cookie"),
            ("path:x", "takes no name"),
            ("body:x", "expected"),
        ] {
            let error = text.parse::<HashKey>().unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}

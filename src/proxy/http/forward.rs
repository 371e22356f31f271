//! Fields on their way through: hop-by-hop ones stay here, forwarding ones are set.

use std::fmt::Write;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Version};
use ipnet::IpNet;

use super::Downstream;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Fields a client cannot have removed by naming them in Connection: they are ours, or frame the message.
const PROTECTED: [HeaderName; 9] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    header::FORWARDED,
    header::VIA,
    header::HOST,
    header::CONTENT_LENGTH,
    header::AUTHORIZATION,
    header::COOKIE,
];

/// Removes what belongs to one connection alone (RFC 9110 section 7.6.1). `TE: trailers` stays in requests:
/// gRPC endpoints ask for it.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|v| v.as_bytes().split(|b| *b == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .filter(|name| !PROTECTED.contains(name))
            .collect();
        headers.remove(header::CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    for name in [
        KEEP_ALIVE,
        PROXY_CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
    ] {
        headers.remove(name);
    }
    if let Some(te) = headers.get(header::TE) {
        let trailers = te
            .as_bytes()
            .split(|b| *b == b',')
            .any(|t| t.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        if trailers {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        } else {
            headers.remove(header::TE);
        }
    }
}

/// Sets the forwarding fields. Those from the client are kept and added to when it is trusted, replaced
/// otherwise.
pub fn set_forwarding(headers: &mut HeaderMap, down: &Downstream, trusted: &[IpNet], version: Version) {
    let trust = !trusted.is_empty() && trusted.iter().any(|net| net.contains(&down.peer.ip));
    let proto = if down.tls { "https" } else { "http" };
    let host = headers.get(header::HOST).cloned();

    let forwarded = forwarded(down, host.as_ref(), proto);
    if trust {
        append(headers, X_FORWARDED_FOR, &down.forwarded_for);
        headers
            .entry(X_FORWARDED_PROTO)
            .or_insert(HeaderValue::from_static(proto));
        if let Some(host) = host {
            headers.entry(X_FORWARDED_HOST).or_insert(host);
        }
        append(headers, header::FORWARDED, &forwarded);
    } else {
        headers.remove(X_FORWARDED_PORT);
        headers.remove(X_REAL_IP);
        headers.insert(X_FORWARDED_FOR, down.forwarded_for.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(proto));
        match host {
            Some(host) => headers.insert(X_FORWARDED_HOST, host),
            None => headers.remove(X_FORWARDED_HOST),
        };
        headers.insert(header::FORWARDED, forwarded);
    }
    let via = match version {
        Version::HTTP_10 => "1.0 evenkeel",
        Version::HTTP_11 => "1.1 evenkeel",
        _ => "2 evenkeel",
    };
    append(headers, header::VIA, &HeaderValue::from_static(via));
}

/// One element of Forwarded (RFC 7239 section 4): IPv6 in brackets and quotes.
fn forwarded(down: &Downstream, host: Option<&HeaderValue>, proto: &str) -> HeaderValue {
    let mut text = String::with_capacity(80);
    // Writing to a String cannot fail.
    let _ = match down.peer.ip {
        std::net::IpAddr::V4(ip) => write!(text, "for={ip}"),
        std::net::IpAddr::V6(ip) => write!(text, "for=\"[{ip}]\""),
    };
    if let Some(host) = host.and_then(|h| h.to_str().ok()) {
        let token = host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        let _ = if token {
            write!(text, ";host={host}")
        } else {
            write!(text, ";host=\"{host}\"")
        };
    }
    let _ = write!(text, ";proto={proto}");
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("for=unknown"))
}

/// Adds a list element: all lines of a field become one.
fn append(headers: &mut HeaderMap, name: HeaderName, value: &HeaderValue) {
    if !headers.contains_key(&name) {
        headers.insert(name, value.clone());
        return;
    }
    let mut all = Vec::new();
    for line in headers.get_all(&name) {
        all.extend_from_slice(line.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(value.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(*name, HeaderValue::from_static(value));
        }
        map
    }

    #[test]
    fn connection_and_what_it_names_stay_here() {
        let mut headers = map(&[
            ("connection", "x-secret, Keep-Alive"),
            ("connection", "x-forwarded-for, host"),
            ("x-secret", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers,
            map(&[
                ("x-forwarded-for", "10.0.0.1"),
                ("host", "a"),
                ("te", "trailers"),
                ("accept", "*/*")
            ])
        );
    }

    #[test]
    fn lists_grow_into_one_line() {
        let mut headers = map(&[("via", "1.0 a"), ("via", "1.1 b")]);
        append(&mut headers, header::VIA, &HeaderValue::from_static("2 evenkeel"));
        assert_eq!(headers, map(&[("via", "1.0 a, 1.1 b, 2 evenkeel")]));
    }
}

//! Fields on their way through: hop-by-hop ones stay here, forwarding ones are set.

use std::net::IpAddr;

use http::Version;
use ipnet::IpNet;

use super::Downstream;
use crate::fields::{Fields, Known, Lines, Part, Set};

/// What belongs to one connection alone (RFC 9110 section 7.6.1).
const HOP_BY_HOP: Set = Set::of(&[
    Known::Connection,
    Known::KeepAlive,
    Known::ProxyConnection,
    Known::TransferEncoding,
    Known::Upgrade,
    Known::ProxyAuthenticate,
    Known::ProxyAuthorization,
]);

/// Fields a client cannot have removed by naming them in Connection: they are ours, or frame the message.
const PROTECTED: Set = Set::of(&[
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::Forwarded,
    Known::Via,
    Known::Host,
    Known::ContentLength,
    Known::Authorization,
    Known::Cookie,
]);

/// What a client that is not trusted says about itself.
const CLAIMS: Set = Set::of(&[
    Known::XForwardedFor,
    Known::XForwardedProto,
    Known::XForwardedHost,
    Known::XForwardedPort,
    Known::XRealIp,
    Known::Forwarded,
]);

/// What says where a request came from, whoever wrote it.
const FORWARDING: Set = CLAIMS.and(Set::of(&[Known::Via]));

/// The forwarding fields of a connection's last request: those of the next are mostly the same.
#[derive(Debug, Clone)]
pub struct Prepared {
    host: Box<[u8]>,
    version: Version,
    lines: Lines,
}

/// Removes what belongs to one connection alone. `TE: trailers` stays in requests: gRPC endpoints ask for it.
pub fn strip_hop_by_hop(fields: &mut Fields) {
    if fields.has(Known::Connection) {
        let named: Vec<Vec<u8>> = fields
            .all(Known::Connection)
            .flat_map(|value| value.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|name| !matches!(Known::of(name), known if PROTECTED.has(known) || HOP_BY_HOP.has(known)))
            .map(<[u8]>::to_vec)
            .collect();
        for name in named {
            fields.remove_named(&name);
        }
    }
    fields.remove_all(HOP_BY_HOP);
    if fields.has(Known::Te) {
        let trailers = fields
            .all(Known::Te)
            .flat_map(|value| value.split(|b| *b == b','))
            .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"));
        fields.remove(Known::Te);
        if trailers {
            fields.append(Known::Te, b"trailers");
        }
    }
}

/// Whether a request came by HTTPS, here or at a trusted proxy in front.
pub fn is_https(down: &Downstream, trusted: &[IpNet], fields: &Fields) -> bool {
    let told = fields.get(Known::XForwardedProto).filter(|_| is_trusted(down, trusted));
    told.map_or(down.tls, |proto| proto.eq_ignore_ascii_case(b"https"))
}

/// Whether what the client says of itself is believed.
pub fn is_trusted(down: &Downstream, trusted: &[IpNet]) -> bool {
    !trusted.is_empty() && trusted.iter().any(|net| net.contains(&down.peer.ip))
}

/// Sets the forwarding fields. Those from the client are kept and added to when it is trusted, replaced
/// otherwise.
pub fn set_forwarding(fields: &mut Fields, down: &Downstream, trusted: &[IpNet], version: Version) {
    let trust = is_trusted(down, trusted);
    if !trust {
        fields.remove_all(CLAIMS);
    }
    if fields.has_any(FORWARDING) {
        return add_forwarding(fields, down, version);
    }
    let mut prepared = down.forwarding.borrow_mut();
    let host = fields.get(Known::Host).unwrap_or_default();
    match &*prepared {
        Some(last) if *last.host == *host && last.version == version => fields.append_lines(&last.lines),
        _ => {
            let host = host.into();
            let lines = fields.recorded(|fields| add_forwarding(fields, down, version));
            *prepared = Some(Box::new(Prepared { host, version, lines }));
        }
    }
}

fn add_forwarding(fields: &mut Fields, down: &Downstream, version: Version) {
    let proto: &[u8] = if down.tls { b"https" } else { b"http" };
    let host = fields.get(Known::Host).unwrap_or_default();
    let named = !host.is_empty();
    // Forwarded (RFC 7239 section 4) has IPv6 in brackets and quotes, and what is no token in quotes.
    let token = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let quote: &[u8] = if host.iter().all(token) { b"" } else { b"\"" };
    let client = down.peer.ip.to_string();
    let client = client.as_bytes();
    let (open, close): (&[u8], &[u8]) = match down.peer.ip {
        IpAddr::V4(_) => (b"for=", b""),
        IpAddr::V6(_) => (b"for=\"[", b"]\""),
    };

    add_to_list(fields, Known::XForwardedFor, &[Part::Text(client)]);
    if !fields.has(Known::XForwardedProto) {
        fields.append(Known::XForwardedProto, proto);
    }
    if named && !fields.has(Known::XForwardedHost) {
        fields.append_parts(Known::XForwardedHost, &[Part::Of(Known::Host)]);
    }
    let element = [
        Part::Text(open),
        Part::Text(client),
        Part::Text(close),
        Part::Text(if named { b";host=" } else { b"" }),
        Part::Text(quote),
        Part::Of(Known::Host),
        Part::Text(quote),
        Part::Text(b";proto="),
        Part::Text(proto),
    ];
    add_to_list(fields, Known::Forwarded, &element);
    let via: &[u8] = match version {
        Version::HTTP_10 => b"1.0 evenkeel",
        Version::HTTP_11 => b"1.1 evenkeel",
        _ => b"2 evenkeel",
    };
    add_to_list(fields, Known::Via, &[Part::Text(via)]);
}

/// Adds an element to a list: all lines of a field become one.
fn add_to_list(fields: &mut Fields, field: Known, element: &[Part<'_>]) {
    if !fields.has(field) {
        return fields.append_parts(field, element);
    }
    let lines: Vec<Vec<u8>> = fields.all(field).map(<[u8]>::to_vec).collect();
    let so_far = lines.join(&b", "[..]);
    let all = [&[Part::Text(&so_far), Part::Text(b", ")], element].concat();
    fields.remove(field);
    fields.append_parts(field, &all);
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    fn fields(list: &[(&'static str, &'static str)]) -> Fields {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(*name, HeaderValue::from_static(value));
        }
        Fields::from(&map)
    }

    fn list(fields: &Fields) -> Vec<(&str, &str)> {
        let text = |bytes| std::str::from_utf8(bytes).unwrap();
        fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn connection_and_what_it_names_stay_here() {
        let mut fields = fields(&[
            ("connection", "x-secret, Keep-Alive"),
            ("connection", "x-forwarded-for, host, close"),
            ("close", "1"),
            ("x-secret", "1"),
            ("x-forwarded-for", "10.0.0.1"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip_hop_by_hop(&mut fields);
        assert_eq!(
            list(&fields),
            [
                ("x-forwarded-for", "10.0.0.1"),
                ("host", "a"),
                ("accept", "*/*"),
                ("te", "trailers"),
            ]
        );
    }

    #[test]
    fn lists_grow_into_one_line() {
        let mut fields = fields(&[("via", "1.0 a"), ("via", "1.1 b")]);
        add_to_list(&mut fields, Known::Via, &[Part::Text(b"2 evenkeel")]);
        assert_eq!(list(&fields), [("via", "1.0 a, 1.1 b, 2 evenkeel")]);
    }
}

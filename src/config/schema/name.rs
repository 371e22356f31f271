//! Names and addresses that several tables use: hosts, header fields, addresses, networks.

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::reader::{Fields, parsed, text};
use crate::config::value::Node;
use crate::net::addr::{BindAddr, EndpointAddr};
use crate::route::HostPattern;

/// Reports a name that no listener, route or upstream can have: it becomes a label in metrics and logs.
pub fn check_name(cx: &Context<'_>, name: &At<String>) {
    let problem = match name.value.chars().count() {
        0 => "a name cannot be empty",
        1..=128 if name.value.chars().any(char::is_control) => "a name cannot hold control characters",
        1..=128 => return,
        _ => "a name holds at most 128 characters",
    };
    cx.push(Diagnostic::error(name.span, problem));
}

/// A string that names something defined elsewhere.
pub fn reference(cx: &Context<'_>, node: &Node) -> Option<At<String>> {
    text(cx, node).map(|found| found.with(found.value.to_owned()))
}

/// Where to listen. A relative socket path is relative to the file.
pub fn bind(cx: &Context<'_>, node: &Node) -> Option<At<BindAddr>> {
    let expected = "expected \"address:port\", \"[v6]:port\", \":port\" or \"unix:/path\"";
    let address = parsed(cx, node, expected, BindAddr::parse)?;
    Some(match &address.value {
        BindAddr::Unix(path) => address.with(BindAddr::Unix(socket(cx, &path.to_string_lossy(), node.span)?)),
        _ => address,
    })
}

/// Where an endpoint is. A relative socket path is relative to the file.
pub fn endpoint(cx: &Context<'_>, node: &Node) -> Option<At<EndpointAddr>> {
    let expected = "expected \"host:port\", \"[v6]:port\", \":port\" or \"unix:/path\"";
    let address = parsed(cx, node, expected, EndpointAddr::parse)?;
    Some(match &address.value {
        EndpointAddr::Unix(path) => address.with(EndpointAddr::Unix(socket(cx, &path.to_string_lossy(), node.span)?)),
        _ => address,
    })
}

fn socket(cx: &Context<'_>, path: &str, span: Span) -> Option<std::path::PathBuf> {
    let path = cx.resolve(path, span);
    // sun_path holds 108 bytes with its closing NUL (unix(7)).
    if path.as_os_str().len() > 107 {
        let message = format!("the path of the socket, `{}`, is longer than 107 bytes", path.display());
        cx.push(Diagnostic::error(span, message));
        return None;
    }
    Some(path)
}

/// A host name or `*.` and a host name, without port; lower case.
pub fn host_pattern(text: &str) -> Result<HostPattern, String> {
    if text.is_empty() {
        return Err("an empty string is not a host name".into());
    }
    if text == "*" {
        return Err("`*` alone is every host: leave the host out for that".into());
    }
    let lower = text.to_ascii_lowercase();
    match lower.strip_prefix("*.") {
        Some(parent) => host(parent, text).map(HostPattern::Wildcard),
        None if lower.contains('*') => Err(format!(
            "`{text}`: `*` stands only for whole labels at the start, as in `*.shop.example`"
        )),
        None => host(&lower, text).map(HostPattern::Exact),
    }
}

/// `name` is lower case; `text` is what was written.
fn host(name: &str, text: &str) -> Result<String, String> {
    if name.contains("://") || name.contains('/') {
        return Err(format!("`{text}` is a URL, not a host name"));
    }
    if name.starts_with('[') && name.ends_with(']') {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        return match address.parse::<std::net::Ipv6Addr>() {
            Ok(address) => Ok(format!("[{address}]")),
            Err(_) => Err(format!("`{text}` is not an IPv6 address")),
        };
    }
    if name.contains(':') {
        return Err(format!("`{text}`: a host is matched without its port"));
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !name.is_ascii() {
        return Err(format!(
            "`{text}`: names outside ASCII are written in their `xn--` form"
        ));
    }
    match name.len() <= 253 && name.split('.').all(is_label) {
        true => Ok(name.into()),
        false => Err(format!("`{text}` is not a host name")),
    }
}

/// The name of hosts that a cookie is for, with those below it; lower case.
pub fn cookie_domain(text: &str) -> Result<String, String> {
    // A dot in front means nothing (RFC 6265 section 5.2.3).
    let lower = text.to_ascii_lowercase();
    let name = host(lower.strip_prefix('.').unwrap_or(&lower), text)?;
    match name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok() {
        true => Err(format!("`{text}` is an address: cookies for addresses have no domain")),
        false => Ok(name),
    }
}

/// `"10.0.0.0/8"` or a single address.
pub fn network(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<std::net::IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| format!("`{text}` is not a network"))?;
    match network.trunc() == network {
        true => Ok(network),
        false => Err(format!(
            "`{text}` has bits set behind its prefix: the network is `{}`",
            network.trunc()
        )),
    }
}

/// A list of networks.
pub fn networks(fields: &Fields<'_>, key: &str) -> Vec<IpNet> {
    let expected = "expected a network such as \"10.0.0.0/8\" or an address";
    let read = |node| parsed(fields.cx, node, expected, network).map(|found| found.value);
    fields
        .list(key, "a list of networks", read)
        .map(|found| found.value)
        .unwrap_or_default()
}

/// `{ name = "value" }` as header fields, each name once.
pub fn header_fields(fields: &Fields<'_>, key: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut list: Vec<(HeaderName, HeaderValue)> = Vec::new();
    let Some(entries) = fields.entries(key, "a table of header fields") else {
        return list;
    };
    for (name, node) in entries.value {
        let Ok(header) = HeaderName::from_bytes(name.value.as_bytes()) else {
            let message = format!("`{}` is not the name of a header field", name.value);
            fields.cx.push(Diagnostic::error(name.span, message));
            continue;
        };
        if list.iter().any(|(other, _)| *other == header) {
            let message = format!("the header field `{header}` stands here twice");
            fields
                .cx
                .push(Diagnostic::error(name.span, message).label("upper and lower case make no difference"));
            continue;
        }
        let expected = "expected the value of a header field";
        let value = parsed(fields.cx, node, expected, |text| {
            // Space around a value is not part of it (RFC 9110 section 5.5).
            match HeaderValue::from_str(text) {
                Ok(value) if text.trim() == text => Ok(value),
                Ok(_) => Err("the value of a header field neither begins nor ends with a space".into()),
                Err(_) => Err("the value of a header field cannot hold control characters".into()),
            }
        });
        if let Some(value) = value {
            list.push((header, value.value));
        }
    }
    list
}

/// Whether `text` is a token (RFC 9110 section 5.6.2): the name of a cookie, a method.
pub fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A zone's name; empty, as an unset variable leaves it, is none.
pub fn zone_name(text: &str) -> Option<std::sync::Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_host_patterns() {
        for (text, pattern) in [
            ("Shop.Example", HostPattern::Exact("shop.example".into())),
            ("shop.example.", HostPattern::Exact("shop.example".into())),
            ("*.Shop.example", HostPattern::Wildcard("shop.example".into())),
            ("localhost", HostPattern::Exact("localhost".into())),
            ("10.0.0.1", HostPattern::Exact("10.0.0.1".into())),
            ("[::0:1]", HostPattern::Exact("[::1]".into())),
        ] {
            assert_eq!(host_pattern(text), Ok(pattern), "{text}");
        }
        for text in [
            "",
            "*",
            "*.",
            "a.*.b",
            "*a.b",
            "a..b",
            "a b",
            "a:80",
            "http://a",
            "-a.b",
            "ü.example",
            "[x]",
        ] {
            assert!(host_pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_networks() {
        for (text, network_text) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("::/0", "::/0"),
            ("fd00::1", "fd00::1/128"),
        ] {
            assert_eq!(network(text).map(|n| n.to_string()), Ok(network_text.into()), "{text}");
        }
        for text in ["", "10.0.0.1/8", "10.0.0.0/33", "10.0.0", "all"] {
            assert!(network(text).is_err(), "{text}");
        }
    }
}

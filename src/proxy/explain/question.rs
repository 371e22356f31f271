//! What is asked about: a request as people write it, checked, and as a client would send it.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderName, HeaderValue, Method};
use serde::{Deserialize, Serialize};

use crate::h1::host;

/// A request to explain, as it is written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    #[serde(default = "get")]
    pub method: String,
    /// `https://host[:port]/path?query`.
    pub url: String,
    /// Each `name: value`.
    #[serde(default)]
    pub headers: Vec<String>,
    /// The client's address.
    #[serde(default = "loopback")]
    pub from: IpAddr,
    /// The listener it comes in by; else the URL's port tells.
    #[serde(default)]
    pub listener: Option<String>,
}

fn get() -> String {
    "GET".to_owned()
}

fn loopback() -> IpAddr {
    Ipv4Addr::LOCALHOST.into()
}

/// What is wrong with a question, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wrong {
    pub error: String,
    pub help: String,
}

impl Wrong {
    pub fn new(error: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            help: help.into(),
        }
    }
}

/// A question without a fault.
#[derive(Debug)]
pub struct Asked {
    pub https: bool,
    /// The URL's host in lower case, without its port: what a client sends as server name, if it is a name.
    pub host: String,
    pub port: u16,
    /// The head of the request over HTTP/1.1.
    pub head: String,
}

impl Question {
    /// Reads it; the first fault ends that.
    pub fn read(&self) -> Result<Asked, Wrong> {
        let method = method(&self.method)?;
        let (https, authority, target) = url(&self.url)?;
        let fields = self
            .headers
            .iter()
            .map(|line| field(line))
            .collect::<Result<Vec<_>, _>>()?;
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        // As with curl, who writes a Host means it.
        if !fields.iter().any(|(name, _)| *name == http::header::HOST) {
            // Writing to a string cannot fail.
            let _ = write!(head, "Host: {authority}\r\n");
        }
        for (name, value) in fields {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head.push_str("\r\n");
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        Ok(Asked {
            https,
            host: host::name(authority).into_owned(),
            port: port.unwrap_or(if https { 443 } else { 80 }),
            head,
        })
    }
}

impl Asked {
    /// What a client of TLS asks for: no name where the URL has an address (RFC 6066 section 3).
    pub fn server_name(&self) -> Option<&str> {
        let is_name = self.address().is_none();
        (self.https && is_name).then_some(&*self.host)
    }

    /// The URL's host, where it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare.parse().ok()
    }
}

fn method(text: &str) -> Result<Method, Wrong> {
    let wrong = |help: String| Err(Wrong::new(format!("`{text}` is not a method"), help));
    if text.contains("://") {
        return wrong(format!("the method comes first, as in `GET {text}`"));
    }
    let upper = text.to_ascii_uppercase();
    let usual = [
        "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "QUERY", "PURGE",
    ];
    if upper != text && usual.contains(&upper.as_str()) {
        return wrong(format!("methods are upper case: write `{upper}`"));
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(method) => Ok(method),
        Err(_) => wrong("write a word such as GET or POST".to_owned()),
    }
}

/// Whether it is https, its authority, and the target a client makes of it.
fn url(text: &str) -> Result<(bool, &str, String), Wrong> {
    let wrong = |error: &str, help: String| Err(Wrong::new(format!("`{text}`: {error}"), help));
    let (https, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (false, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("ws") || scheme.eq_ignore_ascii_case("wss") => {
            let scheme = if scheme.len() == 3 { "https" } else { "http" };
            let help = format!(
                "WebSockets begin as HTTP: write `{scheme}://{rest}` and -H 'Connection: upgrade' -H 'Upgrade: websocket'"
            );
            return wrong("the scheme is neither http nor https", help);
        }
        Some((_, rest)) => {
            return wrong(
                "the scheme is neither http nor https",
                format!("write `https://{rest}` or `http://{rest}`"),
            );
        }
        None if text.starts_with('/') => {
            return wrong(
                "the host is missing",
                format!("write it whole, as in `https://host{text}`"),
            );
        }
        None => {
            return wrong(
                "the scheme is missing",
                format!("write `https://{text}` or `http://{text}`"),
            );
        }
    };
    // What follows `#` is for the client alone.
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if authority.is_empty() {
        return wrong(
            "the host is missing",
            "write it whole, as in `https://shop.example/path`".to_owned(),
        );
    }
    if authority.contains('@') {
        let help = "clients send them as a field: leave them out and write -H 'Authorization: …'".to_owned();
        return wrong("user name and password are no part of a request's URL", help);
    }
    if !host::validate(authority.as_bytes()) {
        let help =
            "a host is a name, an IPv4 address or an IPv6 address in brackets, and may have a port from 0 to 65535";
        return wrong(&format!("`{authority}` is not a host"), help.to_owned());
    }
    if let Some(c) = target.chars().find(|c| c.is_whitespace() || c.is_control()) {
        return wrong(
            &format!("{c:?} cannot stand in a URL"),
            format!("write it percent-encoded: `{}`", encoded(c)),
        );
    }
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((https, authority, format!("{slash}{target}")))
}

fn encoded(c: char) -> String {
    let mut bytes = [0; 4];
    c.encode_utf8(&mut bytes)
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect()
}

fn field(line: &str) -> Result<(HeaderName, String), Wrong> {
    let Some((name, value)) = line.split_once(':') else {
        let help = "write `name: value`, in quotes so that the shell leaves it whole".to_owned();
        return Err(Wrong::new(
            format!("`{line}` is not a header field: it has no colon"),
            help,
        ));
    };
    let value = value.trim_matches([' ', '\t']);
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        let help = match name.trim() == name {
            true => "a name is letters, digits and hyphens",
            false => "no space may stand before the colon or before the name",
        };
        return Err(Wrong::new(format!("`{name}` is not the name of a header field"), help));
    };
    match HeaderValue::from_str(value) {
        Ok(_) => Ok((known, value.to_owned())),
        Err(_) => Err(Wrong::new(
            format!("the value of `{name}` cannot be sent"),
            "it may hold visible ASCII characters, spaces and tabs",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, url: &str, headers: &[&str]) -> Result<Asked, Wrong> {
        let question = Question {
            method: method.into(),
            url: url.into(),
            headers: headers.iter().map(|line| (*line).into()).collect(),
            from: loopback(),
            listener: None,
        };
        question.read()
    }

    #[test]
    fn a_question_becomes_the_head_a_client_would_send() {
        let asked = ask(
            "GET",
            "https://Shop.example:8443/a?b=c#d",
            &["X-Canary:yes", "x-two: a b "],
        )
        .unwrap();
        assert_eq!(
            asked.head,
            "GET /a?b=c HTTP/1.1\r\nHost: Shop.example:8443\r\nx-canary: yes\r\nx-two: a b\r\n\r\n"
        );
        assert_eq!(
            (asked.https, &*asked.host, asked.port, asked.server_name()),
            (true, "shop.example", 8443, Some("shop.example"))
        );
        let asked = ask("HEAD", "http://[::1]?q", &["host: other"]).unwrap();
        assert_eq!(asked.head, "HEAD /?q HTTP/1.1\r\nhost: other\r\n\r\n");
        assert_eq!((asked.port, asked.server_name()), (80, None));
        assert_eq!(asked.address(), "::1".parse().ok());
        assert_eq!(ask("GET", "https://10.0.0.1/", &[]).unwrap().server_name(), None);
    }

    #[test]
    fn mistakes_come_with_advice() {
        for (method, url, header, error, help) in [
            ("get", "http://a/", "", "`get` is not a method", "write `GET`"),
            ("G T", "http://a/", "", "`G T` is not a method", "a word such as GET"),
            ("https://a/", "GET", "", "is not a method", "`GET https://a/`"),
            (
                "GET",
                "shop.example/x",
                "",
                "the scheme is missing",
                "`https://shop.example/x`",
            ),
            ("GET", "/x", "", "the host is missing", "`https://host/x`"),
            ("GET", "ftp://a/x", "", "neither http nor https", "`https://a/x`"),
            ("GET", "wss://a/x", "", "neither http nor https", "`https://a/x` and -H"),
            (
                "GET",
                "http:///x",
                "",
                "the host is missing",
                "https://shop.example/path",
            ),
            (
                "GET",
                "http://u:p@a/x",
                "",
                "no part of a request's URL",
                "-H 'Authorization",
            ),
            ("GET", "http://a:99999/x", "", "`a:99999` is not a host", "0 to 65535"),
            ("GET", "http://a/x y", "", "' ' cannot stand in a URL", "`%20`"),
            ("GET", "http://a/", "x-canary yes", "has no colon", "`name: value`"),
            (
                "GET",
                "http://a/",
                "x canary: yes",
                "not the name of a header field",
                "letters, digits",
            ),
            (
                "GET",
                "http://a/",
                "x-canary : yes",
                "not the name of a header field",
                "before the colon",
            ),
            ("GET", "http://a/", "x: a\nb", "cannot be sent", "visible ASCII"),
        ] {
            let headers: Vec<&str> = Some(header).into_iter().filter(|header| !header.is_empty()).collect();
            let wrong = ask(method, url, &headers).unwrap_err();
            assert!(
                wrong.error.contains(error) && wrong.help.contains(help),
                "{method} {url}: {wrong:?}"
            );
        }
    }
}

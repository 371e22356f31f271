//! Addresses as written in the configuration: where to bind, where to dial.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::race::Addrs;

/// Where a listener waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BindAddr {
    /// `":8080"`: every address of both families; IPv4 alone where IPv6 is off.
    Any(u16),
    Ip(SocketAddr),
    /// `"unix:/path"`.
    Unix(PathBuf),
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointAddr {
    Ip(SocketAddr),
    /// A host name, resolved again and again while the proxy runs.
    Name {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// An endpoint's address with its name resolved: what can be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DialAddr {
    Ip(SocketAddr),
    Unix(PathBuf),
    /// All addresses of a name as one endpoint: whichever answers first.
    Any(Arc<Addrs>),
}

impl BindAddr {
    /// Reads `"host:port"` (a literal address), `"[v6]:port"`, `":port"` or `"unix:/path"`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Unix);
        }
        if let Some(port) = port_alone(text) {
            return Ok(Self::Any(bind_port(port)?));
        }
        let (host, _) = split(text)?;
        match text.parse() {
            Ok(addr) => Ok(Self::Ip(addr)),
            Err(_) if host == "localhost" => {
                Ok(Self::Ip(SocketAddr::from(([127, 0, 0, 1], bind_port(split(text)?.1)?))))
            }
            Err(_) => Err(format!(
                "`{text}` is not an address to bind: expected `address:port`, `[v6]:port`, `:port` or `unix:/path`"
            )),
        }
    }

    /// The port, where there is one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Any(port) => Some(*port),
            Self::Ip(addr) => Some(addr.port()),
            Self::Unix(_) => None,
        }
    }
}

impl EndpointAddr {
    /// Reads `"host:port"` (address or name), `"[v6]:port"`, `":port"` (this machine) or `"unix:/path"`.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return unix(path).map(Self::Unix);
        }
        if let Some(port) = port_alone(text) {
            return Ok(Self::Ip(SocketAddr::from(([127, 0, 0, 1], dial_port(port)?))));
        }
        if text.contains("://") {
            return Err(format!(
                "`{text}` is a URL: write the address alone, as `host:port` (TLS is set by `tls`)"
            ));
        }
        let (host, port) = split(text)?;
        let port = dial_port(port)?;
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self::Ip(addr));
        }
        let label_ok = |l: &str| {
            !l.is_empty() && l.len() <= 63 && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let looks_numeric = name
            .rsplit('.')
            .next()
            .is_some_and(|l| l.bytes().all(|b| b.is_ascii_digit()));
        if name.len() > 253 || !name.split('.').all(label_ok) || looks_numeric {
            return Err(format!("`{host}` is neither an IP address nor a host name"));
        }
        Ok(Self::Name {
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

fn unix(path: &str) -> Result<PathBuf, String> {
    // sun_path holds 108 bytes with its closing NUL (unix(7)).
    match path.len() {
        0 => Err("a Unix socket needs a path: `unix:/run/name.sock`".into()),
        1..=107 => Ok(PathBuf::from(path)),
        _ => Err("a Unix socket's path holds at most 107 bytes".into()),
    }
}

/// The port of `":port"`; an IPv6 address without brackets is none.
fn port_alone(text: &str) -> Option<&str> {
    text.strip_prefix(':').filter(|port| !port.contains(':'))
}

fn split(text: &str) -> Result<(&str, &str), String> {
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(format!("`{text}` has no port: expected `host:port`"));
    };
    if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
        return Err(format!(
            "`{text}`: an IPv6 address stands in brackets, as in `[::1]:8080`"
        ));
    }
    Ok((host, port))
}

fn bind_port(text: &str) -> Result<u16, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not a port: expected 0 to 65535"))
}

fn dial_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("`{text}` is not a port: expected 1 to 65535")),
        Ok(port) => Ok(port),
    }
}

impl fmt::Display for BindAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(port) => write!(f, ":{port}"),
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for EndpointAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for DialAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Any(addrs) => addrs.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_reference_names() {
        assert_eq!(BindAddr::parse(":80"), Ok(BindAddr::Any(80)));
        assert_eq!(BindAddr::parse("[::]:80").map(|a| a.to_string()), Ok("[::]:80".into()));
        assert_eq!(
            BindAddr::parse("unix:/run/a.sock"),
            Ok(BindAddr::Unix("/run/a.sock".into()))
        );
        assert_eq!(
            EndpointAddr::parse("Api.Example:80"),
            Ok(EndpointAddr::Name {
                host: "api.example".into(),
                port: 80
            })
        );
        assert_eq!(
            EndpointAddr::parse(":9001").map(|a| a.to_string()),
            Ok("127.0.0.1:9001".into())
        );
    }

    #[test]
    fn refuses_the_rest_with_a_reason() {
        for (text, part) in [
            ("::1:80", "brackets"),
            ("10.0.0.1", "no port"),
            ("10.0.0.256:80", "neither"),
            ("a b:80", "neither"),
            ("http://a:80", "URL"),
            ("a:0", "port"),
            ("a:70000", "port"),
            ("unix:", "path"),
        ] {
            let error = EndpointAddr::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert!(BindAddr::parse("example.com:80").is_err());
        assert!(BindAddr::parse("::1:80").is_err_and(|error| error.contains("brackets")));
    }
}

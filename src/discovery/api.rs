//! What sources with an HTTP API are asked with: one request on a connection of its own, everything bounded.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, TlsStream};

use super::dns::Resolver;
use crate::base::secret::Secret;
use crate::base::task::{self, Handle};
use crate::net::addr::DialAddr;
use crate::net::dial::{self, Opening};
use crate::net::stream::Stream;
use crate::tls::io::Io;
use crate::tls::{ClientSpec, client};

/// Name resolution, connection and TLS handshake together.
const CONNECT: Duration = Duration::from_secs(5);
/// Of one address among several.
const CONNECT_ONE: Duration = Duration::from_secs(2);
/// A connection whose other end has vanished is noticed so: silence alone says nothing while we wait for news.
const KEEPALIVE: Duration = Duration::from_secs(30);
const MAX_HEAD: usize = 64 << 10;
const AGENT: HeaderValue = HeaderValue::from_static(concat!("evenkeel/", env!("CARGO_PKG_VERSION")));

/// `http://host:port` or `https://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    pub tls: bool,
    /// A name or an address, without brackets.
    host: String,
    port: u16,
}

impl Url {
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|_| format!("`{text}` is not a URL"))?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(format!("`{text}` begins neither with `http://` nor with `https://`")),
        };
        let authority = uri.authority().ok_or_else(|| format!("`{text}` names no host"))?;
        if authority.as_str().contains('@') || !matches!(uri.path_and_query().map_or("/", |p| p.as_str()), "/") {
            return Err(format!("`{text}`: only a host and a port can stand there"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
        if host.is_empty() || port == 0 {
            return Err(format!("`{text}` names no host and port"));
        }
        Ok(Self::new(tls, host, port))
    }

    pub fn new(tls: bool, host: &str, port: u16) -> Self {
        Self {
            tls,
            host: host.to_ascii_lowercase(),
            port,
        }
    }

    /// It stays on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse().is_ok_and(|addr: IpAddr| addr.is_loopback())
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http{}://{}", if self.tls { "s" } else { "" }, self.authority())
    }
}

/// How TLS is spoken to a server.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// Instead of the URL's host.
    server_name: Option<String>,
}

impl Tls {
    pub fn new(spec: &ClientSpec) -> Result<Self, String> {
        Ok(Self {
            config: client::config(spec, &[]).map_err(|e| format!("TLS: {e}"))?,
            server_name: spec.server_name.clone(),
        })
    }
}

/// `token` as the value of a header field, before which `prefix` stands.
pub fn credentials(prefix: &str, token: &Secret) -> Result<HeaderValue, String> {
    let text = format!("{prefix}{}", token.expose());
    let mut value = HeaderValue::from_str(&text).map_err(|_| "the token has control characters")?;
    value.set_sensitive(true);
    Ok(value)
}

/// An answer with status 200; the connection ends when it is dropped.
#[derive(Debug)]
pub struct Answer {
    pub headers: HeaderMap,
    body: Incoming,
    _connection: Handle,
}

/// Asks for `target`; the head of the answer must come `within` so long. `Err((status, reason))`; the status is 0 when
/// there is no answer.
pub async fn get(
    resolver: &Resolver,
    url: &Url,
    tls: Option<&Tls>,
    target: &str,
    fields: Vec<(HeaderName, HeaderValue)>,
    within: Duration,
) -> Result<Answer, (u16, String)> {
    let unanswered = |reason: String| (0, reason);
    let request = request(url, target, fields).map_err(unanswered)?;
    let io = match timeout(CONNECT, connect(resolver, url, tls)).await {
        Ok(connected) => connected.map_err(unanswered)?,
        Err(_) => return Err((0, format!("no connection within {CONNECT:?}"))),
    };
    let exchange = async {
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        let connection = task::spawn(async {
            // Whoever reads the answer learns of its failure.
            let _ = connection.await;
        });
        Ok((sender.send_request(request).await?, connection))
    };
    let (response, connection) = match timeout(within, exchange).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(e)) => return Err((0, explain(&e))),
        Err(_) => return Err((0, format!("no answer within {within:?}"))),
    };
    let (head, body) = response.into_parts();
    let answer = Answer {
        headers: head.headers,
        body,
        _connection: connection,
    };
    match head.status.as_u16() {
        200 => Ok(answer),
        status => Err((status, format!("status {status}{}", answer.reason().await))),
    }
}

impl Answer {
    /// The next bytes; `None`: it has ended. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Bytes>, String> {
        loop {
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(e)) => return Err(explain(&e)),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// All of it, at most `max` bytes, `within` so long.
    pub async fn whole(mut self, max: usize, within: Duration) -> Result<Vec<u8>, String> {
        let read = async {
            let mut all = Vec::new();
            while let Some(data) = self.next().await? {
                if all.len() + data.len() > max {
                    return Err(format!("the answer is larger than {max} bytes"));
                }
                all.extend_from_slice(&data);
            }
            Ok(all)
        };
        match timeout(within, read).await {
            Ok(result) => result,
            Err(_) => Err(format!("the answer did not end within {within:?}")),
        }
    }

    /// An error's text.
    async fn reason(self) -> String {
        let body = self.whole(MAX_HEAD, CONNECT_ONE).await.unwrap_or_default();
        match String::from_utf8_lossy(&body).trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }
}

fn request(url: &Url, target: &str, fields: Vec<(HeaderName, HeaderValue)>) -> Result<Request<Empty<Bytes>>, String> {
    let wrong = |e: http::Error| format!("the request cannot be made: {e}");
    let mut request = Request::get(target)
        .header(HOST, url.authority())
        .header(USER_AGENT, AGENT)
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close")
        .body(Empty::new())
        .map_err(wrong)?;
    request.headers_mut().extend(fields);
    Ok(request)
}

async fn connect(resolver: &Resolver, url: &Url, tls: Option<&Tls>) -> Result<Io, String> {
    let addrs = match url.host.parse::<IpAddr>() {
        Ok(addr) => vec![addr],
        Err(_) => {
            let resolved = resolver.lookup(&url.host).await;
            resolved.map_err(|e| format!("`{}`: {}", url.host, e.reason))?.addrs
        }
    };
    let stream = one_of(&addrs, url.port).await?;
    if let Stream::Tcp(stream) = &stream {
        let keepalive = socket2::TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE / 3);
        // Best effort: without it a vanished peer is noticed when the wait is over.
        let _ = socket2::SockRef::from(stream).set_tcp_keepalive(&keepalive);
    }
    let Some(tls) = tls else {
        return Ok(Io::Plain(stream));
    };
    let name = client::name(tls.server_name.as_deref().unwrap_or(&url.host))?;
    let handshake = TlsConnector::from(tls.config.clone()).connect(name, stream).await;
    let tls = handshake.map_err(|e| format!("TLS handshake failed: {e}"))?;
    Ok(Io::Tls(Box::new(TlsStream::Client(tls))))
}

/// The first address that answers.
async fn one_of(addrs: &[IpAddr], port: u16) -> Result<Stream, String> {
    let mut last = String::new();
    for addr in addrs {
        let addr = SocketAddr::new(*addr, port);
        match timeout(CONNECT_ONE, dial::connect(&DialAddr::Ip(addr), Opening::Ours)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(e)) => last = format!("cannot connect to {addr}: {e}"),
            Err(_) => last = format!("no connection to {addr} within {CONNECT_ONE:?}"),
        }
    }
    Err(last)
}

fn explain(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_urls() {
        for (text, shown) in [
            ("http://127.0.0.1:8500", "http://127.0.0.1:8500"),
            ("https://Consul.internal/", "https://consul.internal:443"),
            ("http://[::1]:8500", "http://[::1]:8500"),
            ("http://a", "http://a:80"),
        ] {
            assert_eq!(Url::parse(text).map(|url| url.to_string()), Ok(shown.into()), "{text}");
        }
        for text in [
            "",
            "a:80",
            "ftp://a",
            "http://",
            "http://u:p@a",
            "http://a/path",
            "http://a?x",
            "http://a:0",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_breaks_out_of_no_header() {
        assert!(credentials("", &Secret::new("a\nb")).is_err());
        assert!(credentials("Bearer ", &Secret::new("ab")).unwrap().is_sensitive());
    }

    /// One answer with these bytes, then the end of the connection; what `get` and `whole` make of it.
    async fn ask(bytes: &'static [u8]) -> Result<Vec<u8>, (u16, String)> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::new(false, "127.0.0.1", listener.local_addr().unwrap().port());
        let serve = task::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let len = stream.read(&mut head).await.unwrap();
            assert!(head[..len].starts_with(b"GET /x HTTP/1.1\r\n"));
            stream.write_all(bytes).await.unwrap();
        });
        let second = Duration::from_secs(1);
        let answer = get(&Resolver::system(), &url, None, "/x", Vec::new(), second).await?;
        let whole = answer.whole(100, second).await.map_err(|e| (200, e));
        drop(serve);
        whole
    }

    #[tokio::test]
    async fn answers_are_bounded_and_errors_have_reasons() {
        assert_eq!(
            ask(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await,
            Ok(b"ok".to_vec())
        );
        let forbidden = ask(b"HTTP/1.1 403 X\r\ncontent-length: 12\r\n\r\n ACL denied\n").await;
        assert_eq!(forbidden, Err((403, "status 403: ACL denied".into())));
        let broken = ask(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok").await;
        assert_eq!(broken.unwrap_err().0, 200);
        let large = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n80\r\n\
            aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\
            aaaaaaaaaaaaaaaaaaaaaaaa\r\n0\r\n\r\n";
        assert_eq!(
            ask(large).await,
            Err((200, "the answer is larger than 100 bytes".into()))
        );
        assert_eq!(ask(b"\xff\xff\xff").await.unwrap_err().0, 0);
        assert_eq!(ask(b"").await.unwrap_err().0, 0);
    }
}

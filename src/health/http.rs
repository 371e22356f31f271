//! The HTTP probe: one request on a connection of its own, and whether its answer is what was expected.

use std::future::Future;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use memchr::memmem;

use super::HttpProbe;
use super::tcp::reason;
use crate::net::addr::EndpointAddr;
use crate::tls::io::Io;

/// How much of a body is read and searched.
const MAX_BODY: usize = 64 * 1024;
/// Bounds of what an endpoint can make a probe remember of the head of an answer.
const MAX_HEAD: usize = 64 * 1024;
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("evenkeel-health/", env!("CARGO_PKG_VERSION")));

/// Sends the request of `probe` on `io` and judges the answer; HTTP/2 when `h2` is set or TLS agreed on it.
///
/// The whole answer must come, up to 64 KiB of its body: an endpoint that stops half-way is not well. The
/// caller gives the deadline; dropping the future closes the connection.
pub async fn exchange(io: Io, probe: &HttpProbe, configured: &EndpointAddr, h2: bool) -> Result<(), String> {
    let (tls, agreed) = match &io {
        Io::Plain(_) => (false, false),
        Io::Tls(tls) => (true, tls.get_ref().1.alpn_protocol() == Some(b"h2")),
    };
    let host = probe.host.clone().unwrap_or_else(|| default_host(configured, tls));
    let (status, body) = if h2 || agreed {
        http2(io, request(probe, &host, Some(tls))?).await?
    } else {
        http1(io, request(probe, &host, None)?).await?
    };
    judge(probe, status, &body)
}

/// Whether an answer is what `probe` expects.
fn judge(probe: &HttpProbe, status: StatusCode, body: &[u8]) -> Result<(), String> {
    let code = status.as_u16();
    if !probe
        .expect_status
        .iter()
        .any(|(first, last)| (*first..=*last).contains(&code))
    {
        let expected: Vec<_> = probe
            .expect_status
            .iter()
            .map(|(first, last)| {
                if first == last {
                    first.to_string()
                } else {
                    format!("{first}-{last}")
                }
            })
            .collect();
        return Err(format!("status {code}, expected {}", expected.join(", ")));
    }
    match &probe.expect_body {
        Some(text) if memmem::find(body, text.as_bytes()).is_none() => Err(format!("body lacks `{text}`")),
        _ => Ok(()),
    }
}

/// The request; with `over_tls` given, in the form of HTTP/2: names in the URI, nothing about connections.
fn request(probe: &HttpProbe, host: &str, over_tls: Option<bool>) -> Result<Request<Empty<Bytes>>, String> {
    let wrong = |e: http::Error| format!("the request cannot be made: {e}");
    let path = PathAndQuery::try_from(probe.path.as_str()).map_err(|e| wrong(e.into()))?;
    let mut headers: HeaderMap = probe.headers.iter().cloned().collect();
    headers.entry(USER_AGENT).or_insert(AGENT);
    let (uri, version) = match over_tls {
        None => {
            let host = HeaderValue::from_str(host).map_err(|e| wrong(e.into()))?;
            headers.entry(HOST).or_insert(host);
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            (Uri::from(path), Version::HTTP_11)
        }
        Some(tls) => {
            let mut parts = http::uri::Parts::default();
            parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
            parts.authority = Some(Authority::try_from(host).map_err(|e| wrong(e.into()))?);
            parts.path_and_query = Some(path);
            (Uri::from_parts(parts).map_err(|e| wrong(e.into()))?, Version::HTTP_2)
        }
    };
    let mut request = Request::new(Empty::new());
    *request.method_mut() = probe.method.clone();
    *request.uri_mut() = uri;
    *request.version_mut() = version;
    *request.headers_mut() = headers;
    Ok(request)
}

/// The endpoint's address as a Host field, without the scheme's own port.
pub(super) fn default_host(configured: &EndpointAddr, tls: bool) -> String {
    let own = if tls { 443 } else { 80 };
    match configured {
        EndpointAddr::Ip(addr) if addr.port() != own => addr.to_string(),
        EndpointAddr::Ip(addr) if addr.is_ipv6() => format!("[{}]", addr.ip()),
        EndpointAddr::Ip(addr) => addr.ip().to_string(),
        EndpointAddr::Name { host, port } if *port != own => format!("{}:{port}", host.trim_end_matches('.')),
        EndpointAddr::Name { host, .. } => host.trim_end_matches('.').to_owned(),
        EndpointAddr::Unix(_) => "localhost".to_owned(),
    }
}

async fn http1(io: Io, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Vec<u8>), String> {
    let mut builder = hyper::client::conn::http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(|e| explain(&e))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|e| explain(&e))?;
        let (head, mut incoming) = response.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = incoming.frame().await
            && take(&mut body, frame.map_err(|e| explain(&e))?.data_ref().map_or(&[], |d| d))
        {}
        Ok((head.status, body))
    };
    beside(connection, answer).await
}

async fn http2(io: Io, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Vec<u8>), String> {
    let wrong = |e: h2::Error| h2_reason(&e);
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(MAX_HEAD as u32).enable_push(false);
    let (sender, connection) = builder.handshake::<_, Bytes>(io).await.map_err(wrong)?;
    let answer = async {
        let mut sender = sender.ready().await.map_err(wrong)?;
        let (response, _) = sender.send_request(request.map(|_| ()), true).map_err(wrong)?;
        let (head, mut incoming) = response.await.map_err(wrong)?.into_parts();
        let mut body = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data.map_err(wrong)?;
            // Fails only for more than was received.
            let _ = incoming.flow_control().release_capacity(data.len());
            if !take(&mut body, &data) {
                break;
            }
        }
        Ok((head.status, body))
    };
    beside(connection, answer).await
}

/// Adds to the body what fits; whether there is room for more.
fn take(body: &mut Vec<u8>, data: &[u8]) -> bool {
    let room = MAX_BODY - body.len();
    body.extend_from_slice(&data[..data.len().min(room)]);
    body.len() < MAX_BODY
}

/// Runs `connection` for as long as `answer` needs it. When the connection ends first, `answer` learns so.
pub(super) async fn beside<T>(connection: impl Future, answer: impl Future<Output = T>) -> T {
    let connection = async {
        connection.await;
        std::future::pending::<std::convert::Infallible>().await
    };
    tokio::select! {
        answer = answer => answer,
        never = connection => match never {},
    }
}

pub(super) fn h2_reason(error: &h2::Error) -> String {
    match error.get_io() {
        Some(e) => reason(e),
        None => format!("HTTP/2: {error}"),
    }
}

fn explain(error: &hyper::Error) -> String {
    if error.is_incomplete_message() {
        return "the connection ended before the answer did".to_owned();
    }
    let source = std::error::Error::source(error);
    if let Some(io) = source.and_then(|s| s.downcast_ref::<std::io::Error>()) {
        return reason(io);
    }
    if error.is_parse() {
        return format!("the answer is not HTTP: {error}");
    }
    error.to_string()
}

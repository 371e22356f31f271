//! The gRPC probe: `grpc.health.v1.Health/Check`, one call over HTTP/2 on a connection of its own.
//!
//! Its two messages have one field each, so they are written and read here by hand:
//! `HealthCheckRequest { string service = 1; }` and `HealthCheckResponse { ServingStatus status = 1; }`.

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, TE, USER_AGENT};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, Version};

use super::Failed;
use super::http::{AGENT, beside, default_host, h2_reason};
use crate::net::addr::EndpointAddr;
use crate::tls::io::Io;

/// What can be made of an answer; the real one has 7 bytes.
const MAX_ANSWER: usize = 4096;
const PATH: &str = "/grpc.health.v1.Health/Check";

/// Asks whether `service` (empty: the server as a whole) serves.
pub async fn check(io: Io, service: &str, configured: &EndpointAddr) -> Result<(), Failed> {
    let tls = match &io {
        Io::Plain(_) => false,
        Io::Tls(tls) => match tls.get_ref().1.alpn_protocol() {
            Some(b"h2") => true,
            _ => return Err(Failed::Answer("TLS did not agree on HTTP/2".into())),
        },
    };
    let request = request(configured, tls)?;
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(16 * 1024).enable_push(false);
    let wrong = |e: h2::Error| Failed::Answer(h2_reason(&e));
    let (sender, connection) = builder.handshake::<_, Bytes>(io).await.map_err(wrong)?;
    let answer = async {
        let mut sender = sender.ready().await.map_err(wrong)?;
        let (response, mut body) = sender.send_request(request, false).map_err(wrong)?;
        body.send_data(message(service), true).map_err(wrong)?;
        let (head, mut incoming) = response.await.map_err(wrong)?.into_parts();
        if head.status != StatusCode::OK {
            return Err(Failed::Answer(format!("HTTP status {}", head.status.as_u16())));
        }
        // An error may stand in the head alone.
        status(&head.headers)?;
        let mut seen = Vec::new();
        while let Some(data) = incoming.data().await {
            let data = data.map_err(wrong)?;
            // Fails only for more than was received.
            let _ = incoming.flow_control().release_capacity(data.len());
            seen.extend_from_slice(&data);
            if seen.len() > MAX_ANSWER {
                return Err(Failed::Answer("the answer is too long".into()));
            }
        }
        if let Some(trailers) = incoming.trailers().await.map_err(wrong)? {
            status(&trailers)?;
        }
        judge(&seen)
    };
    beside(connection, answer).await
}

fn request(configured: &EndpointAddr, tls: bool) -> Result<Request<()>, Failed> {
    let wrong = |e: http::Error| Failed::Answer(format!("the request cannot be made: {e}"));
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(if tls { Scheme::HTTPS } else { Scheme::HTTP });
    let host = default_host(configured, tls);
    parts.authority = Some(Authority::try_from(host).map_err(|e| wrong(e.into()))?);
    parts.path_and_query = Some(PathAndQuery::from_static(PATH));
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_parts(parts).map_err(|e| wrong(e.into()))?;
    *request.version_mut() = Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(USER_AGENT, AGENT);
    Ok(request)
}

/// The request's message, uncompressed, with its length in front.
fn message(service: &str) -> Bytes {
    let mut field = BytesMut::new();
    if !service.is_empty() {
        // Field 1, of a length that follows (wire type 2).
        field.put_u8(0x0a);
        varint(&mut field, service.len() as u64);
        field.put_slice(service.as_bytes());
    }
    let mut message = BytesMut::with_capacity(5 + field.len());
    message.put_u8(0);
    message.put_u32(field.len() as u32);
    message.put(field);
    message.freeze()
}

fn varint(into: &mut BytesMut, mut n: u64) {
    while n >= 0x80 {
        into.put_u8(n as u8 | 0x80);
        n >>= 7;
    }
    into.put_u8(n as u8);
}

/// `grpc-status`, where it stands.
fn status(headers: &HeaderMap) -> Result<(), Failed> {
    let Some(status) = headers.get("grpc-status") else {
        return Ok(());
    };
    let status = String::from_utf8_lossy(status.as_bytes());
    if status == "0" {
        return Ok(());
    }
    let name = match &*status {
        "5" => " (unknown service)",
        "12" => " (no health service)",
        _ => "",
    };
    let message = headers
        .get("grpc-message")
        .map(|m| super::expect::excerpt(m.as_bytes()));
    Err(Failed::Answer(match message.filter(|m| !m.is_empty()) {
        Some(message) => format!("gRPC status {status}{name}: {message}"),
        None => format!("gRPC status {status}{name}"),
    }))
}

/// What the answer's message says.
fn judge(answer: &[u8]) -> Result<(), Failed> {
    let bad = || Failed::Answer("the answer is not a gRPC health response".into());
    let (prefix, message) = answer.split_at_checked(5).ok_or_else(bad)?;
    let [compressed, length @ ..] = prefix else {
        return Err(bad());
    };
    let length: [u8; 4] = length.try_into().map_err(|_| bad())?;
    if *compressed != 0 || u32::from_be_bytes(length) as usize != message.len() {
        return Err(bad());
    }
    // An absent field is 0: unknown.
    match message {
        [] | [0x08, 0] => Err(Failed::Answer("status UNKNOWN".into())),
        [0x08, 1] => Ok(()),
        [0x08, 2] => Err(Failed::Answer("status NOT_SERVING".into())),
        [0x08, 3] => Err(Failed::Answer("status SERVICE_UNKNOWN".into())),
        _ => Err(bad()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_as_protobuf_writes_them() {
        assert_eq!(&message("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(&message("shop")[..], b"\0\0\0\0\x06\x0a\x04shop");
        let long = "s".repeat(300);
        assert_eq!(&message(&long)[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 0x02]);
    }

    #[test]
    fn only_serving_passes() {
        assert!(judge(&[0, 0, 0, 0, 2, 8, 1]).is_ok());
        for (answer, expected) in [
            (&[0, 0, 0, 0, 2, 8, 2][..], "NOT_SERVING"),
            (&[0, 0, 0, 0, 2, 8, 3], "SERVICE_UNKNOWN"),
            (&[0, 0, 0, 0, 0], "UNKNOWN"),
            (&[], "not a gRPC"),
            (&[1, 0, 0, 0, 2, 8, 1], "not a gRPC"),
            (&[0, 0, 0, 0, 9, 8, 1], "not a gRPC"),
        ] {
            let failed = judge(answer).unwrap_err();
            assert!(failed.to_string().contains(expected), "{failed}");
        }
    }
}

//! An attempt over HTTP/2: hyper's client, and what its errors mean.

use std::future::Future;
use std::task::Poll;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Uri, header};

use super::{Answer, Outgoing, Patience};
use crate::fields::{Known, Set};
use crate::net::deadline::Deadline;
use crate::pool::h2::H2Lease;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::http::upload::Upload;
use crate::upstream::Upstream;

/// Sends the request as a stream and waits for the response's head.
pub(super) async fn over_h2(
    upstream: &Upstream,
    request: &Outgoing<'_>,
    mut lease: H2Lease<Upload>,
    patience: Patience,
) -> Result<Answer, ProxyError> {
    let message = h2_request(upstream, request)?;
    let mut deadline = Deadline::default();
    deadline.set_at(patience.until);
    let mut response = std::pin::pin!(lease.send.try_send_request(message));
    let answered = std::future::poll_fn(|cx| {
        if let Poll::Ready(answered) = response.as_mut().poll(cx) {
            return Poll::Ready(Some(answered));
        }
        if let Some(body) = request.body {
            body.borrow_mut().extend(&mut deadline, patience.pause);
        }
        deadline.poll(cx).map(|()| None)
    })
    .await;
    match answered {
        None => Err(ProxyError::new(patience.late, "no response head in time")),
        Some(Ok(response)) => {
            let (parts, incoming) = response.into_parts();
            Ok(Answer::H2(incoming, parts, lease.permit))
        }
        Some(Err(mut e)) => {
            // The client's own failure shows here as a cancelled stream.
            if let Some(failure) = request.body.and_then(|body| body.borrow().failure()) {
                return Err(failure);
            }
            let kind = match e.error() {
                e if reason(e) == Some(h2::Reason::REFUSED_STREAM) => Kind::Refused,
                _ => Kind::Reset,
            };
            let unsent = kind == Kind::Refused || e.take_message().is_some() || is_going(e.error());
            let detail = describe(e.error());
            Err(ProxyError {
                unsent,
                ..ProxyError::new(kind, detail)
            })
        }
    }
}

fn reason(e: &hyper::Error) -> Option<h2::Reason> {
    h2_error(e)?.reason()
}

/// The endpoint closes its connection and did nothing with the request (RFC 9113 section 8.7), whatever its reason: its
/// GOAWAY ends streams above the last one it names alone. Others end when their connection does, as broken.
fn is_going(e: &hyper::Error) -> bool {
    h2_error(e).is_some_and(|e| e.is_go_away() && e.is_remote())
}

fn h2_error(e: &hyper::Error) -> Option<&h2::Error> {
    std::error::Error::source(e)?.downcast_ref()
}

fn describe(e: &hyper::Error) -> String {
    match std::error::Error::source(e) {
        Some(source) => format!("{e}: {source}"),
        None => e.to_string(),
    }
}

/// The request as hyper takes it: `:authority` is the Host.
fn h2_request(upstream: &Upstream, request: &Outgoing<'_>) -> Result<http::Request<Upload>, ProxyError> {
    let bad = |what: &'static str| ProxyError::new(Kind::BadRequest, what);
    let authority = match request.fields.get(Known::Host).filter(|host| !host.is_empty()) {
        Some(host) => Authority::try_from(host).map_err(|_| bad("invalid Host"))?,
        None => Authority::from_static("localhost"),
    };
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(if upstream.dialer.tls.is_some() {
        Scheme::HTTPS
    } else {
        Scheme::HTTP
    });
    uri.authority = Some(authority);
    uri.path_and_query = Some(PathAndQuery::try_from(request.target).map_err(|_| bad("invalid target"))?);
    let mut headers = request.fields.to_map(Set::of(&[Known::Host, Known::ContentLength]));
    if let (Some(_), Some(length)) = (request.body, request.length) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    let mut message = http::Request::new(Upload::new(request.body));
    *message.method_mut() = request.method.clone();
    *message.uri_mut() = Uri::from_parts(uri).map_err(|_| bad("invalid target"))?;
    *message.version_mut() = http::Version::HTTP_2;
    *message.headers_mut() = headers;
    Ok(message)
}

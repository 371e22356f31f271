//! One try at one endpoint: a connection, the request sent, the response's head judged.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::response::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use super::body::{H1Body, H2Body, ResponseBody, Upgraded};
use super::forward::strip_hop_by_hop;
use super::upload::{Pump, SendError, Sending, Source, Upload};
use super::{Response, Scope};
use crate::endpoint::{Active, State};
use crate::fields::{Fields, Known, Set};
use crate::h1::decode::Decoder;
use crate::h1::encode::{self, BodyLength, Connection};
use crate::h1::framing::{self, Framing};
use crate::h1::response::ResponseHead;
use crate::net::deadline::Deadline;
use crate::pool::h1::{H1, HeadError};
use crate::pool::h2::{H2Lease, StreamPermit};
use crate::pool::{DialError, H1Lease, Lease, Protocol};
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::record::Record;
use crate::upstream::Upstream;

/// How long an endpoint is waited for to say 100 before the body is sent anyway (RFC 9110 section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);
/// 1xx responses passed on before one response; an endpoint that sends more is broken.
const MAX_INFORMATIONAL: u32 = 16;
/// New tries at an endpoint that closed a connection at rest.
const MAX_REPEATS: u32 = 2;

/// The request as every attempt sends it.
pub struct Outgoing<'a> {
    pub method: &'a Method,
    /// Path and query.
    pub target: &'a str,
    /// Hop-by-hop fields are gone, forwarding fields are set.
    pub fields: &'a Fields,
    pub body: Option<&'a Rc<RefCell<Source>>>,
    /// In bytes; `None` with a body: known at its end.
    pub length: Option<u64>,
    pub expect_continue: bool,
    pub upgrade: Option<&'a HeaderValue>,
    /// No other request may follow it on an HTTP/1 connection.
    pub alone: bool,
    /// Sending it twice does what sending it once does.
    pub idempotent: bool,
}

/// Tries `active`'s endpoint. `begun`: now, or so little before that it makes no difference to time-outs.
pub async fn attempt(
    scope: &Scope<'_>,
    upstream: &Upstream,
    request: &Outgoing<'_>,
    active: Active,
    mut begun: Instant,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let worker = &scope.down.worker;
    let dialer = &upstream.dialer;
    let endpoint = active.endpoint().clone();
    // HTTP/2 knows no Upgrade: ALPN must not lead there.
    let switches = request.upgrade.is_some() && dialer.protocol == Protocol::Auto && dialer.tls.is_some();
    let mut lease = match switches {
        true => None,
        false => worker.pools.take(&endpoint, dialer, !request.idempotent),
    };
    let mut repeats = 0;
    loop {
        let (lease, reused) = match lease.take() {
            Some(lease) => (lease, true),
            None => {
                let before = begun;
                // In a box: most requests find a connection, and need no room for making one.
                let lease = Box::pin(connect(scope, upstream, &endpoint, switches)).await?;
                begun = Instant::now();
                record.note(|line| line.connect = Some(begun - before));
                let reused = matches!(&lease, Lease::H2(lease) if lease.reused);
                (lease, reused)
            }
        };
        let answered = match lease {
            Lease::H1(lease) => over_h1(scope, upstream, request, lease.conn, begun).await,
            Lease::H2(lease) => over_h2(upstream, request, lease).await,
        };
        match answered {
            Ok(Answer::H1(exchange)) => return Ok(finish_h1(scope, upstream, exchange, active)),
            Ok(Answer::Switched(exchange)) => return Ok(switched(exchange, active)),
            Ok(Answer::H2(incoming, head, permit)) => {
                let read_timeout = upstream.settings.read_timeout;
                let deadline = Deadline::after(read_timeout);
                let body = H2Body {
                    incoming,
                    deadline,
                    read_timeout,
                    active,
                    permit,
                };
                return Ok(finish_h2(body, head));
            }
            // The endpoint closed an idle connection in the moment it was used again: no fault of anybody, and a
            // new connection tells whether the endpoint is well.
            Err(e) if reused && repeats < MAX_REPEATS && e.kind == Kind::Reset && may_repeat(request, &e) => {
                repeats += 1
            }
            Err(e) => return Err(e),
        }
    }
}

async fn connect(
    scope: &Scope<'_>,
    upstream: &Upstream,
    endpoint: &State,
    alone: bool,
) -> Result<Lease<Upload>, ProxyError> {
    let connected = if alone {
        upstream.dialer.connect_raw(endpoint).await.map(|io| {
            let conn = Rc::new(RefCell::new(H1::new(io)));
            Lease::H1(H1Lease { conn, reused: false })
        })
    } else {
        scope.down.worker.pools.connect(endpoint, &upstream.dialer).await
    };
    connected.map_err(|e| {
        let kind = match &e {
            DialError::Timeout(_) => Kind::ConnectTimeout,
            e if e.is_exhausted() => Kind::Exhausted,
            DialError::Failed(_) | DialError::Tls(_) => Kind::ConnectFailed,
        };
        ProxyError::unsent(kind, e.to_string())
    })
}

/// Whether the request may be sent again after `e`.
pub fn may_repeat(request: &Outgoing<'_>, e: &ProxyError) -> bool {
    let whole = request.body.is_none_or(|body| body.borrow().is_whole());
    whole && (e.unsent || request.idempotent)
}

/// What a connection answered.
enum Answer {
    H1(Exchange),
    Switched(Exchange),
    H2(Incoming, Parts, StreamPermit),
}

/// An HTTP/1 connection after the response's head.
struct Exchange {
    conn: Rc<RefCell<H1>>,
    head: ResponseHead,
    /// The request's body goes on.
    sending: Option<Sending>,
    /// The connection may serve another request.
    keep: bool,
}

async fn over_h1(
    scope: &Scope<'_>,
    upstream: &Upstream,
    request: &Outgoing<'_>,
    conn: Rc<RefCell<H1>>,
    begun: Instant,
) -> Result<Answer, ProxyError> {
    let timeout = upstream.settings.response_timeout;
    let chunked = request.body.is_some() && request.length.is_none();
    {
        let mut conn = conn.borrow_mut();
        let length = match (request.body, request.length) {
            (Some(_), None) => BodyLength::Chunked,
            (_, Some(n)) => BodyLength::Known(n),
            (None, None) => BodyLength::None,
        };
        let connection = match request.upgrade {
            Some(protocol) => Connection::Upgrade(protocol.clone()),
            None if request.alone => Connection::Close,
            None => Connection::None,
        };
        encode::request(
            &mut conn.write,
            request.method,
            request.target,
            request.fields,
            length,
            connection,
        );
        conn.deadline.set_at(begun + timeout);
    }
    let mut pump = request
        .body
        .map(|body| Pump::new(Upload::new(Some(body)), conn.clone(), chunked));
    let mut hold = (pump.is_some() && request.expect_continue).then(|| Deadline::after(CONTINUE));
    let mut informational = 0;
    let mut broken = None;
    let head = std::future::poll_fn(|cx| {
        loop {
            if hold.as_mut().is_some_and(|hold| hold.poll(cx).is_ready()) {
                hold = None;
            }
            if let (Some(sending), None) = (&mut pump, &hold) {
                match sending.poll(cx) {
                    Poll::Ready(Ok(())) => pump = None,
                    Poll::Ready(Err(SendError::Client(e))) => return Poll::Ready(Err(e)),
                    Poll::Ready(Err(SendError::Endpoint(e))) => {
                        // It may have answered before it stopped reading.
                        pump = None;
                        broken = Some(e);
                    }
                    Poll::Pending => {}
                }
                if let Some(body) = request.body {
                    body.borrow_mut().extend(&mut conn.borrow_mut().deadline, timeout);
                }
            } else if broken.is_none()
                && let Poll::Ready(Err(e)) = conn.borrow_mut().poll_flush(cx)
            {
                broken = Some(e);
            }
            let polled = conn.borrow_mut().poll_head(cx, request.method);
            let head = match polled {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(head)) => head,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(no_head(e, broken.take()))),
            };
            if !head.status.is_informational() {
                return Poll::Ready(Ok(head));
            }
            informational += 1;
            match head.status {
                StatusCode::CONTINUE => hold = None,
                StatusCode::SWITCHING_PROTOCOLS if request.upgrade.is_some() => return Poll::Ready(Ok(head)),
                StatusCode::SWITCHING_PROTOCOLS => {
                    let e = ProxyError::new(Kind::BadResponse, "101 without a request for it");
                    return Poll::Ready(Err(e));
                }
                _ => pass_informational(scope, head),
            }
            if informational > MAX_INFORMATIONAL {
                return Poll::Ready(Err(ProxyError::new(Kind::BadResponse, "too many 1xx responses")));
            }
        }
    })
    .await?;
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return Ok(Answer::Switched(Exchange {
            conn,
            head,
            sending: None,
            keep: false,
        }));
    }
    // A body that was announced and never sent leaves the endpoint waiting for it.
    let keep = head.keep_alive && hold.is_none() && broken.is_none() && !request.alone;
    let sending = pump.filter(|_| hold.is_none()).map(Pump::spawn);
    Ok(Answer::H1(Exchange {
        conn,
        head,
        sending,
        keep,
    }))
}

fn pass_informational(scope: &Scope<'_>, mut head: ResponseHead) {
    if let Some(pass) = scope.informational {
        strip_hop_by_hop(&mut head.fields);
        pass(head.status, &head.fields);
    }
}

fn no_head(e: HeadError, broken: Option<std::io::Error>) -> ProxyError {
    match e {
        HeadError::Malformed(e) => ProxyError::new(Kind::BadResponse, e.reason()),
        HeadError::TimedOut => ProxyError::new(Kind::ResponseTimeout, "no response head in time"),
        HeadError::Broken { begun: true, source } => {
            ProxyError::new(Kind::BadResponse, format!("within the response head: {source}"))
        }
        HeadError::Broken { begun: false, source } => match broken {
            Some(e) => ProxyError::new(Kind::Reset, format!("while the request was sent: {e}")),
            None => ProxyError::new(Kind::Reset, source.to_string()),
        },
    }
}

fn finish_h1(scope: &Scope<'_>, upstream: &Upstream, exchange: Exchange, active: Active) -> Response {
    let Exchange {
        conn,
        mut head,
        sending,
        keep,
    } = exchange;
    let length = match head.framing {
        Framing::Length(n) => Some(n),
        Framing::Chunked | Framing::UntilClose => None,
        Framing::None => content_length(&head.fields),
    };
    strip_hop_by_hop(&mut head.fields);
    let read_timeout = upstream.settings.read_timeout;
    conn.borrow_mut().deadline.clear();
    let mut body = H1Body {
        conn,
        decoder: Decoder::new(head.framing),
        keep,
        sending,
        worker: scope.down.worker.clone(),
        dialer: upstream.dialer.clone(),
        active: Some(active),
        read_timeout,
    };
    let body = if body.decoder.is_end() {
        body.complete();
        ResponseBody::Empty
    } else {
        ResponseBody::H1(Box::new(body))
    };
    Response {
        status: head.status,
        fields: head.fields,
        body,
        length,
    }
}

fn finish_h2(body: H2Body, head: Parts) -> Response {
    let mut fields = Fields::from(&head.headers);
    let length = content_length(&fields);
    strip_hop_by_hop(&mut fields);
    let empty = body.incoming.is_end_stream();
    let body = if empty {
        ResponseBody::Empty
    } else {
        ResponseBody::H2(Box::new(body))
    };
    Response {
        status: head.status,
        fields,
        length: length.or(empty.then_some(0)),
        body,
    }
}

fn switched(exchange: Exchange, active: Active) -> Response {
    let Exchange { conn, mut head, .. } = exchange;
    let protocol = head.fields.get(Known::Upgrade);
    let protocol = protocol.and_then(|p| HeaderValue::from_bytes(p).ok());
    strip_hop_by_hop(&mut head.fields);
    let body = ResponseBody::Upgraded(Box::new(Upgraded { conn, active, protocol }));
    Response {
        status: head.status,
        fields: head.fields,
        body,
        length: None,
    }
}

/// What HEAD and 304 responses say about a body that does not follow.
fn content_length(fields: &Fields) -> Option<u64> {
    framing::content_length(fields).ok()?
}

async fn over_h2(
    upstream: &Upstream,
    request: &Outgoing<'_>,
    mut lease: H2Lease<Upload>,
) -> Result<Answer, ProxyError> {
    let timeout = upstream.settings.response_timeout;
    let message = h2_request(upstream, request)?;
    let mut deadline = Deadline::after(timeout);
    let mut response = std::pin::pin!(lease.send.try_send_request(message));
    let answered = std::future::poll_fn(|cx| {
        if let Poll::Ready(answered) = response.as_mut().poll(cx) {
            return Poll::Ready(Some(answered));
        }
        if let Some(body) = request.body {
            body.borrow_mut().extend(&mut deadline, timeout);
        }
        deadline.poll(cx).map(|()| None)
    })
    .await;
    match answered {
        None => Err(ProxyError::new(Kind::ResponseTimeout, "no response head in time")),
        Some(Ok(response)) => {
            let (parts, incoming) = response.into_parts();
            Ok(Answer::H2(incoming, parts, lease.permit))
        }
        Some(Err(mut e)) => {
            // The client's own failure shows here as a cancelled stream.
            if let Some(failure) = request.body.and_then(|body| body.borrow().failure()) {
                return Err(failure);
            }
            let unsent = e.take_message().is_some() || is_refused(e.error());
            let detail = describe(e.error());
            Err(ProxyError {
                unsent,
                ..ProxyError::new(Kind::Reset, detail)
            })
        }
    }
}

/// The endpoint said that it did nothing with the request (RFC 9113 section 8.7).
fn is_refused(e: &hyper::Error) -> bool {
    h2_error(e).is_some_and(|e| {
        e.reason() == Some(h2::Reason::REFUSED_STREAM) || (e.is_go_away() && e.reason() == Some(h2::Reason::NO_ERROR))
    })
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

//! One try at one endpoint: a connection, the request sent, the response's head judged.

mod h2;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use http::response::Parts;
use http::{HeaderValue, Method, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use tokio::time::Instant;

use self::h2::over_h2;
use super::body::{H1Body, H2Body, ResponseBody, Upgraded};
use super::forward::strip_hop_by_hop;
use super::hold;
use super::upload::{Pump, SendError, Sending, Source, Upload};
use super::{Response, Scope};
use crate::endpoint::{Active, State};
use crate::fields::{Fields, Known};
use crate::h1::decode::Decoder;
use crate::h1::encode::{self, BodyLength, Connection};
use crate::h1::framing::{self, Framing};
use crate::h1::response::ResponseHead;
use crate::net::deadline::Deadline;
use crate::pool::h1::{H1, HeadError};
use crate::pool::h2::StreamPermit;
use crate::pool::idle::announced;
use crate::pool::{DialError, H1Lease, Lease, Protocol};
use crate::proxy::error::{Kind, ProxyError};
use crate::telemetry::reasons::Denied;
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
    pub repeatable: bool,
    /// A call of gRPC.
    pub grpc: bool,
    /// When the client no longer wants an answer.
    pub deadline: Option<Instant>,
}

/// Tries `active`'s endpoint. `connected` is told how long a connection took, if one was made. `begun`: now, or so little before that it makes no difference to time-outs.
pub async fn attempt(
    scope: &Scope<'_>,
    upstream: &Upstream,
    request: &Outgoing<'_>,
    active: Active,
    mut begun: Instant,
    connected: &Cell<Option<Duration>>,
) -> Result<Response, ProxyError> {
    let worker = &scope.down.worker;
    let dialer = &upstream.dialer;
    let endpoint = active.endpoint().clone();
    // HTTP/2 knows no Upgrade: ALPN must not lead there.
    let switches = request.upgrade.is_some() && dialer.protocol == Protocol::Auto && dialer.tls.is_some();
    let careful = !may_be_lost(request, upstream.settings.retry.buffer);
    let mut lease = match switches {
        true => None,
        false => worker.pools.take(&endpoint, dialer, careful),
    };
    let start = begun;
    let mut repeats = 0;
    loop {
        let (lease, reused) = match lease.take() {
            Some(lease) => (lease, true),
            None => {
                let before = begun;
                // In a box: most requests find a connection, and need no room for making one.
                let lease = Box::pin(connect(scope, upstream, &endpoint, switches)).await?;
                begun = Instant::now();
                connected.set(Some(begun - before));
                let reused = matches!(&lease, Lease::H2(lease) if lease.reused);
                (lease, reused)
            }
        };
        let patience = Patience::new(upstream, start, begun);
        let answered = match lease {
            Lease::H1(lease) => over_h1(scope, request, lease.conn, patience).await,
            Lease::H2(lease) => over_h2(upstream, request, lease, patience).await,
        };
        match answered {
            Ok(Answer::H1(exchange)) => {
                let missing = hold::missing(request.repeatable, &upstream.settings.retry, &exchange);
                if let Some(bytes) = missing {
                    // In a box: nearly always a short response has come with its head.
                    Box::pin(hold::whole(&exchange.conn, bytes)).await?;
                }
                return Ok(finish_h1(scope, upstream, exchange, active));
            }
            Ok(Answer::Switched(exchange)) => return Ok(switched(upstream, exchange, active)),
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
            Err(e)
                if reused
                    && repeats < MAX_REPEATS
                    && e.kind == Kind::Reset
                    && may_repeat(request, e.unsent).is_ok() =>
            {
                endpoint.series.local(worker.id).replays.add(1);
                repeats += 1
            }
            Err(e) => return Err(e),
        }
    }
}

/// Whether the request can be sent again whatever has become of it: `kept` bytes of its body are.
fn may_be_lost(request: &Outgoing<'_>, kept: usize) -> bool {
    request.repeatable && (request.body.is_none() || request.length.is_some_and(|n| n <= kept as u64))
}

async fn connect(
    scope: &Scope<'_>,
    upstream: &Upstream,
    endpoint: &Arc<State>,
    alone: bool,
) -> Result<Lease<Upload>, ProxyError> {
    let connecting = async {
        if alone {
            let connected = upstream.dialer.connect_raw(endpoint).await?;
            let conn = Rc::new(RefCell::new(H1::new(connected)));
            Ok(Lease::H1(H1Lease { conn, reused: false }))
        } else {
            scope.down.worker.pools.connect(endpoint, &upstream.dialer).await
        }
    };
    let connected = match upstream.settings.retry.per_try_timeout {
        None => connecting.await,
        Some(timeout) => match tokio::time::timeout(timeout, connecting).await {
            Ok(connected) => connected,
            Err(_) => {
                return Err(ProxyError::unsent(
                    Kind::TryTimeout,
                    "no connection in the time for one attempt",
                ));
            }
        },
    };
    connected.map_err(|e| {
        let kind = match &e {
            DialError::Full(_) => Kind::ConnectionsFull,
            DialError::Timeout(_) => Kind::ConnectTimeout,
            e if e.is_exhausted() => Kind::Exhausted,
            DialError::Failed(_) => {
                endpoint.idle.forget();
                Kind::ConnectFailed
            }
            DialError::Tls(_) => Kind::TlsFailed,
            DialError::TlsTimeout(_) => Kind::TlsTimeout,
        };
        ProxyError::unsent(kind, e.to_string())
    })
}

/// Whether the request may be sent again; `unsent`: nothing of it reached an endpoint.
pub fn may_repeat(request: &Outgoing<'_>, unsent: bool) -> Result<(), Denied> {
    if !unsent && !request.repeatable {
        return Err(Denied::Method);
    }
    match request.body.is_none_or(|body| body.borrow().is_whole()) {
        true => Ok(()),
        false => Err(Denied::Body),
    }
}

/// How long an endpoint is waited for.
#[derive(Clone, Copy)]
struct Patience {
    /// For the response's head, once the request is sent.
    until: Instant,
    /// The same from the last byte of a body that is still being sent.
    pause: Duration,
    /// What it is called when it is over.
    late: Kind,
}

impl Patience {
    /// For an attempt that began at `start` and whose connection was there at `sent`.
    fn new(upstream: &Upstream, start: Instant, sent: Instant) -> Self {
        let pause = upstream.settings.response_timeout;
        let whole = Self {
            until: sent + pause,
            pause,
            late: Kind::ResponseTimeout,
        };
        match upstream.settings.retry.per_try_timeout {
            Some(pause) if start + pause < whole.until => Self {
                until: start + pause,
                pause: pause.min(whole.pause),
                late: Kind::TryTimeout,
            },
            _ => whole,
        }
    }
}

/// What a connection answered.
enum Answer {
    H1(Exchange),
    Switched(Exchange),
    H2(Incoming, Parts, StreamPermit),
}

/// An HTTP/1 connection after the response's head.
pub struct Exchange {
    pub conn: Rc<RefCell<H1>>,
    pub head: ResponseHead,
    /// The request's body goes on.
    sending: Option<Sending>,
    /// The connection may serve another request.
    keep: bool,
}

async fn over_h1(
    scope: &Scope<'_>,
    request: &Outgoing<'_>,
    conn: Rc<RefCell<H1>>,
    patience: Patience,
) -> Result<Answer, ProxyError> {
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
            conn.out.tail(),
            request.method,
            request.target,
            request.fields,
            length,
            connection,
        );
        conn.deadline.set_at(patience.until);
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
                    body.borrow_mut()
                        .extend(&mut conn.borrow_mut().deadline, patience.pause);
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
                Poll::Ready(Err(e)) => return Poll::Ready(Err(no_head(e, broken.take(), patience.late))),
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
    .await;
    let head = match head {
        Ok(head) => head,
        Err(mut e) => {
            drop(pump);
            // Worth a look only where it decides whether the request may be sent again.
            if e.kind == Kind::Reset
                && !request.repeatable
                && let Some(conn) = Rc::into_inner(conn)
            {
                e.unsent = conn.into_inner().is_unread().await;
            }
            return Err(e);
        }
    };
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

fn no_head(e: HeadError, broken: Option<std::io::Error>, late: Kind) -> ProxyError {
    match e {
        HeadError::Malformed(e) => ProxyError::new(Kind::BadResponse, e.reason()),
        HeadError::TimedOut => ProxyError::new(late, "no response head in time"),
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
    {
        let mut conn = conn.borrow_mut();
        conn.announced = head.fields.get(Known::KeepAlive).and_then(announced);
        conn.deadline.clear();
    }
    strip_hop_by_hop(&mut head.fields);
    let read_timeout = upstream.settings.read_timeout;
    let mut body = H1Body {
        conn: Some(conn),
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

fn switched(upstream: &Upstream, exchange: Exchange, active: Active) -> Response {
    let Exchange { conn, mut head, .. } = exchange;
    let protocol = head.fields.get(Known::Upgrade);
    let protocol = protocol.and_then(|p| HeaderValue::from_bytes(p).ok());
    strip_hop_by_hop(&mut head.fields);
    let body = ResponseBody::Upgraded(Box::new(Upgraded {
        conn,
        active,
        drain_timeout: upstream.settings.drain_timeout,
        protocol,
    }));
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

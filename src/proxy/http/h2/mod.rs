//! HTTP/2 towards clients: hyper frames, this handles each stream as any other request.

mod wire;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use hyper::server::conn::http2::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use self::wire::{SharedWire, Wire};
use super::body::{RequestBody, ResponseBody};
use super::h1::Client;
use super::{Downstream, Request, Scope, request, respond, version_label};
use crate::fields::{Fields, Known, Set};
use crate::h1::host;
use crate::h1::target::Target;
use crate::net::deadline::Deadline;
use crate::net::local::LocalExec;
use crate::net::pace::Pace;
use crate::proxy::error::ProxyError;
use crate::proxy::record::{Record, Subject, line};
use crate::snapshot::{Http, Listener};

/// Flow-control windows for what clients send, per stream and per connection.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one response that may wait for the client's window.
const SEND_BUFFER: usize = 64 * 1024;
/// How often a connection is looked at: is it idle, is a client not taking what it asked for.
const LOOK: Duration = Duration::from_secs(1);
/// A silent connection is asked whether anybody is there.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(15);

/// Told anew from what is known of the body.
const CONTENT_LENGTH: Set = Set::of(&[Known::ContentLength]);

/// One connection, as its streams see it.
struct Conn {
    down: Downstream,
    streams: RefCell<Streams>,
    /// The time of the last look: precise enough for time-outs of many looks, and no clock is asked per frame.
    now: Cell<Instant>,
}

/// Streams under way. A stream's place is taken over by another when it has ended.
#[derive(Default)]
struct Streams {
    /// Since when a part of the response is handed over that is not known to have left.
    waiting: Vec<Option<Instant>>,
    free: Vec<usize>,
}

/// Serves one connection until it closes. `read`: bytes that came before.
pub async fn serve(client: Client, read: BytesMut) {
    let Client { down, live, io } = client;
    let worker = down.worker.clone();
    let slot = down.slot;
    let (limits, write_timeout, idle_timeout) = {
        let held = worker.snapshot.get();
        let Some(http) = held.listener(slot).and_then(|l| l.http()) else {
            return;
        };
        ((http.limits, http.max_streams), http.write_timeout, http.idle_timeout)
    };
    let wire = Rc::new(RefCell::new(Wire {
        io,
        read,
        out: BytesMut::new(),
        unflushed: false,
        live,
        worker: worker.id,
    }));
    let conn = Rc::new(Conn {
        down,
        streams: RefCell::default(),
        now: Cell::new(Instant::now()),
    });
    let service = service_fn({
        let conn = conn.clone();
        move |message| {
            let conn = conn.clone();
            // In a box: hyper moves it several times before it runs, and it is large.
            Box::pin(async move { Ok::<_, Infallible>(stream(&conn, message).await) })
        }
    });
    let (limits, max_streams) = limits;
    let mut connection = std::pin::pin!(
        Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .max_concurrent_streams(max_streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buf_size(SEND_BUFFER)
            .max_header_list_size(u32::try_from(limits.max_head).unwrap_or(u32::MAX))
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(SharedWire(wire.clone())), service)
    );
    let mut changed = std::pin::pin!(worker.changed.notified());
    let mut look = tokio::time::interval(LOOK);
    let mut rested = Instant::now();
    let mut closing = false;
    let ended = std::future::poll_fn(|cx| {
        if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
            return Poll::Ready(ended.err().map(|e| e.to_string()));
        }
        // What all streams have written since the last time leaves at once.
        if let Poll::Ready(Err(e)) = wire.borrow_mut().poll_drain(cx) {
            return Poll::Ready(Some(e.to_string()));
        }
        while changed.as_mut().poll(cx).is_ready() {
            changed.set(worker.changed.notified());
            if !worker.keeps(slot) && !std::mem::replace(&mut closing, true) {
                connection.as_mut().graceful_shutdown();
            }
        }
        while look.poll_tick(cx).is_ready() {
            conn.now.set(Instant::now());
            if conn.active() > 0 {
                rested = conn.now.get();
            } else if rested.elapsed() >= idle_timeout && !std::mem::replace(&mut closing, true) {
                connection.as_mut().graceful_shutdown();
            }
            // A client that grants no window for so long holds an endpoint's connection for nothing; the connection
            // goes, as it does for a client of HTTP/1.
            if conn.is_stuck(write_timeout) || (closing && rested.elapsed() >= idle_timeout + write_timeout) {
                return Poll::Ready(None);
            }
        }
        Poll::Pending
    })
    .await;
    if let Some(error) = ended {
        tracing::debug!(error, client = %conn.down.peer, "HTTP/2 connection ended");
    }
}

impl Conn {
    fn active(&self) -> usize {
        let streams = self.streams.borrow();
        streams.waiting.len() - streams.free.len()
    }

    fn is_stuck(&self, write_timeout: Duration) -> bool {
        let streams = self.streams.borrow();
        let mut waiting = streams.waiting.iter().flatten();
        waiting.any(|since| since.elapsed() >= write_timeout)
    }
}

/// One stream: a request, and the head of its response.
async fn stream(conn: &Rc<Conn>, message: http::Request<Incoming>) -> http::Response<StreamBody> {
    let down = &conn.down;
    let busy = Busy::begin(conn);
    let held = down.worker.snapshot.get();
    let (parts, incoming) = message.into_parts();
    let Some((listener, http)) = held.listener(down.slot).and_then(|l| Some((l, l.http()?))) else {
        return refused(StatusCode::SERVICE_UNAVAILABLE);
    };
    let mut record = Record::begin(&down.worker, held.access_log, || subject_line(conn, listener, &parts));
    let is_head = parts.method == Method::HEAD;
    let response = match into_request(parts, incoming, http) {
        Ok(request) => {
            let scope = Scope {
                down,
                listener,
                http,
                informational: None,
            };
            request::handle(&scope, request, &mut record).await
        }
        Err((status, why)) => {
            record.count_in(&http.unrouted);
            record.failed(why);
            record.status = status;
            respond::plain(status, why)
        }
    };
    let mut message = http::Response::new(());
    *message.status_mut() = response.status;
    *message.headers_mut() = response.fields.to_map(CONTENT_LENGTH);
    let mut body = response.body;
    if is_head {
        body = ResponseBody::Empty;
    }
    let silent = response.status == StatusCode::NO_CONTENT;
    if let Some(length) = response.length.filter(|_| !silent) {
        message
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if body.is_empty() {
        record.finish();
    }
    message.map(|()| StreamBody {
        body,
        record: Some(record),
        busy: Some(busy),
    })
}

fn refused(status: StatusCode) -> http::Response<StreamBody> {
    let mut message = http::Response::new(StreamBody {
        body: ResponseBody::Empty,
        record: None,
        busy: None,
    });
    *message.status_mut() = status;
    message
}

fn subject_line(conn: &Conn, listener: &Listener, parts: &http::request::Parts) -> crate::telemetry::access::Line {
    let host = parts.uri.authority().map(|a| a.as_str());
    let named = || parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(named).unwrap_or_default();
    let target = parts.uri.path_and_query().map_or("", |p| p.as_str());
    line(&Subject {
        listener: &listener.name,
        client: &conn.down.peer.to_string(),
        method: parts.method.as_str(),
        host,
        target,
        protocol: version_label(parts.version),
        user_agent: parts.headers.get(header::USER_AGENT).map(|v| v.as_bytes()),
    })
}

/// What HTTP/1 writes otherwise brought into one form (RFC 9113 sections 8.2 and 8.3), or why not.
fn into_request(
    mut parts: http::request::Parts,
    incoming: Incoming,
    http: &Http,
) -> Result<Request, (StatusCode, &'static str)> {
    let bad = |why| Err((StatusCode::BAD_REQUEST, why));
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "method not allowed"));
    }
    if parts.headers.len() > http.limits.max_headers {
        return Err((StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "too many fields"));
    }
    if parts.headers.keys().any(|name| name.as_str().contains('_')) {
        return bad("invalid field name");
    }
    let mut hosts = parts.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = parts.uri.authority().map(|a| a.as_str());
    let host = match (authority, host) {
        _ if second.is_some() => return bad("exactly one valid Host is needed"),
        (Some(authority), Some(host)) if !host.as_bytes().eq_ignore_ascii_case(authority.as_bytes()) => {
            return bad("Host differs from :authority");
        }
        (Some(authority), _) => HeaderValue::from_str(authority).ok(),
        (None, host) => host.cloned(),
    };
    let Some(host) = host.filter(|h| host::validate(h.as_bytes())) else {
        return bad("exactly one valid Host is needed");
    };
    parts.headers.insert(header::HOST, host);
    join_cookies(&mut parts.headers);
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    if path.as_str().len() > http.limits.max_target {
        return Err((StatusCode::URI_TOO_LONG, "request-target too long"));
    }
    let expect_continue = match parts.headers.get(header::EXPECT) {
        None => false,
        Some(v) if v.as_bytes().eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err((StatusCode::EXPECTATION_FAILED, "unknown expectation")),
    };
    let length = incoming.size_hint().exact();
    let body = if incoming.is_end_stream() {
        RequestBody::Empty
    } else {
        // A body of unknown length may be a conversation, whose pauses say nothing.
        let min_rate = length.map_or(0, |_| http.min_rate);
        let pace = Pace::new(http.body_timeout, min_rate);
        RequestBody::H2(incoming, Deadline::default(), pace)
    };
    let declared = parts.headers.contains_key(header::CONTENT_LENGTH);
    Ok(Request {
        method: parts.method,
        target: Target::own(path.as_str().to_owned()),
        version: parts.version,
        fields: Fields::from(&parts.headers),
        length: length.filter(|n| *n > 0 || declared),
        body,
        expect_continue,
        upgrade: None,
        alone: false,
    })
}

/// HTTP/2 may send each cookie in a field of its own; HTTP/1 has one (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut all = headers.get_all(header::COOKIE).iter();
    if let (Some(first), Some(second)) = (all.next(), all.next()) {
        let mut joined = first.as_bytes().to_vec();
        for crumb in std::iter::once(second).chain(all) {
            joined.extend_from_slice(b"; ");
            joined.extend_from_slice(crumb.as_bytes());
        }
        if let Ok(joined) = HeaderValue::from_bytes(&joined) {
            headers.insert(header::COOKIE, joined);
        }
    }
}

/// A stream under way: its connection is not idle.
struct Busy {
    conn: Rc<Conn>,
    place: usize,
}

impl Busy {
    fn begin(conn: &Rc<Conn>) -> Self {
        let streams = &mut *conn.streams.borrow_mut();
        let place = streams.free.pop().unwrap_or_else(|| {
            streams.waiting.push(None);
            streams.waiting.len() - 1
        });
        Self {
            conn: conn.clone(),
            place,
        }
    }

    /// Whether a part of the response waits to leave.
    fn wait(&self, waits: bool) {
        if let Some(since) = self.conn.streams.borrow_mut().waiting.get_mut(self.place) {
            *since = waits.then(|| self.conn.now.get());
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.wait(false);
        self.conn.streams.borrow_mut().free.push(self.place);
    }
}

/// A response's body as hyper asks for it.
struct StreamBody {
    body: ResponseBody,
    record: Option<Record>,
    busy: Option<Busy>,
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let this = &mut *self;
        let polled = this.body.poll_frame(cx);
        if let Some(busy) = &this.busy {
            // hyper asks for more once the last part has left.
            busy.wait(matches!(polled, Poll::Ready(Some(Ok(_)))));
        }
        match &polled {
            Poll::Pending => {}
            Poll::Ready(None) => this.finish(),
            Poll::Ready(Some(Ok(frame))) => {
                let n = frame.data_ref().map_or(0, Bytes::len);
                if let Some(record) = &mut this.record {
                    record.add_bytes_out(n as u64);
                }
                if frame.is_trailers() || this.body.is_empty() {
                    this.finish();
                }
            }
            Poll::Ready(Some(Err(e))) => {
                if let Some(record) = &mut this.record {
                    record.cut(e);
                }
                this.finish();
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }
}

impl StreamBody {
    fn finish(&mut self) {
        if let Some(record) = &mut self.record {
            record.finish();
        }
    }
}

//! HTTP/1 towards clients: heads read, requests handled one after the other, responses written.
//!
//! A connection at rest is a socket and a small task: what a request needs is taken when its first byte arrives and
//! given back when nothing follows.

mod send;
mod wire;

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version, header};

use self::send::{Cut, Form};
pub use self::wire::{ClientBody, Conn, Tunnel};
use super::body::{RequestBody, ResponseBody, Upgraded};
use super::{Request, Scope, request, respond, subject, version_label};
use crate::h1::decode::Decoder;
use crate::h1::encode;
use crate::h1::framing::Framing;
use crate::h1::head::HeadSearch;
use crate::h1::request::{RequestError, RequestHead, is_h2_preface, parse};
use crate::net::relay::{self, Direction};
use crate::pool::h1::H1Stream;
use crate::proxy::record::{Record, Subject, line};
use crate::snapshot::{Http, Listener};
use crate::tls::io::Io;

/// A body the client still sends after its answer is read up to here, so that the connection can go on.
const DRAIN: u64 = 256 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// After a reload or a stop, how long a connection at rest may still bring a request that was on its way.
const LAST_CALL: Duration = Duration::from_millis(500);

/// How serving a connection ended.
pub enum Served {
    Closed,
    /// The client speaks HTTP/2, of which these bytes are read.
    H2(Io, BytesMut),
}

/// What follows a burst of requests.
enum Next {
    Rest,
    Close,
    H2,
}

/// Serves one connection until it closes.
pub async fn serve(conn: Conn) -> Served {
    let conn = Rc::new(conn);
    let mut served = 0;
    loop {
        if conn.wire.borrow().read.is_empty() && !rest(&conn, served == 0).await {
            break;
        }
        // In a box, so that a connection at rest does not hold the room its requests need.
        match Box::pin(burst(&conn, &mut served)).await {
            Next::Rest => {}
            Next::Close => break,
            Next::H2 => {
                return match Rc::try_unwrap(conn) {
                    Ok(conn) => {
                        let wire = conn.wire.into_inner();
                        Served::H2(wire.io, wire.read)
                    }
                    Err(_) => Served::Closed,
                };
            }
        }
    }
    Served::Closed
}

/// Waits for the first byte of a request. `false`: none comes.
async fn rest(conn: &Conn, first: bool) -> bool {
    let worker = &conn.down.worker;
    {
        let held = worker.snapshot.get();
        let Some(http) = held.listener(conn.down.slot).and_then(|l| l.http()) else {
            return false;
        };
        let timeout = if first { http.header_timeout } else { http.idle_timeout };
        conn.wire.borrow_mut().deadline.set(timeout);
    }
    let mut changed = std::pin::pin!(worker.changed.notified());
    let mut last_call = false;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(read) = conn.poll_first(cx) {
            conn.wire.borrow_mut().deadline.clear();
            return Poll::Ready(matches!(read, Ok(n) if n > 0));
        }
        while !last_call && changed.as_mut().poll(cx).is_ready() {
            if worker.keeps(conn.down.slot) {
                changed.set(worker.changed.notified());
            } else {
                last_call = true;
                conn.wire.borrow_mut().deadline.set(LAST_CALL);
            }
        }
        conn.wire.borrow_mut().deadline.poll(cx).map(|()| false)
    })
    .await
}

/// Requests as long as bytes of the next are there.
async fn burst(conn: &Rc<Conn>, served: &mut u64) -> Next {
    loop {
        let held = conn.down.worker.snapshot.get();
        let Some(listener) = held.listener(conn.down.slot) else {
            return Next::Close;
        };
        let Some(http) = listener.http() else {
            return Next::Close;
        };
        let head = match read_head(conn, http, *served == 0).await {
            Ok(head) => head,
            Err(NoHead::H2) => return Next::H2,
            Err(NoHead::Gone) => return Next::Close,
            Err(NoHead::Refused(status, why)) => {
                refuse(conn, listener, http, held.access_log, status, why).await;
                return Next::Close;
            }
        };
        *served += 1;
        let last = http.max_requests.is_some_and(|max| *served >= max) || !conn.down.worker.keeps(conn.down.slot);
        if !exchange(conn, listener, http, held.access_log, head, last).await {
            return Next::Close;
        }
        if conn.wire.borrow().read.is_empty() {
            return Next::Rest;
        }
    }
}

/// Why there is no request.
enum NoHead {
    H2,
    Gone,
    Refused(StatusCode, &'static str),
}

async fn read_head(conn: &Conn, http: &Http, first: bool) -> Result<RequestHead, NoHead> {
    let mut search = HeadSearch::default();
    std::future::poll_fn(|cx| {
        loop {
            {
                let wire = &mut *conn.wire.borrow_mut();
                let preface = first && !conn.down.tls;
                match if preface {
                    is_h2_preface(&wire.read)
                } else {
                    Some(false)
                } {
                    Some(true) => return Poll::Ready(Err(NoHead::H2)),
                    None => {}
                    Some(false) => match parse(&mut wire.read, &mut search, &http.limits) {
                        Ok(Some(head)) => {
                            wire.deadline.clear();
                            return Poll::Ready(Ok(head));
                        }
                        Ok(None) => {}
                        Err(e) => return Poll::Ready(Err(refusal(e))),
                    },
                }
            }
            match conn.poll_more(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(_) => return Poll::Ready(Err(NoHead::Gone)),
                Poll::Pending => {
                    let wire = &mut *conn.wire.borrow_mut();
                    wire.deadline.set_if_clear(http.header_timeout);
                    return wire.deadline.poll(cx).map(|()| {
                        Err(NoHead::Refused(
                            StatusCode::REQUEST_TIMEOUT,
                            "the request's head did not come in time",
                        ))
                    });
                }
            }
        }
    })
    .await
}

fn refusal(e: RequestError) -> NoHead {
    NoHead::Refused(e.status(), e.reason())
}

/// Answers bytes that are no request, and closes.
async fn refuse(
    conn: &Rc<Conn>,
    listener: &Listener,
    http: &Http,
    logged: bool,
    status: StatusCode,
    why: &'static str,
) {
    let mut record = Record::begin(&conn.down.worker, logged, || {
        line(&Subject {
            listener: &listener.name,
            client: &conn.down.peer.label,
            method: "",
            host: "",
            target: "",
            protocol: "HTTP/1",
            user_agent: None,
        })
    });
    record.count_in(&http.unrouted);
    record.failed(why);
    record.status = status;
    let mut response = respond::plain(status, why);
    let mut form = Form {
        version: Version::HTTP_11,
        is_head: false,
        keep: false,
    };
    let length = send::head(conn, &mut form, &response);
    let sent = send::body(conn, &mut response, length, http.write_timeout, &mut record).await;
    record.finish();
    if sent.is_ok() {
        linger(conn).await;
    }
}

/// One request and its response. `false`: the connection is at its end.
async fn exchange(
    conn: &Rc<Conn>,
    listener: &Listener,
    http: &Http,
    logged: bool,
    head: RequestHead,
    last: bool,
) -> bool {
    let down = &conn.down;
    let mut record = Record::begin(&down.worker, logged, || subject_line(conn, listener, &head));
    let (method, version) = (head.method.clone(), head.version);
    {
        let wire = &mut *conn.wire.borrow_mut();
        wire.decoder = Decoder::new(head.framing);
        wire.body_timeout = http.body_timeout;
        wire.owes_continue = head.expect_continue && head.framing != Framing::None;
        wire.body_bytes = 0;
    }
    let keep = head.keep_alive && !last;
    let request = into_request(conn, head);
    let inform = |status: StatusCode, headers: &HeaderMap| {
        encode::informational(&mut conn.wire.borrow_mut().out, status, headers);
    };
    let scope = Scope {
        down,
        listener,
        http,
        informational: (version == Version::HTTP_11).then_some(&inform as &super::Inform<'_>),
    };
    let answered = {
        let mut handling = std::pin::pin!(request::handle(&scope, request, &mut record));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            let (waits, read) = {
                let wire = conn.wire.borrow();
                (!wire.out.is_empty(), wire.decoder.is_end())
            };
            // A failure shows when the response is written.
            if waits {
                let _ = conn.poll_write(cx, &mut Bytes::new(), &mut 0);
            }
            if read {
                conn.poll_gone(cx).map(|()| None)
            } else {
                Poll::Pending
            }
        })
        .await
    };
    let Some(mut response) = answered.filter(|r| r.status != crate::proxy::error::CLIENT_GONE) else {
        return false;
    };
    let mut form = Form {
        version,
        is_head: method == Method::HEAD,
        // The listener may have gone, or the process begun to drain, while the endpoint worked.
        keep: keep && may_go_on(conn, &response.body) && down.worker.keeps(down.slot),
    };
    let length = send::head(conn, &mut form, &response);
    if form.is_head {
        response.body = ResponseBody::Empty;
    }
    let sent = send::body(conn, &mut response, length, http.write_timeout, &mut record).await;
    record.add_bytes_in(conn.wire.borrow().body_bytes);
    match sent {
        Ok(()) => {}
        Err(cut) => {
            record.failed(match &cut {
                Cut::Client(why) => format!("client_gone: {why}"),
                Cut::Endpoint(e) => e.to_string(),
            });
            record.finish();
            abort(conn);
            return false;
        }
    }
    if let ResponseBody::Upgraded(upgraded) = response.body {
        tunnel(conn, *upgraded, http, &mut record).await;
        record.finish();
        return false;
    }
    // The rest of the request's body is nobody's now.
    drop(response);
    record.finish();
    if form.keep && drained(conn).await {
        return true;
    }
    linger(conn).await;
    false
}

fn subject_line(conn: &Conn, listener: &Listener, head: &RequestHead) -> crate::telemetry::access::Line {
    let (host, target) = subject(&head.uri, &head.headers);
    line(&Subject {
        listener: &listener.name,
        client: &conn.down.peer.label,
        method: head.method.as_str(),
        host: &host,
        target: &target,
        protocol: version_label(head.version),
        user_agent: head.headers.get(header::USER_AGENT).map(|v| v.as_bytes()),
    })
}

fn into_request(conn: &Rc<Conn>, head: RequestHead) -> Request {
    let RequestHead {
        method,
        uri,
        version,
        headers,
        framing,
        expect_continue,
        upgrade,
        ..
    } = head;
    let (body, length) = match framing {
        Framing::None => (
            RequestBody::Empty,
            headers.contains_key(header::CONTENT_LENGTH).then_some(0),
        ),
        Framing::Length(n) => (RequestBody::H1(ClientBody(conn.clone())), Some(n)),
        Framing::Chunked | Framing::UntilClose => (RequestBody::H1(ClientBody(conn.clone())), None),
    };
    Request {
        method,
        uri,
        version,
        headers,
        body,
        length,
        expect_continue,
        upgrade,
    }
}

/// Whether another request can follow this response: the rest of the request's body is being sent on, or short
/// enough to be thrown away.
fn may_go_on(conn: &Conn, body: &ResponseBody) -> bool {
    let wire = conn.wire.borrow();
    if wire.broken {
        return false;
    }
    let uploading = match body {
        // An endpoint that is about to close reads no more of it.
        ResponseBody::H1(body) => body.sending.is_some() && body.keep,
        ResponseBody::H2(_) => true,
        _ => false,
    };
    let short = wire.decoder.remaining().is_some_and(|n| n <= DRAIN) && !wire.owes_continue;
    wire.decoder.is_end() || uploading || short
}

/// Throws away what is left of the request's body. `false`: too much, or it does not come.
async fn drained(conn: &Rc<Conn>) -> bool {
    if conn.wire.borrow().broken || conn.wire.borrow().owes_continue {
        return false;
    }
    if conn.wire.borrow().decoder.is_end() {
        return true;
    }
    let mut body = ClientBody(conn.clone());
    let mut left = DRAIN;
    let rest = std::future::poll_fn(|cx| {
        loop {
            match std::task::ready!(body.poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    let n = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match left.checked_sub(n) {
                        Some(rest) => left = rest,
                        None => return Poll::Ready(false),
                    }
                }
            }
        }
    });
    tokio::time::timeout(DRAIN_TIMEOUT, rest).await.unwrap_or(false)
}

/// Closes so that the last answer arrives: a socket closed with unread bytes would reset the connection under it
/// (RFC 9112 section 9.6).
async fn linger(conn: &Conn) {
    let work = async {
        let shut = std::future::poll_fn(|cx| {
            let wire = &mut *conn.wire.borrow_mut();
            wire.read = BytesMut::new();
            tokio::io::AsyncWrite::poll_shutdown(std::pin::Pin::new(&mut wire.io), cx)
        });
        if shut.await.is_err() {
            return;
        }
        let mut left = DRAIN as usize;
        std::future::poll_fn(|cx| {
            loop {
                let read = std::task::ready!(conn.poll_first(cx)).unwrap_or(0);
                conn.wire.borrow_mut().read.clear();
                left = left.saturating_sub(read);
                if read == 0 || left == 0 {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, work).await;
}

/// A response that ends early must not look complete: the connection is reset.
fn abort(conn: &Conn) {
    conn.wire.borrow().io.stream().reset_on_close();
}

/// Bytes both ways after 101.
async fn tunnel(conn: &Rc<Conn>, upgraded: Upgraded, http: &Http, record: &mut Record) {
    let (mut down, mut up) = (Tunnel(conn.clone()), H1Stream(upgraded.conn));
    let limits = relay::Limits {
        idle: http.tunnel_timeout,
        half_close: http.tunnel_timeout,
    };
    let shared = &conn.down.worker.relays;
    relay::relay(
        &mut down,
        &mut up,
        BytesMut::new(),
        shared,
        limits,
        |direction, n| match direction {
            Direction::Up => record.add_bytes_in(n as u64),
            Direction::Down => record.add_bytes_out(n as u64),
        },
    )
    .await;
    drop(upgraded.active);
}

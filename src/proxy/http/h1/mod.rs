//! HTTP/1 towards clients: heads read, requests handled one after the other, responses written.
//!
//! A connection at rest is a socket and a small task: what a request needs is taken when its first byte arrives and
//! given back when nothing follows.

mod bulk;
mod end;
mod life;
mod send;
mod wire;

use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::{Method, StatusCode, Version};
use tokio::time::Instant;

use self::end::{DRAIN, abort, drained, linger, say_goodbye};
pub use self::life::serve;
use self::send::{Cut, Form};
pub use self::wire::{Client, ClientBody, Conn, Tunnel};
use super::body::{RequestBody, ResponseBody, Upgraded};
use super::{Request, Scope, request, respond, subject, version_label};
use crate::fields::{Fields, Known};
use crate::h1::decode::Decoder;
use crate::h1::desync::{Class, Reason};
use crate::h1::encode;
use crate::h1::framing::Framing;
use crate::h1::head::HeadSearch;
use crate::h1::request::{Refused, RequestHead, is_h2_preface, parse};
use crate::net::pace::Pace;
use crate::net::relay::{self, Direction};
use crate::pool::h1::H1Stream;
use crate::proxy::drain::within_drain;
use crate::proxy::record::{Record, Subject, line};
use crate::snapshot::{Http, Listener};

/// Why no request follows.
enum NoMore {
    Close,
    H2,
}

/// One request, of which the first bytes are there. Tells when it had been answered, and how long the next may take to
/// come.
async fn next(conn: &Rc<Conn>, served: &mut u64) -> Result<(Instant, Duration), NoMore> {
    let held = conn.down.worker.snapshot.get();
    let listener = held.listener(conn.down.slot).ok_or(NoMore::Close)?;
    let http = listener.http().ok_or(NoMore::Close)?;
    let head = match read_head(conn, http, *served == 0).await {
        Ok(head) => head,
        Err(NoHead::H2) => return Err(NoMore::H2),
        Err(NoHead::Gone) => return Err(NoMore::Close),
        Err(NoHead::Refused(refusal)) => {
            refuse(conn, listener, http, held.access_log, refusal).await;
            return Err(NoMore::Close);
        }
    };
    *served += 1;
    let last = http.max_requests.is_some_and(|max| *served >= max) || !conn.down.worker.keeps(conn.down.slot);
    let ended = exchange(conn, listener, http, held.access_log, head, last).await;
    conn.count(conn.wire.borrow().desync.map_or(Class::Compliant, Reason::class));
    ended.map(|at| (at, http.idle_timeout)).ok_or(NoMore::Close)
}

/// Why there is no request.
enum NoHead {
    H2,
    Gone,
    Refused(Refusal),
}

/// What a client is told of bytes that are no request.
struct Refusal {
    status: StatusCode,
    why: &'static str,
    desync: Option<Reason>,
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        Self {
            status: refused.error.status(),
            why: refused.error.reason(),
            desync: refused.reason,
        }
    }
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
                    Some(false) => match parse(&mut wire.read, &mut search, &http.limits, http.desync) {
                        Ok(Some(head)) => {
                            wire.deadline.clear();
                            return Poll::Ready(Ok(head));
                        }
                        Ok(None) => {}
                        Err(e) => return Poll::Ready(Err(NoHead::Refused(e.into()))),
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
                        Err(NoHead::Refused(Refusal {
                            status: StatusCode::REQUEST_TIMEOUT,
                            why: "the request's head did not come in time",
                            desync: None,
                        }))
                    });
                }
            }
        }
    })
    .await
}

/// Answers bytes that are no request, and closes.
async fn refuse(conn: &Rc<Conn>, listener: &Listener, http: &Http, logged: bool, refusal: Refusal) {
    let Refusal { status, why, desync } = refusal;
    let mut record = Record::begin(&conn.down.worker, logged, || {
        line(&Subject {
            listener: &listener.name,
            client: &conn.down.peer.to_string(),
            method: "",
            host: "",
            target: "",
            protocol: "HTTP/1",
            user_agent: None,
        })
    });
    record.count_in(&http.unrouted);
    record.failed(why);
    if let Some(reason) = desync {
        conn.count(reason.class());
        record.deviates(reason);
    }
    record.status = status;
    let mut response = respond::plain(status, why);
    let mut form = Form {
        version: Version::HTTP_11,
        is_head: false,
        keep: false,
    };
    let length = send::head(conn, &mut form, &response);
    let sent = send::body(
        conn,
        &mut response,
        length,
        Pace::new(http.write_timeout, http.min_rate),
        &mut record,
    )
    .await;
    record.finish();
    if sent.is_ok() {
        linger(conn).await;
    }
}

/// One request and its response. Tells when it was answered; `None`: the connection is at its end.
async fn exchange(
    conn: &Rc<Conn>,
    listener: &Arc<Listener>,
    http: &Http,
    logged: bool,
    head: RequestHead,
    last: bool,
) -> Option<Instant> {
    let down = &conn.down;
    let mut record = Record::begin(&down.worker, logged, || subject_line(conn, listener, &head));
    let (method, version) = (head.method.clone(), head.version);
    {
        let wire = &mut *conn.wire.borrow_mut();
        wire.decoder = Decoder::new(head.framing);
        wire.pace = Pace::new(http.body_timeout, http.min_rate);
        wire.owes_continue = head.expect_continue && head.framing != Framing::None;
        wire.body_bytes = 0;
        wire.desync = head.deviation;
    }
    let keep = head.keep_alive && !last;
    let asked_to_close = !head.keep_alive && !head.deviation.is_some_and(Reason::closes);
    let request = into_request(conn, head);
    let inform = |status: StatusCode, fields: &Fields| {
        encode::informational(conn.wire.borrow_mut().out.tail(), status, fields);
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
                let _ = conn.poll_write(cx, &mut 0);
            }
            if read {
                conn.poll_gone(cx).map(|()| None)
            } else {
                Poll::Pending
            }
        })
        .await
    };
    let mut response = answered.filter(|_| !record.gone)?;
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
    let sent = send::body(
        conn,
        &mut response,
        length,
        Pace::new(http.write_timeout, http.min_rate),
        &mut record,
    )
    .await;
    {
        let wire = conn.wire.borrow();
        record.add_bytes_in(wire.body_bytes);
        if let Some(reason) = wire.desync {
            record.deviates(reason);
        }
    }
    match sent {
        Ok(()) => {}
        Err(cut) => {
            match &cut {
                Cut::Client(why) => record.failed(format!("client_gone: {why}")),
                Cut::Endpoint(e) => record.cut(e),
            }
            record.finish();
            abort(conn);
            return None;
        }
    }
    if let ResponseBody::Upgraded(upgraded) = response.body {
        tunnel(conn, *upgraded, http, &mut record).await;
        record.finish();
        return None;
    }
    // The rest of the request's body is nobody's now.
    drop(response);
    let ended = record.finish();
    if form.keep && drained(conn).await {
        return Some(ended);
    }
    // A client that asked for the end sends nothing more: nothing is left that could reset the answer on its way. After
    // a body some send a CRLF too many, which is waited for.
    let silent = asked_to_close && {
        let wire = conn.wire.borrow();
        wire.body_bytes == 0 && wire.decoder.is_end() && wire.read.is_empty()
    };
    if silent {
        say_goodbye(conn).await;
    } else {
        linger(conn).await;
    }
    None
}

fn subject_line(conn: &Conn, listener: &Listener, head: &RequestHead) -> crate::telemetry::access::Line {
    let (host, target) = subject(&head.target, &head.fields);
    line(&Subject {
        listener: &listener.name,
        client: &conn.down.peer.to_string(),
        method: head.method.as_str(),
        host: &host,
        target: &target,
        protocol: version_label(head.version),
        user_agent: head.fields.get(Known::UserAgent),
    })
}

fn into_request(conn: &Rc<Conn>, head: RequestHead) -> Request {
    let RequestHead {
        method,
        target,
        version,
        mut fields,
        framing,
        expect_continue,
        upgrade,
        deviation,
        ..
    } = head;
    if !fields.has(Known::Host) {
        // HTTP/1.0 need not have one; it is sent on as 1.1, which must, if an empty one (RFC 9112 section 3.2).
        fields.append(Known::Host, b"");
    }
    let (body, length) = match framing {
        Framing::None => (RequestBody::Empty, fields.has(Known::ContentLength).then_some(0)),
        Framing::Length(n) => (RequestBody::H1(ClientBody(conn.clone())), Some(n)),
        Framing::Chunked | Framing::UntilClose => (RequestBody::H1(ClientBody(conn.clone())), None),
    };
    Request {
        method,
        target,
        version,
        fields,
        body,
        length,
        expect_continue,
        upgrade,
        alone: deviation.is_some_and(Reason::closes),
    }
}

/// Whether another request can follow this response: the rest of the request's body is being sent on, or short
/// enough to be thrown away.
fn may_go_on(conn: &Conn, body: &ResponseBody) -> bool {
    let wire = conn.wire.borrow();
    if wire.broken {
        return false;
    }
    let uploading = match body.bare() {
        // An endpoint that is about to close reads no more of it.
        ResponseBody::H1(body) => body.sending.is_some() && body.keep,
        ResponseBody::H2(_) => true,
        _ => false,
    };
    let short = wire.decoder.remaining().is_some_and(|n| n <= DRAIN) && !wire.owes_continue;
    wire.decoder.is_end() || uploading || short
}

/// Bytes both ways after 101.
async fn tunnel(conn: &Rc<Conn>, upgraded: Upgraded, http: &Http, record: &mut Record) {
    let (mut down, mut up) = (Tunnel(conn.clone()), H1Stream(upgraded.conn));
    let limits = relay::Limits {
        idle: http.tunnel_timeout,
        half_close: http.tunnel_timeout,
    };
    let shared = &conn.down.worker.relays;
    let relayed = relay::relay(
        &mut down,
        &mut up,
        BytesMut::new(),
        shared,
        limits,
        |direction, n| match direction {
            Direction::Up => record.add_bytes_in(n as u64),
            Direction::Down => record.add_bytes_out(n as u64),
        },
    );
    within_drain(&upgraded.active, upgraded.drain_timeout, relayed).await;
    drop(upgraded.active);
}

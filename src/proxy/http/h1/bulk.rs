//! Large bodies of known length, from an endpoint's socket to the client's without a copy: nothing looks at them.

use std::task::{Context, Poll, ready};

use tokio::time::Instant;

use super::send::Cut;
use super::wire::Conn;
use crate::h1::decode::BodyError;
use crate::net::deadline::Deadline;
use crate::net::pace::Pace;
use crate::net::splice::{Pipe, unsupported};
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::http::body::{H1Body, ResponseBody};
use crate::proxy::record::Record;
use crate::tls::io::Io;

/// For less than this, two system calls more cost more than the copies they save.
const LEAST: u64 = 96 * 1024;

/// Whether the rest of `body` should go to `client` through a pipe: both connections are plain, and what is left is
/// known and large.
pub fn is_for(client: &Io, body: &ResponseBody) -> bool {
    let ResponseBody::H1(body) = body else { return false };
    if body.decoder.counted().is_none_or(|left| left < LEAST) {
        return false;
    }
    let plain = |io: &Io| matches!(io, Io::Plain(_));
    let Some(endpoint) = &body.conn else { return false };
    let endpoint = endpoint.borrow();
    plain(client) && plain(&endpoint.io) && endpoint.read.is_empty()
}

/// Moves the rest of `body`. Ready when the client has all of it (`true`), or when it must be copied after all, because
/// the system refuses.
pub fn poll_move(
    cx: &mut Context<'_>,
    pipe: &mut Pipe,
    conn: &Conn,
    body: &mut H1Body,
    deadline: &mut Deadline,
    pace: &mut Pace,
    record: &mut Record,
) -> Poll<Result<bool, Cut>> {
    loop {
        if pipe.held() == 0 {
            let left = body.decoder.counted().unwrap_or(0);
            if left == 0 {
                return Poll::Ready(Ok(true));
            }
            match poll_fill(cx, pipe, body, usize::try_from(left).unwrap_or(usize::MAX)) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => return Poll::Ready(Ok(false)),
                Poll::Ready(Err(e)) => {
                    body.keep = false;
                    return Poll::Ready(Err(Cut::Endpoint(e)));
                }
                Poll::Pending => {
                    let read = conn.wire.borrow().decoder.is_end();
                    if read && conn.poll_gone(cx).is_ready() {
                        return Poll::Ready(Err(Cut::Client("the client closed the connection")));
                    }
                    return Poll::Pending;
                }
            }
        }
        let emptied = pipe.poll_empty(cx, conn.wire.borrow().io.stream());
        match emptied {
            Poll::Ready(Ok(n)) => {
                conn.count_out(n);
                record.add_bytes_out(n as u64);
                pace.moved(n, Instant::now);
                deadline.clear();
            }
            Poll::Ready(Err(_)) => return Poll::Ready(Err(Cut::Client("the client closed the connection"))),
            Poll::Pending => {
                deadline.set_at(pace.wait(Instant::now));
                ready!(deadline.poll(cx));
                return Poll::Ready(Err(Cut::Client("the client took no byte in time")));
            }
        }
    }
}

/// Takes what the endpoint has sent, at most `left` bytes. `false`: it must be copied.
fn poll_fill(cx: &mut Context<'_>, pipe: &mut Pipe, body: &mut H1Body, left: usize) -> Poll<Result<bool, ProxyError>> {
    let Some(endpoint) = &body.conn else {
        return Poll::Ready(Ok(false));
    };
    let endpoint = &mut *endpoint.borrow_mut();
    let filled = match pipe.poll_fill(cx, endpoint.io.stream(), left) {
        Poll::Ready(filled) => filled,
        Poll::Pending => {
            endpoint.deadline.set_if_clear(body.read_timeout);
            ready!(endpoint.deadline.poll(cx));
            let late = ProxyError::new(Kind::ReadTimeout, "the response body paused for too long");
            return Poll::Ready(Err(late));
        }
    };
    endpoint.deadline.clear();
    Poll::Ready(match filled {
        Ok(0) => Err(ProxyError::new(Kind::BadResponse, BodyError::Truncated.reason())),
        Ok(n) => {
            body.decoder.passed(n as u64);
            Ok(true)
        }
        Err(e) if unsupported(&e) => Ok(false),
        Err(e) => Err(ProxyError::new(Kind::Reset, format!("response body: {e}"))),
    })
}

//! A response's way to an HTTP/1 client: head and body in as few writes as possible, held back by a slow client.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use http::{StatusCode, Version};
use tokio::time::Instant;

use super::bulk;
use super::wire::Conn;
use crate::h1::encode::{self, BodyLength, Connection};
use crate::net::deadline::Deadline;
use crate::net::pace::Pace;
use crate::net::splice::Pipe;
use crate::proxy::error::ProxyError;
use crate::proxy::http::Response;
use crate::proxy::http::body::ResponseBody;
use crate::proxy::record::Record;

/// How a response is framed.
pub struct Form {
    pub version: Version,
    pub is_head: bool,
    /// Another request may follow.
    pub keep: bool,
}

/// Why a response did not arrive whole.
#[derive(Debug)]
pub enum Cut {
    /// The client took no byte for too long, or went away.
    Client(&'static str),
    Endpoint(ProxyError),
}

/// Writes the head behind what waits; tells how the body follows.
pub fn head(conn: &Conn, form: &mut Form, response: &Response) -> BodyLength {
    let status = response.status;
    let length = if status == StatusCode::SWITCHING_PROTOCOLS || status == StatusCode::NO_CONTENT {
        BodyLength::None
    } else if form.is_head || status == StatusCode::NOT_MODIFIED {
        response.length.map_or(BodyLength::None, BodyLength::Known)
    } else {
        match response.length {
            Some(n) => BodyLength::Known(n),
            None if form.version == Version::HTTP_11 => BodyLength::Chunked,
            None => {
                form.keep = false;
                BodyLength::Close
            }
        }
    };
    let connection = match &response.body {
        ResponseBody::Upgraded(upgraded) => match &upgraded.protocol {
            Some(protocol) => Connection::Upgrade(protocol.clone()),
            None => Connection::None,
        },
        _ if !form.keep => Connection::Close,
        _ if form.version == Version::HTTP_10 => Connection::KeepAlive,
        _ => Connection::None,
    };
    encode::response(
        conn.wire.borrow_mut().out.tail(),
        status,
        &response.fields,
        length,
        connection,
    );
    length
}

/// Sends head (waiting in the buffer) and body. A client that goes away while the endpoint is
/// silent is noticed.
pub async fn body(
    conn: &Rc<Conn>,
    response: &mut Response,
    length: BodyLength,
    mut pace: Pace,
    record: &mut Record,
) -> Result<(), Cut> {
    let mut sending = Sending {
        chunked: length == BodyLength::Chunked,
        ended: false,
        broken: None,
        pipe: None,
        copies: false,
    };
    let mut deadline = Deadline::default();
    std::future::poll_fn(|cx| sending.poll(cx, conn, &mut response.body, &mut deadline, &mut pace, record)).await
}

struct Sending {
    chunked: bool,
    ended: bool,
    /// The endpoint's failure, told when what came before it is written.
    broken: Option<ProxyError>,
    /// The rest is moved from socket to socket.
    pipe: Option<Pipe>,
    /// It cannot be.
    copies: bool,
}

impl Sending {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        conn: &Rc<Conn>,
        body: &mut ResponseBody,
        deadline: &mut Deadline,
        pace: &mut Pace,
        record: &mut Record,
    ) -> Poll<Result<(), Cut>> {
        loop {
            if let (Some(pipe), ResponseBody::H1(body)) = (&mut self.pipe, &mut *body) {
                if ready!(bulk::poll_move(cx, pipe, conn, body, deadline, pace, record))? {
                    body.complete();
                    return Poll::Ready(Ok(()));
                }
                self.pipe = None;
                self.copies = true;
            }
            let starved = self.gather(cx, conn, body);
            let mut written = 0;
            let polled = conn.poll_write(cx, &mut written);
            record.add_bytes_out(written as u64);
            match polled {
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Cut::Client("the client closed the connection"))),
                Poll::Pending => {
                    if written > 0 {
                        pace.moved(written, Instant::now);
                    }
                    deadline.set_at(pace.wait(Instant::now));
                    ready!(deadline.poll(cx));
                    return Poll::Ready(Err(Cut::Client("the client took no byte in time")));
                }
                Poll::Ready(Ok(())) => {
                    pace.moved(written, Instant::now);
                    deadline.clear();
                }
            }
            if let Some(e) = self.broken.take() {
                return Poll::Ready(Err(Cut::Endpoint(e)));
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if !self.chunked && !self.copies && bulk::is_for(&conn.wire.borrow().io, body) {
                self.pipe = conn.down.worker.relays.pipes.take();
                if self.pipe.is_some() {
                    continue;
                }
                self.copies = true;
            }
            if starved {
                let read = conn.wire.borrow().decoder.is_end();
                if read && conn.poll_gone(cx).is_ready() {
                    return Poll::Ready(Err(Cut::Client("the client closed the connection")));
                }
                return Poll::Pending;
            }
        }
    }

    /// Takes parts of the body until enough waits to be written, none is there (`true`), it has ended, or the rest goes
    /// another way.
    fn gather(&mut self, cx: &mut Context<'_>, conn: &Conn, body: &mut ResponseBody) -> bool {
        while !self.ended && self.broken.is_none() && !conn.wire.borrow().out.is_full() {
            let frame = match body.poll_frame(cx) {
                Poll::Pending => return true,
                Poll::Ready(Some(Err(e))) => {
                    self.broken = Some(e);
                    break;
                }
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            let wire = &mut *conn.wire.borrow_mut();
            let out = &mut wire.out;
            let Some(frame) = frame else {
                self.ended = true;
                if self.chunked {
                    encode::last_chunk(out.tail(), None);
                }
                break;
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    if self.chunked {
                        encode::chunk_start(out.tail(), data.len());
                        out.push(data);
                        encode::chunk_end(out.tail());
                        continue;
                    }
                    out.push(data);
                    // A length says that this was all: the write need not wait for another look.
                    self.ended |= body.is_empty();
                    if !self.copies && bulk::is_for(&wire.io, body) {
                        break;
                    }
                }
                Err(frame) => {
                    self.ended = true;
                    if self.chunked {
                        encode::last_chunk(out.tail(), frame.into_trailers().ok().as_ref());
                    }
                }
            }
        }
        false
    }
}

//! A response's way to an HTTP/1 client: head and body in as few writes as possible, held back by a slow client.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
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

/// Parts up to this size are copied behind what waits; larger ones are written where they lie.
const COPY: usize = 4 * 1024;
/// What is gathered before a write.
const GATHER: usize = 16 * 1024;

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
        &mut conn.wire.borrow_mut().out,
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
        data: Bytes::new(),
        large: false,
        ended: false,
        pipe: None,
        copies: false,
    };
    let mut deadline = Deadline::default();
    std::future::poll_fn(|cx| sending.poll(cx, conn, &mut response.body, &mut deadline, &mut pace, record)).await
}

struct Sending {
    chunked: bool,
    /// Written where it lies, after what waits in the buffer.
    data: Bytes,
    /// `data` is a chunk whose end is not written yet.
    large: bool,
    ended: bool,
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
            let starved = match self.gather(cx, conn, body) {
                Ok(starved) => starved,
                Err(e) => return Poll::Ready(Err(Cut::Endpoint(e))),
            };
            let mut written = 0;
            let polled = conn.poll_write(cx, &mut self.data, &mut written);
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
            if std::mem::take(&mut self.large) {
                encode::chunk_end(&mut conn.wire.borrow_mut().out);
                continue;
            }
            if self.ended {
                return Poll::Ready(Ok(()));
            }
            if !self.chunked && !self.copies {
                self.pipe = bulk::pipe_for(conn, body);
                if self.pipe.is_some() {
                    continue;
                }
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

    /// Takes parts of the body until enough waits to be written, none is there (`true`), or it has ended.
    fn gather(&mut self, cx: &mut Context<'_>, conn: &Conn, body: &mut ResponseBody) -> Result<bool, ProxyError> {
        while !self.ended && self.data.is_empty() && conn.wire.borrow().out.len() < GATHER {
            let frame = match body.poll_frame(cx) {
                Poll::Pending => return Ok(true),
                Poll::Ready(Some(Err(e))) => return Err(e),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            let out = &mut conn.wire.borrow_mut().out;
            let Some(frame) = frame else {
                self.ended = true;
                if self.chunked {
                    encode::last_chunk(out, None);
                }
                break;
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => {}
                Ok(data) => {
                    if self.chunked {
                        encode::chunk_start(out, data.len());
                    }
                    if data.len() <= COPY {
                        out.put_slice(&data);
                        if self.chunked {
                            encode::chunk_end(out);
                        }
                    } else {
                        self.data = data;
                        // The chunk's end waits until the part is written.
                        self.large = self.chunked;
                    }
                    // A length says that this was all: the write need not wait for another look.
                    self.ended |= !self.chunked && body.is_empty();
                }
                Err(frame) => {
                    self.ended = true;
                    if self.chunked {
                        encode::last_chunk(out, frame.into_trailers().ok().as_ref());
                    }
                }
            }
        }
        Ok(false)
    }
}

//! A request's body on its way to an endpoint: limited, remembered for a second attempt, sent while the
//! response may already flow.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

use super::body::RequestBody;
use crate::h1::encode;
use crate::net::deadline::Deadline;
use crate::pool::h1::H1;
use crate::proxy::error::{Kind, ProxyError};

/// How much of a body is kept where only a request that nobody has read may be sent again: what may leave as one packet.
pub const UNREAD: usize = 8 * 1024;
/// The body as all attempts share it.
pub struct Source {
    body: RequestBody,
    /// What was read so far, while all of it is kept: copied, because a frame of one byte may hold a whole read
    /// buffer alive.
    replay: BytesMut,
    read: u64,
    max: u64,
    /// Bytes that may be kept.
    buffer: usize,
    keep: bool,
    end: Option<Option<HeaderMap>>,
    /// The client's fault, told to every later reader.
    failed: Option<ProxyError>,
    /// The client is waited for: the endpoint cannot be late.
    starved: bool,
    /// Something came since this was last asked.
    moved: bool,
}

/// One attempt's view of the body, from its start.
pub struct Upload {
    /// `None`: there is no body.
    source: Option<Rc<RefCell<Source>>>,
    /// Bytes of it passed on.
    next: usize,
    ended: bool,
}

impl Source {
    /// `buffer`: bytes kept for attempts that begin after some were sent.
    pub fn new(body: RequestBody, max: Option<u64>, buffer: usize) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            body,
            replay: BytesMut::new(),
            read: 0,
            max: max.unwrap_or(u64::MAX),
            buffer,
            keep: buffer > 0,
            end: None,
            failed: None,
            starved: false,
            moved: false,
        }))
    }

    /// Whether an attempt could send all of it from the start.
    pub fn is_whole(&self) -> bool {
        self.read == 0 || self.keep
    }

    /// Whether all of it has come and is kept.
    pub fn is_all_kept(&self) -> bool {
        self.keep && self.end.is_some()
    }

    /// No other attempt follows: what was kept for one goes as soon as it has been sent.
    pub fn forget(&mut self) {
        self.keep = false;
    }

    /// The client's failure, when that is why an attempt ended.
    pub fn failure(&self) -> Option<ProxyError> {
        self.failed.clone()
    }

    /// Moves the endpoint's deadline: it has `pause` from the last byte sent, and all time while the client is
    /// waited for.
    pub fn extend(&mut self, deadline: &mut Deadline, pause: Duration) {
        if self.starved {
            deadline.clear();
            self.moved = true;
        } else if std::mem::take(&mut self.moved) {
            deadline.set(pause);
        }
    }
}

impl Upload {
    pub fn new(source: Option<&Rc<RefCell<Source>>>) -> Self {
        Self {
            source: source.cloned(),
            next: 0,
            ended: source.is_none(),
        }
    }

    fn poll_part(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Some(source) = self.source.as_ref().filter(|_| !self.ended) else {
            return Poll::Ready(None);
        };
        let source = &mut *source.borrow_mut();
        if let Some(part) = source.replay.get(self.next..).filter(|part| !part.is_empty()) {
            self.next += part.len();
            return Poll::Ready(Some(Ok(Frame::data(Bytes::copy_from_slice(part)))));
        }
        if let Some(e) = &source.failed {
            return Poll::Ready(Some(Err(e.clone())));
        }
        if let Some(trailers) = &source.end {
            self.ended = true;
            return Poll::Ready(trailers.clone().map(|t| Ok(Frame::trailers(t))));
        }
        let polled = source.body.poll_frame(cx);
        source.starved = polled.is_pending();
        source.moved |= polled.is_ready();
        let frame = match ready!(polled) {
            None => {
                source.end = Some(None);
                self.ended = true;
                return Poll::Ready(None);
            }
            Some(Err(e)) => {
                source.failed = Some(e.clone());
                return Poll::Ready(Some(Err(e)));
            }
            Some(Ok(frame)) => frame,
        };
        match frame.into_data() {
            Ok(data) => {
                source.read += data.len() as u64;
                if source.read > source.max {
                    let e = ProxyError::new(Kind::BodyTooLarge, "the body is longer than allowed");
                    source.failed = Some(e.clone());
                    return Poll::Ready(Some(Err(e)));
                }
                if source.keep && source.read <= source.buffer as u64 {
                    source.replay.extend_from_slice(&data);
                } else {
                    source.keep = false;
                    source.replay = BytesMut::new();
                }
                self.next += data.len();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Err(frame) => {
                let trailers = frame.into_trailers().ok();
                source.end = Some(trailers.clone());
                self.ended = true;
                Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))))
            }
        }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        self.get_mut().poll_part(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }
}

/// Why sending a body stopped.
#[derive(Debug)]
pub enum SendError {
    /// The client's part.
    Client(ProxyError),
    /// The endpoint takes no more. It may have answered already.
    Endpoint(std::io::Error),
}

/// A body being written to an HTTP/1 endpoint.
pub struct Pump {
    upload: Upload,
    conn: Rc<RefCell<H1>>,
    chunked: bool,
    all_read: bool,
}

impl Pump {
    pub fn new(upload: Upload, conn: Rc<RefCell<H1>>, chunked: bool) -> Self {
        Self {
            upload,
            conn,
            chunked,
            all_read: false,
        }
    }

    /// Ready when all of it is written.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), SendError>> {
        loop {
            if self.all_read || self.conn.borrow().out.is_full() {
                ready!(self.conn.borrow_mut().poll_flush(cx)).map_err(SendError::Endpoint)?;
                if self.all_read {
                    return Poll::Ready(Ok(()));
                }
            }
            let frame = match self.upload.poll_part(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    // What has come goes on at once.
                    ready!(self.conn.borrow_mut().poll_flush(cx)).map_err(SendError::Endpoint)?;
                    return Poll::Pending;
                }
            };
            let mut conn = self.conn.borrow_mut();
            let out = &mut conn.out;
            match frame {
                Some(Err(e)) => return Poll::Ready(Err(SendError::Client(e))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if data.is_empty() => {}
                    Ok(data) if self.chunked => {
                        encode::chunk_start(out.tail(), data.len());
                        out.push(data);
                        encode::chunk_end(out.tail());
                    }
                    Ok(data) => out.push(data),
                    Err(frame) => {
                        if self.chunked {
                            encode::last_chunk(out.tail(), frame.into_trailers().ok().as_ref());
                        }
                        self.all_read = true;
                    }
                },
                None => {
                    if self.chunked {
                        encode::last_chunk(out.tail(), None);
                    }
                    self.all_read = true;
                }
            }
        }
    }

    /// Goes on by itself, while the response flows.
    pub fn spawn(mut self) -> Sending {
        let done = Rc::new(Cell::new(false));
        let mark = done.clone();
        let task = tokio::task::spawn_local(async move {
            let sent = std::future::poll_fn(|cx| self.poll(cx)).await;
            // A failure shows in the response, or in its absence.
            mark.set(sent.is_ok());
        });
        Sending { task, done }
    }
}

/// A body being sent by a task of its own, which ends with this.
pub struct Sending {
    task: tokio::task::JoinHandle<()>,
    done: Rc<Cell<bool>>,
}

impl Sending {
    /// All of it was written.
    pub fn is_done(&self) -> bool {
        self.done.get()
    }

    /// Waits for the task's end.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.task).poll(cx).map(|_| ())
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! Bodies as one concrete type per direction: requests from clients, responses from endpoints.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::h1::ClientBody;
use super::stored::StoredBody;
use super::upload::Sending;
use crate::cache::fill::Seat;
use crate::cache::range::Span;
use crate::endpoint::Active;
use crate::h1::decode::{Decoder, Step};
use crate::net::deadline::Deadline;
use crate::net::pace::Pace;
use crate::pool::Dialer;
use crate::pool::h1::{H1, ReadError};
use crate::pool::h2::StreamPermit;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::worker::Worker;

/// The body of a request as it comes from the client.
pub enum RequestBody {
    Empty,
    H1(ClientBody),
    H2(Incoming, Deadline, Pace),
    /// Read already, for the cache to look at.
    Read(Box<Read>),
}

/// What was read of a body, and what follows.
pub struct Read {
    pub data: Bytes,
    pub rest: RequestBody,
    pub trailers: Option<HeaderMap>,
}

impl RequestBody {
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::H1(_) => false,
            Self::H2(body, ..) => body.is_end_stream(),
            Self::Read(read) => read.data.is_empty() && read.rest.is_empty() && read.trailers.is_none(),
        }
    }

    /// The next part.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::H1(body) => body.poll_frame(cx),
            Self::Read(read) if !read.data.is_empty() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut read.data)))))
            }
            Self::Read(read) => match read.trailers.take() {
                Some(trailers) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                None => read.rest.poll_frame(cx),
            },
            Self::H2(body, deadline, pace) => match Pin::new(body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    pace.moved(frame.data_ref().map_or(0, Bytes::len), Instant::now);
                    Poll::Ready(Some(Ok(frame)))
                }
                Poll::Ready(Some(Err(e))) => Poll::Ready(Some(Err(ProxyError::new(
                    Kind::ClientGone,
                    format!("request body: {e}"),
                )))),
                Poll::Ready(None) => Poll::Ready(None),
                Poll::Pending => {
                    deadline.set_at(pace.wait(Instant::now));
                    ready!(deadline.poll(cx));
                    Poll::Ready(Some(Err(ProxyError::new(
                        Kind::BodyTimeout,
                        "the body does not come in time",
                    ))))
                }
            },
        }
    }
}

/// The body of a response on its way to the client.
pub enum ResponseBody {
    Empty,
    Full(Bytes),
    /// What is stored in several pieces.
    Pieces(Box<Pieces>),
    /// What is stored in a file.
    Stored(Box<StoredBody>),
    /// What is fetched for the cache, as it arrives.
    Filling(Box<Filling>),
    /// One range of any of the others.
    Window(Box<Window>),
    H1(Box<H1Body>),
    H2(Box<H2Body>),
    /// Any of the others, within a time.
    Timed(Box<Timed>),
    /// After 101: the connection to the endpoint, to be relayed.
    Upgraded(Box<Upgraded>),
}

impl ResponseBody {
    /// The next part.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self {
            Self::Empty | Self::Upgraded(_) => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Pieces(pieces) => Poll::Ready(pieces.next().map(Ok)),
            Self::Stored(stored) => stored.poll_frame(cx),
            Self::Filling(filling) => filling.poll_frame(cx),
            Self::Window(window) => window.poll_frame(cx),
            Self::H1(body) => body.poll_frame(cx),
            Self::H2(body) => body.poll_frame(cx),
            Self::Timed(body) => body.poll_frame(cx),
        }
    }

    /// What it is without a limit of time.
    pub fn bare(&self) -> &Self {
        match self {
            Self::Timed(timed) => &timed.body,
            other => other,
        }
    }

    /// Nothing will come.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Empty | Self::Upgraded(_) => true,
            Self::Full(bytes) => bytes.is_empty(),
            Self::Pieces(pieces) => pieces.data.len() == 0 && pieces.trailers.is_none(),
            Self::Stored(stored) => stored.is_end(),
            Self::Filling(filling) => filling.0.is_end(),
            Self::Window(window) => window.left == 0,
            Self::H1(body) => body.decoder.is_end(),
            Self::H2(body) => body.incoming.is_end_stream(),
            Self::Timed(timed) => timed.body.is_empty(),
        }
    }
}

/// A body that must end before a time (`max_duration` of a route).
pub struct Timed {
    body: ResponseBody,
    deadline: Deadline,
}

impl Timed {
    /// Limits what can be limited: neither what has ended nor what has become a tunnel.
    pub fn limit(body: ResponseBody, at: Instant) -> ResponseBody {
        match body {
            ResponseBody::H1(_)
            | ResponseBody::H2(_)
            | ResponseBody::Filling(_)
            | ResponseBody::Window(_)
            | ResponseBody::Stored(_) => {
                let mut deadline = Deadline::default();
                deadline.set_at(at);
                ResponseBody::Timed(Box::new(Self { body, deadline }))
            }
            other => other,
        }
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        // Also where parts never cease to come.
        if self.deadline.poll(cx).is_ready() {
            let late = ProxyError::new(Kind::MaxDuration, "the request's time is over");
            return Poll::Ready(Some(Err(late)));
        }
        self.body.poll_frame(cx)
    }
}

/// Pieces of a stored body, one after the other, and what came behind it.
pub struct Pieces {
    pub data: std::vec::IntoIter<Bytes>,
    pub trailers: Option<HeaderMap>,
}

impl Pieces {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        let data = self.data.next().map(Frame::data);
        data.or_else(|| self.trailers.take().map(Frame::trailers))
    }
}

/// A body that others may read as well.
pub struct Filling(pub Seat);

impl Filling {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        Poll::Ready(match ready!(self.0.poll_next(cx)) {
            Some(Ok(data)) => Some(Ok(Frame::data(data))),
            Some(Err(_)) => Some(Err(ProxyError::new(
                Kind::Reset,
                "response body: the fetch for the cache broke off",
            ))),
            None => {
                let trailers = self.0.take_trailers();
                trailers.map(|trailers| Ok(Frame::trailers(trailers.as_ref().clone())))
            }
        })
    }
}

/// A range of a body that comes whole.
pub struct Window {
    body: ResponseBody,
    /// Bytes before it, and of it.
    skip: u64,
    left: u64,
}

impl Window {
    pub fn of(body: ResponseBody, (first, last): Span) -> ResponseBody {
        ResponseBody::Window(Box::new(Self {
            body,
            skip: first,
            left: last - first + 1,
        }))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        while self.left > 0 {
            let mut data = match ready!(self.body.poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => data,
                    // Trailers are the whole's.
                    Err(_) => continue,
                },
                Some(Err(e)) => return Poll::Ready(Some(Err(e))),
                None => {
                    let short = ProxyError::new(Kind::BadResponse, "the response body ended before its length");
                    return Poll::Ready(Some(Err(short)));
                }
            };
            let skipped = self.skip.min(data.len() as u64);
            self.skip -= skipped;
            let _ = data.split_to(skipped as usize);
            data.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
            if data.is_empty() {
                continue;
            }
            self.left -= data.len() as u64;
            if self.left == 0 {
                // Nothing is read for a reader who has his part.
                self.body = ResponseBody::Empty;
            }
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(None)
    }
}

/// From an HTTP/1 endpoint. Complete, it gives the connection back; dropped before, it closes it.
pub struct H1Body {
    /// `None` once the exchange is over.
    pub conn: Option<Rc<RefCell<H1>>>,
    pub decoder: Decoder,
    /// The connection may serve another request.
    pub keep: bool,
    /// The rest of the request's body, still being sent.
    pub sending: Option<Sending>,
    pub worker: Rc<Worker>,
    pub dialer: Arc<Dialer>,
    /// Taken when the exchange is over.
    pub active: Option<Active>,
    pub read_timeout: Duration,
}

impl H1Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let step = match &self.conn {
            Some(conn) => {
                let mut conn = conn.borrow_mut();
                ready!(conn.poll_body(cx, &mut self.decoder, self.read_timeout))
            }
            None => return Poll::Ready(None),
        };
        match step {
            Ok(Step::Data(data)) => {
                if self.decoder.is_end() {
                    self.complete();
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(Step::More) => Poll::Pending,
            Ok(Step::End(trailers)) => {
                self.complete();
                Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))))
            }
            Err(e) => {
                self.keep = false;
                Poll::Ready(Some(Err(match e {
                    ReadError::Broken(e) => ProxyError::new(Kind::Reset, format!("response body: {e}")),
                    ReadError::Malformed(e) => ProxyError::new(Kind::BadResponse, e.reason()),
                    ReadError::TimedOut => ProxyError::new(Kind::ReadTimeout, "the response body paused for too long"),
                })))
            }
        }
    }

    /// Gives the connection back, or closes it, when nothing of the exchange is left. Only then others find room.
    pub fn complete(&mut self) {
        let Some(active) = self.active.take() else { return };
        let sent = self.sending.as_ref().is_none_or(Sending::is_done);
        if let Some(conn) = self.conn.take()
            && self.keep
            && sent
        {
            self.worker.pools.give_back(active.endpoint(), &self.dialer, conn);
        }
    }
}

/// From an HTTP/2 endpoint.
pub struct H2Body {
    pub incoming: Incoming,
    pub deadline: Deadline,
    pub read_timeout: Duration,
    pub active: Active,
    pub permit: StreamPermit,
}

impl H2Body {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.deadline.set(self.read_timeout);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(e))) => {
                Poll::Ready(Some(Err(ProxyError::new(Kind::Reset, format!("response body: {e}")))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                ready!(self.deadline.poll(cx));
                let late = ProxyError::new(Kind::ReadTimeout, "the response body paused for too long");
                Poll::Ready(Some(Err(late)))
            }
        }
    }
}

/// A connection to an endpoint that has switched protocols.
pub struct Upgraded {
    pub conn: Rc<RefCell<H1>>,
    pub active: Active,
    /// For the tunnel after the endpoint began to drain.
    pub drain_timeout: Option<Duration>,
    /// What is spoken now, as the endpoint named it.
    pub protocol: Option<HeaderValue>,
}

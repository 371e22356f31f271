//! The client's connection itself: its socket and buffers, read by a request's body, written by its response.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body::Frame;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::h1::decode::{Decoder, Step};
use crate::h1::desync::{Class, Reason};
use crate::h1::framing::Framing;
use crate::net::deadline::Deadline;
use crate::net::outbox::Outbox;
use crate::net::pace::Pace;
use crate::pool::h1::{tokio_read, with_room};
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::http::Downstream;
use crate::snapshot::Live;
use crate::tls::io::Io;

/// Room for one read of a body, and once a read has filled it.
const READ: usize = 16 * 1024;
const BULK_READ: usize = 64 * 1024;
/// Bytes that may wait behind the current request: those of a client that does not wait for answers.
const MAX_AHEAD: usize = 16 * 1024;

/// A connection without what requests need.
pub struct Client {
    pub down: Downstream,
    pub live: std::sync::Arc<Live>,
    pub io: Io,
}

/// One connection that is busy, shared by the driver and by the body of the current request.
pub struct Conn {
    pub down: Downstream,
    pub live: std::sync::Arc<Live>,
    pub wire: RefCell<Wire>,
}

/// Socket and buffers.
pub struct Wire {
    pub io: Io,
    pub read: BytesMut,
    /// To be written.
    pub out: Outbox,
    /// The current request's body.
    pub decoder: Decoder,
    pub deadline: Deadline,
    /// For the current request's body.
    pub pace: Pace,
    /// The client waits for 100 before it sends the body.
    pub owes_continue: bool,
    /// Where the next request would begin is not known any more.
    pub broken: bool,
    /// Bytes of the current request's body.
    pub body_bytes: u64,
    /// Why the current request is not compliant.
    pub desync: Option<Reason>,
    bulk: bool,
}

impl Client {
    /// What has arrived on a new connection in the clear.
    pub fn read_now(&self) -> Option<BytesMut> {
        let Io::Plain(stream) = &self.io else { return None };
        let read = with_room(|room| match stream.take_now(room) {
            Ok(n) if n > 0 => room.get(..n).map(BytesMut::from),
            // The end, or an error: found again when it is waited for.
            _ => None,
        })?;
        self.count_in(read.len());
        Some(read)
    }

    /// Waits for bytes without holding room for them; none at the end.
    pub fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<BytesMut>> {
        let read = ready!(with_room(|room| {
            let mut buf = ReadBuf::new(room);
            let polled = Pin::new(&mut self.io).poll_read(cx, &mut buf);
            polled.map_ok(|()| BytesMut::from(buf.filled()))
        }))?;
        self.count_in(read.len());
        Poll::Ready(Ok(read))
    }

    fn count_in(&self, n: usize) {
        let series = self.live.series.local(self.down.worker.id);
        series.bytes_in.add(n as u64);
    }
}

impl Conn {
    /// `read`: bytes of it that are there.
    pub fn new(client: Client, read: BytesMut) -> Self {
        let Client { down, live, io } = client;
        let wire = Wire {
            io,
            read,
            out: Outbox::default(),
            decoder: Decoder::new(Framing::None),
            deadline: Deadline::default(),
            pace: Pace::new(Duration::MAX, 0),
            owes_continue: false,
            broken: false,
            body_bytes: 0,
            desync: None,
            bulk: false,
        };
        Self {
            down,
            live,
            wire: RefCell::new(wire),
        }
    }

    /// Waits for bytes without holding room for them; `Ok(0)` at the end.
    pub fn poll_first(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let n = ready!(with_room(|room| {
            let wire = &mut *self.wire.borrow_mut();
            let mut buf = ReadBuf::new(room);
            let polled = Pin::new(&mut wire.io).poll_read(cx, &mut buf);
            let filled = buf.filled();
            wire.read.extend_from_slice(filled);
            wire.bulk = filled.len() == READ;
            polled.map_ok(|()| filled.len())
        }))?;
        self.count_in(n);
        Poll::Ready(Ok(n))
    }

    /// Reads more behind what is there.
    pub fn poll_more(&self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let wire = &mut *self.wire.borrow_mut();
        let n = ready!(wire.poll_fill(cx))?;
        self.count_in(n);
        Poll::Ready(Ok(n))
    }

    /// Whether the client has gone. Only asked when its request has been read whole; what it sends ahead is kept.
    pub fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let ahead = self.wire.borrow().read.len();
            if ahead >= MAX_AHEAD {
                return Poll::Pending;
            }
            let polled = if ahead == 0 {
                self.poll_first(cx)
            } else {
                self.poll_more(cx)
            };
            match ready!(polled) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Writes what waits. Ready when all is written; the number of bytes written since is told by `progress`.
    pub fn poll_write(&self, cx: &mut Context<'_>, progress: &mut usize) -> Poll<io::Result<()>> {
        let wire = &mut *self.wire.borrow_mut();
        while !wire.out.is_empty() {
            let n = ready!(wire.out.poll_write(cx, &mut wire.io))?;
            *progress += n;
            self.count_out(n);
        }
        Pin::new(&mut wire.io).poll_flush(cx)
    }

    /// Gives back what a connection at rest does not need; with it, bytes that were read.
    pub fn rest(self) -> (Box<Client>, BytesMut) {
        let Self { down, live, wire } = self;
        down.forwarding.take();
        let Wire { io, read, .. } = wire.into_inner();
        (Box::new(Client { down, live, io }), read)
    }

    /// Counts a request that has ended.
    pub fn count(&self, class: Class) {
        self.live.series.local(self.down.worker.id).desync[class as usize].add(1);
    }

    fn count_in(&self, n: usize) {
        self.live.series.local(self.down.worker.id).bytes_in.add(n as u64);
    }

    pub fn count_out(&self, n: usize) {
        self.live.series.local(self.down.worker.id).bytes_out.add(n as u64);
    }
}

impl Wire {
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.read.reserve(if self.bulk { BULK_READ } else { READ });
        let n = ready!(tokio_read(&mut self.io, cx, &mut self.read))?;
        self.bulk = n >= READ;
        Poll::Ready(Ok(n))
    }
}

/// A request's body as it arrives.
pub struct ClientBody(pub Rc<Conn>);

impl ClientBody {
    /// The next part.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let conn = &*self.0;
        if std::mem::take(&mut conn.wire.borrow_mut().owes_continue) {
            conn.wire
                .borrow_mut()
                .out
                .tail()
                .extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            // What cannot be written now goes out with the response.
            let _ = conn.poll_write(cx, &mut 0);
        }
        loop {
            {
                let wire = &mut *conn.wire.borrow_mut();
                match wire.decoder.decode(&mut wire.read) {
                    Ok(Step::Data(data)) => {
                        wire.body_bytes += data.len() as u64;
                        wire.pace.moved(data.len(), Instant::now);
                        wire.deadline.clear();
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    Ok(Step::End(trailers)) => {
                        wire.deadline.clear();
                        return Poll::Ready(trailers.map(|t| Ok(Frame::trailers(t))));
                    }
                    Ok(Step::More) => {}
                    Err(e) => {
                        wire.broken = true;
                        wire.desync = Reason::graver(wire.desync, Reason::of_body(e));
                        return Poll::Ready(Some(Err(ProxyError::new(Kind::BadRequest, e.reason()))));
                    }
                }
            }
            match conn.poll_more(cx) {
                Poll::Ready(Ok(n)) if n > 0 => {}
                Poll::Ready(ended) => {
                    conn.wire.borrow_mut().broken = true;
                    let why = ended.err().map_or("closed within the body".into(), |e| e.to_string());
                    return Poll::Ready(Some(Err(ProxyError::new(Kind::ClientGone, why))));
                }
                Poll::Pending => {
                    let wire = &mut *conn.wire.borrow_mut();
                    let until = wire.pace.wait(Instant::now);
                    wire.deadline.set_at(until);
                    ready!(wire.deadline.poll(cx));
                    wire.broken = true;
                    return Poll::Ready(Some(Err(ProxyError::new(
                        Kind::BodyTimeout,
                        "the body does not come in time",
                    ))));
                }
            }
        }
    }
}

/// The client's side of a tunnel: what was read ahead comes first.
pub struct Tunnel(pub Rc<Conn>);

impl AsyncRead for Tunnel {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.wire.borrow_mut();
        if !wire.read.is_empty() {
            let n = wire.read.len().min(buf.remaining());
            buf.put_slice(&wire.read.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut wire.io).poll_read(cx, buf))?;
        self.0.count_in(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Tunnel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(Pin::new(&mut self.0.wire.borrow_mut().io).poll_write(cx, buf))?;
        self.0.count_out(n);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.wire.borrow_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.wire.borrow_mut().io).poll_shutdown(cx)
    }
}

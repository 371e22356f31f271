//! One HTTP/1 connection to an endpoint: its socket, its buffers, its deadline.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use http::Method;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::Connected;
use crate::endpoint::links::Link;
use crate::h1::decode::{BodyError, Decoder, Step};
use crate::h1::head::{HeadSearch, Limits};
use crate::h1::response::{self, ResponseError, ResponseHead};
use crate::net::deadline::Deadline;
use crate::net::outbox::Outbox;
use crate::tls::io::Io;

/// What a response head may be at most.
const LIMITS: Limits = Limits {
    max_head: 64 * 1024,
    max_target: 0,
    max_headers: 256,
};
/// For the reset that answers what came too late: much more than a packet needs there and back.
const REFUSAL: Duration = Duration::from_secs(1);
/// Room for one read, and once a read has filled it.
const READ: usize = 16 * 1024;
const BULK_READ: usize = 64 * 1024;
const LITTLE_READ: usize = 4 * 1024;

/// A connection that speaks HTTP/1, between or within exchanges.
#[derive(Debug)]
pub struct H1 {
    pub io: Io,
    /// Counts it; dropped after it.
    _link: Link,
    pub read: BytesMut,
    /// To be written.
    pub out: Outbox,
    /// For whatever is waited for now: a head, the next part of a body.
    pub deadline: Deadline,
    /// How long it may rest after the current response, by what the endpoint has said.
    pub announced: Option<u32>,
    sent: Sent,
    /// Something of the current response has been read.
    begun: bool,
    search: HeadSearch,
    /// The last read filled its room.
    bulk: bool,
    /// A read of the current response did, or one of the response before.
    large: Large,
}

/// Whether responses take more than one read's room.
#[derive(Debug, Default)]
struct Large {
    now: bool,
    before: bool,
}

/// What of the current request has been written, and what came of it.
#[derive(Debug, Default)]
struct Sent {
    bytes: usize,
    calls: u32,
    /// The endpoint has ended its side in order.
    closed: bool,
}

/// Why there is no response head.
#[derive(Debug)]
pub enum HeadError {
    /// The connection broke or ended; `begun`: within the head.
    Broken {
        begun: bool,
        source: io::Error,
    },
    Malformed(ResponseError),
    TimedOut,
}

/// Why a response body stopped early.
#[derive(Debug)]
pub enum ReadError {
    Broken(io::Error),
    Malformed(BodyError),
    TimedOut,
}

impl H1 {
    pub fn new(Connected { io, link }: Connected) -> Self {
        Self {
            io,
            _link: link,
            read: BytesMut::new(),
            out: Outbox::default(),
            deadline: Deadline::default(),
            announced: None,
            sent: Sent::default(),
            begun: false,
            search: HeadSearch::default(),
            bulk: false,
            large: Large::default(),
        }
    }

    /// Writes what waits.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            self.sent.bytes += ready!(self.out.poll_write(cx, &mut self.io))?;
            self.sent.calls += 1;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// The next response head, 1xx ones included. The deadline is the caller's to set.
    pub fn poll_head(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<ResponseHead, HeadError>> {
        loop {
            if !self.read.is_empty() {
                self.begun = true;
                match response::parse(&mut self.read, &mut self.search, &LIMITS, method) {
                    Ok(Some(head)) => {
                        self.search = HeadSearch::default();
                        self.begun = false;
                        return Poll::Ready(Ok(head));
                    }
                    Ok(None) => {}
                    Err(e) => return Poll::Ready(Err(HeadError::Malformed(e))),
                }
            }
            let filled = match self.read.is_empty() && !self.large.before {
                true => self.poll_first(cx),
                false => self.poll_fill(cx, READ),
            };
            let begun = self.begun;
            let broken = |source| HeadError::Broken { begun, source };
            match filled {
                Poll::Ready(Ok(0)) => {
                    self.sent.closed = true;
                    return Poll::Ready(Err(broken(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "closed before a response",
                    ))));
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(broken(e))),
                Poll::Pending => {
                    ready!(self.deadline.poll(cx));
                    return Poll::Ready(Err(HeadError::TimedOut));
                }
            }
        }
    }

    /// The next step of a response body, which may pause for `pause`.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        decoder: &mut Decoder,
        pause: Duration,
    ) -> Poll<Result<Step, ReadError>> {
        loop {
            match decoder.decode(&mut self.read) {
                Ok(Step::More) => {}
                Ok(step) => {
                    self.deadline.clear();
                    return Poll::Ready(Ok(step));
                }
                Err(e) => return Poll::Ready(Err(ReadError::Malformed(e))),
            }
            // What a length says that will come is read at once, as far as there is room for it. A read that fills its
            // room would be followed by one that finds nothing.
            let room = match decoder.counted() {
                Some(left) => usize::try_from(left).unwrap_or(BULK_READ).saturating_add(1),
                None if self.bulk => BULK_READ,
                None => READ,
            };
            match self.poll_fill(cx, room.clamp(LITTLE_READ, BULK_READ)) {
                Poll::Ready(Ok(0)) => {
                    return Poll::Ready(match decoder.eof() {
                        Ok(()) => Ok(Step::End(None)),
                        Err(e) => Err(ReadError::Malformed(e)),
                    });
                }
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(ReadError::Broken(e))),
                Poll::Pending => {
                    self.deadline.set_if_clear(pause);
                    ready!(self.deadline.poll(cx));
                    return Poll::Ready(Err(ReadError::TimedOut));
                }
            }
        }
    }

    /// The exchange is over; how long the connection may rest, if the endpoint has said so.
    pub fn end(&mut self) -> Option<u32> {
        self.sent = Sent::default();
        self.large.before = std::mem::take(&mut self.large.now);
        self.announced.take()
    }

    /// Whether the endpoint has certainly read nothing of the current request, after [`HeadError::Broken`] that was not
    /// `begun`. It closed first, when the kernel says so: our bytes were refused by a reset that came behind the
    /// connection's end. That is told of the first byte that came too late; all of them did when they left as one packet.
    pub async fn is_unread(&self) -> bool {
        let stream = self.io.stream();
        match self.sent.calls {
            0 => true,
            1 if self.sent.closed && stream.fits_in_packet(self.sent.bytes) => stream.is_reset(REFUSAL).await,
            _ => false,
        }
    }

    /// Reads on until `bytes` wait to be taken.
    pub fn poll_gather(&mut self, cx: &mut Context<'_>, bytes: usize) -> Poll<io::Result<()>> {
        while self.read.len() < bytes {
            if ready!(self.poll_fill(cx, READ))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing is left over from an exchange, so another may follow.
    pub fn is_clean(&self) -> bool {
        self.read.is_empty() && self.out.is_empty()
    }

    /// Gives back what a connection at rest does not need.
    pub fn rest(&mut self) {
        self.read = BytesMut::new();
        self.out.release();
        self.bulk = false;
        self.large = Large::default();
        self.deadline.release();
    }

    /// Reads what begins a response without holding room for it while it is waited for. Not where much has to be expected: it
    /// is copied.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let filled = ready!(with_room(|room| {
            let mut buf = ReadBuf::new(room);
            let polled = Pin::new(&mut self.io).poll_read(cx, &mut buf);
            self.read.extend_from_slice(buf.filled());
            polled.map_ok(|()| buf.filled().len())
        }))?;
        self.note(filled);
        Poll::Ready(Ok(filled))
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, room: usize) -> Poll<io::Result<usize>> {
        self.read.reserve(room);
        let n = ready!(tokio_read(&mut self.io, cx, &mut self.read))?;
        self.note(n);
        Poll::Ready(Ok(n))
    }

    fn note(&mut self, read: usize) {
        self.bulk = read >= READ;
        self.large.now |= self.bulk;
    }
}

/// A connection that speaks something else now: what was read behind the response's head comes first.
pub struct H1Stream(pub Rc<RefCell<H1>>);

impl AsyncRead for H1Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let conn = &mut *self.0.borrow_mut();
        if conn.read.is_empty() {
            return Pin::new(&mut conn.io).poll_read(cx, buf);
        }
        let n = conn.read.len().min(buf.remaining());
        buf.put_slice(&conn.read.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for H1Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_shutdown(cx)
    }
}

/// Room for one read that is the same for all connections of a worker: what comes into it is moved on at once.
pub fn with_room<T>(read: impl FnOnce(&mut [u8]) -> T) -> T {
    thread_local! {
        static ROOM: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
    }
    let mut room = ROOM.take().unwrap_or_else(|| vec![0; READ].into_boxed_slice());
    let done = read(&mut room);
    ROOM.set(Some(room));
    done
}

/// Reads once into the spare capacity of `buf`.
pub fn tokio_read<R>(io: &mut R, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>>
where
    R: tokio::io::AsyncRead + Unpin,
{
    let mut fut = std::pin::pin!(tokio::io::AsyncReadExt::read_buf(io, buf));
    fut.as_mut().poll(cx)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};

    use std::sync::Arc;

    use super::*;
    use crate::endpoint::links::Links;
    use crate::net::stream::Stream;

    /// A connection and its other end.
    async fn pair() -> (H1, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
        let stream = stream.await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connected = Connected {
            io: Io::Plain(Stream::Tcp(stream)),
            link: Arc::<Links>::default().try_open().unwrap(),
        };
        (H1::new(connected), listener.accept().unwrap().0)
    }

    async fn send(conn: &mut H1, bytes: &[u8]) {
        conn.out.tail().extend_from_slice(bytes);
        std::future::poll_fn(|cx| conn.poll_flush(cx)).await.unwrap();
    }

    async fn breaks(conn: &mut H1) {
        let head = std::future::poll_fn(|cx| conn.poll_head(cx, &Method::POST)).await;
        assert!(matches!(head, Err(HeadError::Broken { begun: false, .. })));
    }

    /// One response of this many bytes, written in two parts: the last read is a short one.
    async fn answered(conn: &mut H1, end: &mut TcpStream, len: usize) {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
        let (first, last) = (vec![b'x'; len - 1], [b'x']);
        end.write_all(&[head.as_bytes(), &first].concat()).unwrap();
        let head = std::future::poll_fn(|cx| conn.poll_head(cx, &Method::GET))
            .await
            .unwrap();
        let mut decoder = Decoder::new(head.framing);
        let mut got = 0;
        while !decoder.is_end() {
            if got == first.len() {
                end.write_all(&last).unwrap();
            }
            let step = std::future::poll_fn(|cx| conn.poll_body(cx, &mut decoder, REFUSAL)).await;
            if let Ok(Step::Data(data)) = step {
                got += data.len();
            }
        }
        assert_eq!(got, len);
        conn.end();
    }

    #[tokio::test]
    async fn large_responses_are_expected_after_large_ones() {
        let (mut conn, mut end) = pair().await;
        for (len, large) in [(100, false), (READ * 2, true), (READ * 2, true), (100, false)] {
            answered(&mut conn, &mut end, len).await;
            assert_eq!(conn.large.before, large, "{len}");
        }
    }

    #[tokio::test]
    async fn what_comes_behind_the_end_is_unread() {
        let (mut conn, end) = pair().await;
        drop(end);
        send(&mut conn, b"POST / HTTP/1.1\r\n\r\n").await;
        breaks(&mut conn).await;
        assert!(conn.is_unread().await);

        // Nor what was never written.
        let (mut conn, end) = pair().await;
        drop(end);
        breaks(&mut conn).await;
        assert!(conn.is_unread().await);
    }

    #[tokio::test]
    async fn what_may_have_been_read_is_not() {
        // All of it, then the end.
        let (mut conn, mut end) = pair().await;
        send(&mut conn, b"POST").await;
        assert_eq!(end.read(&mut [0; 16]).unwrap(), 4);
        drop(end);
        breaks(&mut conn).await;
        assert!(!conn.is_unread().await);

        // It came before the end, which a reset alone tells.
        let (mut conn, end) = pair().await;
        send(&mut conn, b"POST").await;
        while end.peek(&mut [0; 16]).unwrap() < 4 {}
        drop(end);
        breaks(&mut conn).await;
        assert!(!conn.is_unread().await);

        // The first part, and the second came too late.
        let (mut conn, mut end) = pair().await;
        send(&mut conn, b"PO").await;
        assert_eq!(end.read(&mut [0; 16]).unwrap(), 2);
        end.shutdown(Shutdown::Both).unwrap();
        drop(end);
        send(&mut conn, b"ST").await;
        breaks(&mut conn).await;
        assert!(!conn.is_unread().await);
    }
}

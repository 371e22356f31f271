//! Bytes both ways between two connections: half-close, idle time-out, nothing held while nothing moves. Short exchanges
//! are copied through a buffer all relays of a worker share; what comes in bulk from socket to socket is spliced.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::Deadline;
use super::splice::{Pipe, Pipes, unsupported};
use super::stream::Stream;

/// Room for one read. One that fills it is the beginning of something larger, and the next are spliced.
const ROOM: usize = 64 * 1024;
/// For less than this, a pipe costs more system calls than it saves copying.
const BULK: usize = 16 * 1024;

/// So many such splices in a row end it: the end of one large response is mostly not the end of them.
const PATIENCE: u8 = 2;
/// After this many bytes at once it is the turn of others.
const TURN: usize = 1024 * 1024;

/// One of the two connections.
pub trait Side: AsyncRead + AsyncWrite + Unpin {
    /// Calls `f` with the socket below if bytes cross it as they are, and none that were read from it wait elsewhere.
    fn plain<R>(&self, f: impl FnOnce(&Stream) -> R) -> Option<R>;

    /// Hears of bytes read from and written to the socket past this.
    fn passed(&self, _read: usize, _written: usize) {}
}

/// What a worker's relays share.
#[derive(Default)]
pub struct Shared {
    pub pipes: Pipes,
    /// Empty while in use, and before the first use.
    room: Cell<Vec<u8>>,
}

impl Shared {
    fn take_room(&self) -> Vec<u8> {
        let mut room = self.room.take();
        room.resize(ROOM, 0);
        room
    }
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the endpoint.
    Up,
    Down,
}

/// How a relay ended.
#[derive(Debug)]
pub enum End {
    /// Both sides closed in order.
    Closed,
    /// No byte either way for `idle`, or for `half_close` after one side had closed.
    TimedOut,
    /// Reading from or writing to a side failed.
    Broken(Direction, io::Error),
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub idle: Duration,
    pub half_close: Duration,
}

/// What a client has sent already; nothing is waited for.
pub fn ahead(from: &Stream, shared: &Shared) -> io::Result<BytesMut> {
    let mut room = shared.take_room();
    let bytes = match from.take_now(&mut room) {
        Ok(n) => Ok(room.get(..n).unwrap_or_default().into()),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(BytesMut::new()),
        Err(e) => Err(e),
    };
    shared.room.set(room);
    bytes
}

/// Moves bytes, first those of `ahead` to `up`, until both directions have ended, one breaks, or nothing moves for too long. `moved` hears of
/// every write. Dropping the future drops nothing but what it had read and not written.
///
/// After [`End::Closed`] the caller drops both connections: that is what tells the last side of the end.
pub async fn relay<A, B>(
    down: &mut A,
    up: &mut B,
    ahead: BytesMut,
    shared: &Shared,
    limits: Limits,
    mut moved: impl FnMut(Direction, usize),
) -> End
where
    A: Side,
    B: Side,
{
    let (mut to_up, mut to_down) = (Half::default(), Half::default());
    to_up.rest = ahead;
    let mut deadline = Deadline::after(limits.idle);
    let mut half_closed = false;
    std::future::poll_fn(|cx| {
        let mut progress = false;
        let a = to_up.poll(cx, down, up, shared, to_down.done, &mut |n| {
            progress = true;
            moved(Direction::Up, n);
        });
        if let Poll::Ready(Err(e)) = a {
            return Poll::Ready(End::Broken(Direction::Up, e));
        }
        let b = to_down.poll(cx, up, down, shared, to_up.done, &mut |n| {
            progress = true;
            moved(Direction::Down, n);
        });
        let one_closed = a.is_ready() || b.is_ready();
        match (a, b) {
            (_, Poll::Ready(Err(e))) => return Poll::Ready(End::Broken(Direction::Down, e)),
            (Poll::Ready(_), Poll::Ready(_)) => return Poll::Ready(End::Closed),
            _ => {}
        }
        if progress || one_closed != half_closed {
            half_closed = one_closed;
            deadline.set(if half_closed { limits.half_close } else { limits.idle });
        }
        deadline.poll(cx).map(|()| End::TimedOut)
    })
    .await
}

/// One direction.
#[derive(Default)]
struct Half {
    /// Read and not yet written.
    rest: BytesMut,
    /// Holds bytes, or is about to. At rest there is none.
    pipe: Option<Pipe>,
    /// Not 0 while it is bulk: how many small splices more are borne.
    bulk: u8,
    /// The kernel cannot splice these.
    copies: bool,
    unflushed: bool,
    eof: bool,
    done: bool,
}

impl Half {
    /// `last`: the other direction has ended.
    fn poll<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        shared: &Shared,
        last: bool,
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        let mut taken = 0;
        while !self.done {
            ready!(self.poll_give(cx, to, moved))?;
            if taken >= TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if self.eof {
                // Closing a socket whose other direction has ended says the same, for one system call less.
                if !(last && to.plain(|_| ()).is_some()) {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx)).or_else(not_connected)?;
                }
                self.done = true;
                break;
            }
            match self.poll_take(cx, from, to, shared, moved) {
                Poll::Ready(n) => {
                    let n = n?;
                    taken += n;
                    self.eof = n == 0;
                }
                Poll::Pending => {
                    self.pipe = None;
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
        self.pipe = None;
        Poll::Ready(Ok(()))
    }

    /// Writes what was taken before.
    fn poll_give<W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>> {
        while let Some(pipe) = self.pipe.as_mut().filter(|pipe| pipe.held() > 0) {
            // What was plain stays plain.
            let Some(polled) = to.plain(|to| pipe.poll_empty(cx, to)) else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            let n = ready!(polled)?;
            to.passed(0, n);
            moved(n);
        }
        if self.rest.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.rest.is_empty() {
            let n = ready!(poll_write(cx, to, &self.rest))?;
            self.rest.advance(n);
            self.unflushed = true;
            moved(n);
        }
        self.rest = BytesMut::new();
        Poll::Ready(Ok(()))
    }

    /// Reads, and mostly has it written already. Ready with the number of bytes read, 0 at the end.
    fn poll_take<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        shared: &Shared,
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<usize>> {
        if self.bulk > 0
            && !self.copies
            && let Some(polled) = self.poll_splice(cx, from, to, shared)
        {
            return polled;
        }
        let mut room = shared.take_room();
        let polled = self.poll_copy(cx, from, to, &mut room, moved);
        shared.room.set(room);
        polled
    }

    fn poll_copy<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        room: &mut [u8],
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(room);
        ready!(Pin::new(from).poll_read(cx, &mut buf))?;
        let bytes = buf.filled();
        self.bulk = if bytes.len() == ROOM { PATIENCE } else { 0 };
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let n = match poll_write(cx, to, bytes)? {
            Poll::Ready(n) => n,
            Poll::Pending => 0,
        };
        if n > 0 {
            self.unflushed = true;
            moved(n);
        }
        if let Some(rest @ [_, ..]) = bytes.get(n..) {
            self.rest = rest.into();
        }
        Poll::Ready(Ok(bytes.len()))
    }

    /// Takes into a pipe; `None` where that cannot be done.
    fn poll_splice<R: Side, W: Side>(
        &mut self,
        cx: &mut Context<'_>,
        from: &R,
        to: &W,
        shared: &Shared,
    ) -> Option<Poll<io::Result<usize>>> {
        to.plain(|_| ())?;
        let mut pipe = match self.pipe.take() {
            Some(pipe) => pipe,
            None => shared.pipes.take()?,
        };
        let polled = from.plain(|from| pipe.poll_fill(cx, from, usize::MAX))?;
        match &polled {
            Poll::Ready(Ok(n)) => {
                self.bulk = if *n >= BULK {
                    PATIENCE
                } else {
                    self.bulk.saturating_sub(1)
                };
                self.pipe = Some(pipe);
                from.passed(*n, 0);
            }
            Poll::Ready(Err(e)) if unsupported(e) => {
                self.copies = true;
                return None;
            }
            Poll::Ready(Err(_)) | Poll::Pending => {}
        }
        Some(polled)
    }
}

fn poll_write<W: Side>(cx: &mut Context<'_>, to: &mut W, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => Poll::Ready(Ok(n)),
    }
}

/// The other side is gone already: nothing is left to shut down.
fn not_connected(e: io::Error) -> io::Result<()> {
    if e.kind() == io::ErrorKind::NotConnected {
        Ok(())
    } else {
        Err(e)
    }
}

#[cfg(test)]
mod tests;

//! Bytes both ways between two connections: half-close, idle time-out, bounded buffers that are only
//! held while there are bytes in them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::deadline::Deadline;

/// First buffer of a direction, and the larger one once a read has filled it.
const BUFFER: usize = 16 * 1024;
const BULK_BUFFER: usize = 64 * 1024;

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

/// Copies until both directions have ended, one breaks, or nothing moves for too long. `moved` hears of
/// every write. Dropping the future drops nothing but its buffers.
pub async fn relay<A, B>(down: &mut A, up: &mut B, limits: Limits, mut moved: impl FnMut(Direction, usize)) -> End
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_up, mut to_down) = (Half::default(), Half::default());
    let mut deadline = Deadline::after(limits.idle);
    let mut half_closed = false;
    std::future::poll_fn(|cx| {
        let mut progress = 0;
        let a = to_up.poll(cx, down, up, &mut |n| {
            progress += 1;
            moved(Direction::Up, n);
        });
        if let Poll::Ready(Err(e)) = a {
            return Poll::Ready(End::Broken(Direction::Up, e));
        }
        let b = to_down.poll(cx, up, down, &mut |n| {
            progress += 1;
            moved(Direction::Down, n);
        });
        let one_closed = a.is_ready() || b.is_ready();
        match (a, b) {
            (_, Poll::Ready(Err(e))) => return Poll::Ready(End::Broken(Direction::Down, e)),
            (Poll::Ready(_), Poll::Ready(_)) => return Poll::Ready(End::Closed),
            _ => {}
        }
        if progress > 0 || one_closed != half_closed {
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
    buf: Vec<u8>,
    written: usize,
    bulk: bool,
    unflushed: bool,
    eof: bool,
    done: bool,
}

impl Half {
    fn poll<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        moved: &mut impl FnMut(usize),
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            if self.done {
                return Poll::Ready(Ok(()));
            }
            while self.written < self.buf.len() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.buf[self.written..]))?;
                if n == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += n;
                self.unflushed = true;
                moved(n);
            }
            if self.eof {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).or_else(not_connected)?;
                self.done = true;
                continue;
            }
            let size = if self.bulk { BULK_BUFFER } else { BUFFER };
            self.written = 0;
            self.buf.clear();
            self.buf.reserve(size);
            let read = {
                let mut room = ReadBuf::uninit(self.buf.spare_capacity_mut());
                Pin::new(&mut *from)
                    .poll_read(cx, &mut room)
                    .map_ok(|()| room.filled().len())
            };
            match read {
                Poll::Ready(Ok(0)) => {
                    self.buf = Vec::new();
                    self.eof = true;
                }
                Poll::Ready(Ok(n)) => {
                    self.bulk = n >= BUFFER;
                    // SAFETY: `poll_read` initialised `n` bytes of the spare capacity, `filled()` says so.
                    unsafe { self.buf.set_len(n) };
                }
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => {
                    // At rest nothing is held.
                    self.buf = Vec::new();
                    if self.unflushed {
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.unflushed = false;
                    }
                    return Poll::Pending;
                }
            }
        }
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
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMITS: Limits = Limits {
        idle: Duration::from_secs(5),
        half_close: Duration::from_millis(50),
    };

    #[tokio::test]
    async fn carries_both_ways_and_keeps_a_half_close() {
        let (client, mut a) = duplex(1024);
        let (mut b, mut origin) = duplex(1024);
        let (mut read, mut write) = tokio::io::split(client);
        let relay = async {
            let mut bytes = (0, 0);
            let end = relay(&mut a, &mut b, LIMITS, |d, n| match d {
                Direction::Up => bytes.0 += n,
                Direction::Down => bytes.1 += n,
            })
            .await;
            (end, bytes)
        };
        let talk = async {
            write.write_all(b"ping").await.unwrap();
            write.shutdown().await.unwrap();
            let mut got = Vec::new();
            origin.read_to_end(&mut got).await.unwrap();
            assert_eq!(got, b"ping");
            origin.write_all(&[7; 100_000]).await.unwrap();
            origin.shutdown().await.unwrap();
        };
        let mut got = Vec::new();
        let ((end, bytes), (), n) = tokio::join!(relay, talk, read.read_to_end(&mut got));
        assert!(matches!(end, End::Closed), "{end:?}");
        assert_eq!((bytes, n.unwrap()), ((4, 100_000), 100_000));
    }

    #[tokio::test]
    async fn silence_after_a_half_close_ends_it() {
        let (mut client, mut a) = duplex(64);
        let (mut b, _origin) = duplex(64);
        client.shutdown().await.unwrap();
        let end = relay(&mut a, &mut b, LIMITS, |_, _| {}).await;
        assert!(matches!(end, End::TimedOut), "{end:?}");
    }
}

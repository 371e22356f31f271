//! Bytes from socket to socket without a copy: splice(2) through pipes, which are pooled per worker.
//!
//! A pipe is filled only when it is empty and emptied before it is filled again. So a call that would block has one
//! meaning, and the runtime can be told: the source has nothing, or the target takes nothing.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;

use super::stream::Stream;

/// What a pipe holds, where the system allows it (`/proc/sys/fs/pipe-user-pages-soft`).
const CAPACITY: usize = 256 * 1024;
/// What every pipe can hold.
const LEAST_CAPACITY: usize = 64 * 1024;
/// Pipes that wait for work; more are closed.
const MAX_IDLE: usize = 64;

/// Pipes at work at once: each takes two descriptors, and memory of the kernel while its target is slow.
const MAX_AT_WORK: usize = 1024;

/// One worker's pipes. Clones are the same pool.
#[derive(Debug, Clone, Default)]
pub struct Pipes(Rc<Pool>);

#[derive(Debug, Default)]
struct Pool {
    idle: RefCell<Vec<Ends>>,
    at_work: Cell<usize>,
}

#[derive(Debug)]
struct Ends {
    read: OwnedFd,
    write: OwnedFd,
    capacity: usize,
}

/// A pipe in use. Dropped, it goes back to its pool, or is closed where bytes are left in it.
#[derive(Debug)]
pub struct Pipe {
    /// Only `drop` takes them.
    ends: Option<Ends>,
    held: usize,
    home: Pipes,
}

impl Pipes {
    /// An empty pipe; `None` when there are too many, or the process has no descriptors left.
    pub fn take(&self) -> Option<Pipe> {
        let at_work = self.0.at_work.get();
        if at_work >= MAX_AT_WORK {
            return None;
        }
        let idle = self.0.idle.borrow_mut().pop();
        let ends = idle.or_else(|| Ends::open().ok())?;
        self.0.at_work.set(at_work + 1);
        Some(Pipe {
            ends: Some(ends),
            held: 0,
            home: self.clone(),
        })
    }

    /// Pipes that wait for work.
    pub fn idle(&self) -> usize {
        self.0.idle.borrow().len()
    }

    /// Pipes taken and not given back.
    pub fn at_work(&self) -> usize {
        self.0.at_work.get()
    }
}

impl Ends {
    fn open() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Refused: it stays as it is.
        let capacity = fcntl_setpipe_size(&write, CAPACITY).unwrap_or(LEAST_CAPACITY);
        Ok(Self { read, write, capacity })
    }
}

impl Pipe {
    /// Bytes in the pipe.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Takes at most `max` bytes from a socket, unless some are held already. Ready with what is held now; with 0 (and
    /// `max` not 0) the source has ended.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, from: &Stream, max: usize) -> Poll<io::Result<usize>> {
        let Some(ends) = self.ends.as_ref().filter(|_| self.held == 0 && max > 0) else {
            return Poll::Ready(Ok(self.held));
        };
        let max = max.min(ends.capacity);
        self.held = ready!(poll_io(cx, from, Interest::READABLE, || {
            splice(from.as_fd(), None, &ends.write, None, max, FLAGS)
        }))?;
        Poll::Ready(Ok(self.held))
    }

    /// Gives a socket what it takes of the bytes held. Ready with their number, 0 when none are held.
    pub fn poll_empty(&mut self, cx: &mut Context<'_>, to: &Stream) -> Poll<io::Result<usize>> {
        let Some(ends) = self.ends.as_ref().filter(|_| self.held > 0) else {
            return Poll::Ready(Ok(0));
        };
        // Not more than is held: the kernel would take it for a promise of more, and wait with the last segment.
        let n = ready!(poll_io(cx, to, Interest::WRITABLE, || {
            splice(&ends.read, None, to.as_fd(), None, self.held, FLAGS)
        }))?;
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.held = self.held.saturating_sub(n);
        Poll::Ready(Ok(n))
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let pool = &*self.home.0;
        pool.at_work.set(pool.at_work.get() - 1);
        let mut idle = pool.idle.borrow_mut();
        if self.held == 0 && idle.len() < MAX_IDLE {
            idle.extend(self.ends.take());
        }
    }
}

/// Refused for what it is, by the kernel or a sandbox, with nothing taken.
pub fn unsupported(e: &io::Error) -> bool {
    [Errno::INVAL, Errno::NOSYS, Errno::PERM, Errno::OPNOTSUPP]
        .iter()
        .any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Calls until it succeeds, fails or would block; only the last clears the readiness the runtime knows of, for a call
/// that moved less than it might have says nothing about the socket.
fn poll_io(
    cx: &mut Context<'_>,
    socket: &Stream,
    interest: Interest,
    mut call: impl FnMut() -> rustix::io::Result<usize>,
) -> Poll<io::Result<usize>> {
    loop {
        ready!(if interest.is_readable() {
            socket.poll_read_ready(cx)
        } else {
            socket.poll_write_ready(cx)
        })?;
        match socket.try_io(interest, || Ok(call()?)) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            other => return Poll::Ready(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixStream};

    use super::*;

    async fn tcp() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), Stream::Tcp(far.unwrap().0))
    }

    fn unix() -> (UnixStream, Stream) {
        let (near, far) = UnixStream::pair().unwrap();
        (near, Stream::Unix(far))
    }

    async fn fill(pipe: &mut Pipe, from: &Stream, max: usize) -> io::Result<usize> {
        poll_fn(|cx| pipe.poll_fill(cx, from, max)).await
    }

    async fn empty(pipe: &mut Pipe, to: &Stream) -> io::Result<usize> {
        poll_fn(|cx| pipe.poll_empty(cx, to)).await
    }

    #[tokio::test]
    async fn moves_exactly_what_it_is_told_and_leaves_the_rest() {
        let pipes = Pipes::default();
        let ((mut client, a), (mut origin, b)) = (tcp().await, unix());
        client.write_all(b"head, body, more").await.unwrap();
        let mut pipe = pipes.take().unwrap();
        assert_eq!(fill(&mut pipe, &a, 10).await.unwrap(), 10);
        // Held bytes are given before others are taken, and nothing is taken for nothing.
        assert_eq!(fill(&mut pipe, &a, 10).await.unwrap(), 10);
        assert_eq!(empty(&mut pipe, &b).await.unwrap(), 10);
        assert_eq!((empty(&mut pipe, &b).await.unwrap(), pipe.held()), (0, 0));
        assert_eq!(fill(&mut pipe, &a, 0).await.unwrap(), 0);
        let mut got = [0; 10];
        origin.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"head, body");
        client.shutdown().await.unwrap();
        assert_eq!(fill(&mut pipe, &a, 100).await.unwrap(), 6);
        assert_eq!(empty(&mut pipe, &b).await.unwrap(), 6);
        assert_eq!(fill(&mut pipe, &a, 100).await.unwrap(), 0, "the end");
    }

    #[tokio::test]
    async fn waits_for_the_source_and_for_the_target() {
        let pipes = Pipes::default();
        let ((mut client, a), (mut origin, b)) = (unix(), tcp().await);
        let mut pipe = pipes.take().unwrap();
        let (filled, ()) = tokio::join!(fill(&mut pipe, &a, 100), async {
            tokio::task::yield_now().await;
            client.write_all(b"late").await.unwrap();
        });
        assert_eq!(filled.unwrap(), 4);
        empty(&mut pipe, &b).await.unwrap();
        // Until nobody takes anything any more: then the target is waited for, and the bytes stay.
        let (mut sent, mut cx) = (4, Context::from_waker(std::task::Waker::noop()));
        let data = vec![7; 256 * 1024];
        let writing = tokio::spawn(async move { while client.write_all(&data).await.is_ok() {} });
        loop {
            fill(&mut pipe, &a, usize::MAX).await.unwrap();
            match pipe.poll_empty(&mut cx, &b) {
                Poll::Ready(n) => sent += n.unwrap(),
                Poll::Pending => break,
            }
        }
        assert!(pipe.held() > 0);
        let held = pipe.held();
        let (mut got, mut drained) = (vec![0; sent + held], 0);
        let reading = async {
            origin.read_exact(&mut got).await.unwrap();
        };
        let emptying = async {
            while pipe.held() > 0 {
                drained += empty(&mut pipe, &b).await.unwrap();
            }
        };
        tokio::join!(reading, emptying);
        assert_eq!(drained, held);
        assert!(got.starts_with(b"late") && got[4..].iter().all(|byte| *byte == 7));
        writing.abort();
    }

    #[tokio::test]
    async fn pipes_come_back_empty_or_not_at_all_and_few_wait() {
        let pipes = Pipes::default();
        let (mut client, a) = tcp().await;
        client.write_all(b"left behind").await.unwrap();
        let mut pipe = pipes.take().unwrap();
        fill(&mut pipe, &a, 4).await.unwrap();
        drop(pipe);
        assert_eq!(pipes.idle(), 0, "another flow would get these bytes");
        let taken: Vec<_> = (0..MAX_IDLE + 3).map(|_| pipes.take().unwrap()).collect();
        assert_eq!(pipes.at_work(), MAX_IDLE + 3);
        drop(taken);
        assert_eq!((pipes.idle(), pipes.at_work()), (MAX_IDLE, 0));
        drop(pipes.take());
        assert_eq!(pipes.idle(), MAX_IDLE);
        pipes.0.at_work.set(MAX_AT_WORK);
        assert!(pipes.take().is_none());
    }

    #[tokio::test]
    async fn a_reset_is_an_error_on_either_side() {
        let pipes = Pipes::default();
        let ((client, a), (mut source, b)) = (tcp().await, unix());
        source.write_all(b"x").await.unwrap();
        let mut pipe = pipes.take().unwrap();
        fill(&mut pipe, &b, 1).await.unwrap();
        socket2::SockRef::from(&client)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(client);
        let mut other = pipes.take().unwrap();
        assert_eq!(
            fill(&mut other, &a, 1).await.unwrap_err().kind(),
            io::ErrorKind::ConnectionReset
        );
        assert!(empty(&mut pipe, &a).await.is_err());
    }
}

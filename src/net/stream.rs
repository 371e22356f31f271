//! A connected stream, over TCP or a Unix socket.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What TLS adds to one small write: a record's head, its tag, and room to spare.
const TLS_OVERHEAD: usize = 64;

/// What listeners accept and endpoints are dialled with.
#[derive(Debug)]
pub enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// Whether a connection at rest has ended or has bytes nobody asked for, by asking the kernel.
    pub fn is_stale(&self) -> bool {
        let mut byte = [0u8];
        !matches!(
            recv(self.as_fd(), &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT),
            Err(rustix::io::Errno::AGAIN)
        )
    }

    /// Whether so many bytes leave as one packet, those of TLS around them included.
    pub fn fits_in_packet(&self, bytes: usize) -> bool {
        match self {
            Self::Tcp(s) => socket2::SockRef::from(s)
                .tcp_mss()
                .is_ok_and(|most| bytes + TLS_OVERHEAD <= most as usize),
            Self::Unix(_) => false,
        }
    }

    /// Waits for a reset of a connection whose other side has ended in order already.
    pub async fn is_reset(&self, within: Duration) -> bool {
        let Self::Tcp(s) = self else { return false };
        // What was read cannot have taken the error: the end of the stream is told first.
        let reset = || matches!(s.take_error(), Ok(Some(_)));
        reset() || (tokio::time::timeout(within, s.ready(Interest::ERROR)).await.is_ok() && reset())
    }

    /// The file descriptor.
    pub fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }

    /// Closing will reset the connection: what was sent must not pass for all there was.
    pub fn reset_on_close(&self) {
        if let Self::Tcp(s) = self {
            // Best effort: without it the connection is closed in order.
            let _ = socket2::SockRef::from(s).set_linger(Some(Duration::ZERO));
        }
    }

    /// Waits for bytes and looks at them without taking them. Unix sockets too.
    pub async fn peek(&self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.peek(buf).await,
            Self::Unix(s) => loop {
                s.readable().await?;
                let look = s.try_io(Interest::READABLE, || {
                    Ok(recv(s.as_fd(), &mut *buf, RecvFlags::PEEK | RecvFlags::DONTWAIT)?.0)
                });
                match look {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    other => return other,
                }
            },
        }
    }

    /// Reads what is there, by asking the kernel instead of the runtime.
    pub fn take_now(&self, buf: &mut [u8]) -> io::Result<usize> {
        Ok(recv(self.as_fd(), buf, RecvFlags::DONTWAIT)?.0)
    }

    /// Ready when, for all the runtime knows, there is something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_read_ready(cx),
            Self::Unix(s) => s.poll_read_ready(cx),
        }
    }

    /// Ready when, for all the runtime knows, there is room for something to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(s) => s.poll_write_ready(cx),
            Self::Unix(s) => s.poll_write_ready(cx),
        }
    }

    /// A system call on the socket: when it would block, the socket is not ready until the runtime hears otherwise.
    pub fn try_io<R>(&self, interest: Interest, call: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
        match self {
            Self::Tcp(s) => s.try_io(interest, call),
            Self::Unix(s) => s.try_io(interest, call),
        }
    }

    /// Waits until there is something to read, or the end.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.readable().await,
            Self::Unix(s) => s.readable().await,
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, bufs),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_shutdown(cx),
            Self::Unix(s) => Pin::new(s).poll_shutdown(cx),
        }
    }
}

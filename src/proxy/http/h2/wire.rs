//! The client's connection as hyper sees it: what was read before comes first, what is written is gathered.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::snapshot::Live;
use crate::telemetry::shard::WorkerId;
use crate::tls::io::Io;

/// Gathered bytes before more have to wait for the client.
const MAX_OUT: usize = 64 * 1024;
/// From this size on bytes are written where they lie.
const DIRECT: usize = 16 * 1024;

/// hyper flushes after every DATA frame. Frames of many streams become one write when the connection's owner calls
/// [`Wire::poll_drain`] after each poll of hyper instead.
pub struct Wire {
    pub io: Io,
    /// Read before hyper took over.
    pub read: BytesMut,
    pub out: BytesMut,
    /// TLS may hold bytes back that were written to it.
    pub unflushed: bool,
    pub live: Arc<Live>,
    pub worker: WorkerId,
}

impl Wire {
    /// Writes what was gathered. `Pending`: the client takes no more for now; the task is woken when it does.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.out.is_empty() {
            let n = ready!(Pin::new(&mut self.io).poll_write(cx, &self.out))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.count(n);
            self.out.advance(n);
        }
        if self.out.capacity() > 0 {
            // A connection at rest holds no buffer.
            self.out = BytesMut::new();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn count(&mut self, n: usize) {
        self.unflushed = true;
        self.live.series.local(self.worker).bytes_out.add(n as u64);
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len >= DIRECT || self.out.len() + len > MAX_OUT {
            ready!(self.poll_drain(cx))?;
        }
        if len >= DIRECT {
            let n = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, parts))?;
            self.count(n);
            return Poll::Ready(Ok(n));
        }
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        Poll::Ready(Ok(len))
    }
}

/// Shared by hyper and the connection's owner.
pub struct SharedWire(pub Rc<RefCell<Wire>>);

impl AsyncRead for SharedWire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        if !wire.read.is_empty() {
            let n = wire.read.len().min(buf.remaining());
            buf.put_slice(&wire.read.split_to(n));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut wire.io).poll_read(cx, buf))?;
        let n = buf.filled().len() - before;
        wire.live.series.local(wire.worker).bytes_in.add(n as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for SharedWire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The owner flushes, once for all streams.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = &mut *self.0.borrow_mut();
        ready!(wire.poll_drain(cx))?;
        Pin::new(&mut wire.io).poll_shutdown(cx)
    }
}

//! What waits to be written: small things are copied together, large ones lie where they are, and all leave in as few
//! calls as possible.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::AsyncWrite;

/// Up to this size copying costs less than a place of its own in a call.
const COPY: usize = 4 * 1024;
/// What is gathered before it should be written.
const GATHER: usize = 32 * 1024;
/// Places in one call.
const SLICES: usize = 16;

/// Bytes in the order in which they leave.
#[derive(Debug, Default)]
pub struct Outbox {
    parts: VecDeque<Bytes>,
    /// Behind all parts.
    last: BytesMut,
}

impl Outbox {
    /// Where small things are written behind what waits.
    pub fn tail(&mut self) -> &mut BytesMut {
        &mut self.last
    }

    /// Puts `data` behind what waits.
    pub fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.last.extend_from_slice(&data);
            return;
        }
        if !self.last.is_empty() {
            self.parts.push_back(self.last.split().freeze());
        }
        self.parts.push_back(data);
    }

    pub fn is_empty(&self) -> bool {
        self.last.is_empty() && self.parts.is_empty()
    }

    /// It should be written before more comes. A part that comes nevertheless is taken.
    pub fn is_full(&self) -> bool {
        let len = self.last.len() + self.parts.iter().map(Bytes::len).sum::<usize>();
        len >= GATHER || self.parts.len() + 3 > SLICES
    }

    /// Writes once; tells how much. Not to be asked when nothing waits.
    pub fn poll_write<W>(&mut self, cx: &mut Context<'_>, io: &mut W) -> Poll<io::Result<usize>>
    where
        W: AsyncWrite + Unpin,
    {
        let io = Pin::new(io);
        let n = if self.parts.is_empty() {
            ready!(io.poll_write(cx, &self.last))?
        } else {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let waiting = self.parts.iter().map(|part| &part[..]).chain([&self.last[..]]);
            let mut used = 0;
            for (slice, part) in slices.iter_mut().zip(waiting) {
                *slice = IoSlice::new(part);
                used += 1;
            }
            ready!(io.poll_write_vectored(cx, slices.get(..used).unwrap_or(&slices)))?
        };
        if n == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.advance(n);
        Poll::Ready(Ok(n))
    }

    /// Gives back the room it has, and what waits in it.
    pub fn release(&mut self) {
        *self = Self::default();
    }

    fn advance(&mut self, mut n: usize) {
        while let Some(first) = self.parts.front_mut() {
            if n < first.len() {
                return first.advance(n);
            }
            n -= first.len();
            self.parts.pop_front();
        }
        self.last.advance(n.min(self.last.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes `step` bytes a call.
    struct Trickle {
        taken: Vec<u8>,
        step: usize,
        calls: usize,
    }

    impl AsyncWrite for Trickle {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let all: Vec<u8> = bufs
                .iter()
                .flat_map(|buf| buf.iter().copied())
                .take(self.step)
                .collect();
            self.calls += 1;
            self.taken.extend_from_slice(&all);
            Poll::Ready(Ok(all.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn filled() -> (Outbox, Vec<u8>) {
        let mut outbox = Outbox::default();
        let mut all = Vec::new();
        for (at, len) in [10, COPY + 1, 3, COPY, 2 * COPY, 5000, 7].into_iter().enumerate() {
            let data = vec![at as u8; len];
            all.extend_from_slice(&data);
            match at % 2 {
                0 => outbox.push(data.into()),
                _ if len > COPY => outbox.push(data.into()),
                _ => outbox.tail().extend_from_slice(&data),
            }
        }
        (outbox, all)
    }

    #[test]
    fn order_holds_however_little_is_taken() {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for step in [1, 3, 4096, 5001, usize::MAX] {
            let (mut outbox, all) = filled();
            let mut io = Trickle {
                taken: Vec::new(),
                step,
                calls: 0,
            };
            while !outbox.is_empty() {
                assert!(matches!(outbox.poll_write(&mut cx, &mut io), Poll::Ready(Ok(n)) if n > 0));
            }
            assert_eq!(io.taken, all, "{step}");
            if step == usize::MAX {
                assert_eq!(io.calls, 1);
            }
        }
    }

    #[test]
    fn full_by_bytes_and_by_places() {
        let mut bytes = Outbox::default();
        bytes.push(vec![0; GATHER - 1].into());
        assert!(!bytes.is_full());
        bytes.tail().extend_from_slice(b"x");
        assert!(bytes.is_full());
        let mut places = Outbox::default();
        let one = Bytes::from(vec![0; COPY + 1]);
        let mut pushed = 0;
        while !places.is_full() {
            places.tail().extend_from_slice(b"x");
            places.push(one.slice(..));
            pushed += 1;
        }
        assert!(pushed * 2 < SLICES, "{pushed}");
    }
}

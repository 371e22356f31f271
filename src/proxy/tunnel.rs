//! After an Upgrade: how the two HTTP/1 connections are relayed.

use crate::net::relay::Side;
use crate::net::stream::Stream;
use crate::pool::h1::H1Stream;
use crate::proxy::http::h1::Tunnel;
use crate::tls::io::Io;

impl Side for Tunnel {
    fn plain<R>(&self, f: impl FnOnce(&Stream) -> R) -> Option<R> {
        let wire = self.0.wire.borrow();
        match &wire.io {
            Io::Plain(stream) if wire.read.is_empty() => Some(f(stream)),
            _ => None,
        }
    }

    fn passed(&self, read: usize, written: usize) {
        let series = self.0.live.series.local(self.0.down.worker.id);
        series.bytes_in.add(read as u64);
        series.bytes_out.add(written as u64);
    }
}

impl Side for H1Stream {
    fn plain<R>(&self, f: impl FnOnce(&Stream) -> R) -> Option<R> {
        let conn = self.0.borrow();
        match &conn.io {
            Io::Plain(stream) if conn.read.is_empty() => Some(f(stream)),
            _ => None,
        }
    }
}

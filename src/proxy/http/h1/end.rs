//! How an HTTP/1 connection to a client ends, or is made ready for the next request.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::wire::{ClientBody, Conn};
use crate::tls::io::Io;

/// A body the client still sends after its answer is read up to here, so that the connection can go on.
pub const DRAIN: u64 = 256 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Throws away what is left of the request's body. `false`: too much, or it does not come.
pub async fn drained(conn: &Rc<Conn>) -> bool {
    if conn.wire.borrow().broken || conn.wire.borrow().owes_continue {
        return false;
    }
    if conn.wire.borrow().decoder.is_end() {
        return true;
    }
    let mut body = ClientBody(conn.clone());
    let mut left = DRAIN;
    let rest = std::future::poll_fn(|cx| {
        loop {
            match std::task::ready!(body.poll_frame(cx)) {
                None => return Poll::Ready(true),
                Some(Err(_)) => return Poll::Ready(false),
                Some(Ok(frame)) => {
                    let n = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match left.checked_sub(n) {
                        Some(rest) => left = rest,
                        None => return Poll::Ready(false),
                    }
                }
            }
        }
    });
    tokio::time::timeout(DRAIN_TIMEOUT, rest).await.unwrap_or(false)
}

/// Ends TLS in order; TCP does so by itself when the socket is closed.
pub async fn say_goodbye(conn: &Conn) {
    if matches!(conn.wire.borrow().io, Io::Plain(_)) {
        return;
    }
    let shut = std::future::poll_fn(|cx| AsyncWrite::poll_shutdown(Pin::new(&mut conn.wire.borrow_mut().io), cx));
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, shut).await;
}

/// Closes so that the last answer arrives: a socket closed with unread bytes would reset the connection under it
/// (RFC 9112 section 9.6).
pub async fn linger(conn: &Conn) {
    let work = async {
        let shut = std::future::poll_fn(|cx| {
            let wire = &mut *conn.wire.borrow_mut();
            wire.read = BytesMut::new();
            AsyncWrite::poll_shutdown(Pin::new(&mut wire.io), cx)
        });
        if shut.await.is_err() {
            return;
        }
        let mut left = DRAIN as usize;
        std::future::poll_fn(|cx| {
            loop {
                let read = std::task::ready!(conn.poll_first(cx)).unwrap_or(0);
                conn.wire.borrow_mut().read.clear();
                left = left.saturating_sub(read);
                if read == 0 || left == 0 {
                    return Poll::Ready(());
                }
            }
        })
        .await;
    };
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, work).await;
}

/// A response that ends early must not look complete: the connection is reset.
pub fn abort(conn: &Conn) {
    conn.wire.borrow().io.stream().reset_on_close();
}

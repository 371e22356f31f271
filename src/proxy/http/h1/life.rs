//! The life of a connection: at rest, busy with requests that follow soon one on the other, at rest again.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::wire::{Client, Conn};
use super::{NoMore, next};
use crate::proxy::resting::Woken;

/// A connection that was busy keeps what its next request needs for so long: most requests follow soon.
const WARM: Duration = Duration::from_millis(100);
/// After a reload or a stop, how long a connection at rest may still bring a request that was on its way.
const LAST_CALL: Duration = Duration::from_millis(500);

/// What follows a burst of requests.
enum Next {
    /// Nothing came for so long.
    Rest(Box<Client>, Duration),
    Close,
    H2(Box<Client>, BytesMut),
}

/// What follows one request.
enum Lull {
    More,
    /// Nothing came for so long.
    Cold(Duration),
    Close,
}

/// Serves one connection until it closes; or gives it back, when the client speaks HTTP/2, and what was read of it.
pub async fn serve(mut client: Box<Client>) -> Option<(Box<Client>, BytesMut)> {
    let mut served = 0;
    let mut rested = None;
    // Most clients send a request with the packet that ends TCP's handshake: no event has to be waited for.
    let mut came = client.read_now();
    loop {
        let read = match came.take() {
            Some(read) => read,
            None => rest(&mut client, rested).await?,
        };
        // In a box, so that a connection at rest does not hold the room its requests need.
        match Box::pin(burst(client, read, &mut served)).await {
            Next::Rest(cold, already) => {
                client = cold;
                rested = Some(already);
            }
            Next::Close => return None,
            Next::H2(client, read) => return Some((client, read)),
        }
    }
}

/// Waits for the first bytes of a request, holding nothing. `rested`: for how long it has waited since the last one; the
/// first has none before it. `None`: none come.
async fn rest(client: &mut Client, rested: Option<Duration>) -> Option<BytesMut> {
    let (worker, slot) = (client.down.worker.clone(), client.down.slot);
    let timeout = {
        let held = worker.snapshot.get();
        let http = held.listener(slot).and_then(|l| l.http())?;
        match rested {
            None => http.header_timeout,
            Some(rested) => http.idle_timeout.saturating_sub(rested),
        }
    };
    let place = worker.resting.begin(timeout);
    // It was not told of what changed while it was busy.
    while worker.keeps(slot) {
        let woken = std::future::poll_fn(|cx| match client.poll_first(cx) {
            Poll::Ready(read) => Poll::Ready(Ok(read)),
            Poll::Pending => place.poll(cx).map(Err),
        });
        match woken.await {
            Ok(read) => return read.ok().filter(|read| !read.is_empty()),
            Err(Woken::Over) => return None,
            Err(Woken::Changed) => {}
        }
    }
    drop(place);
    let last_call = Box::pin(tokio::time::timeout(
        LAST_CALL,
        std::future::poll_fn(|cx| client.poll_first(cx)),
    ));
    last_call.await.ok()?.ok().filter(|read| !read.is_empty())
}

/// Requests as long as each follows soon on the one before. `read`: the first bytes of the first.
async fn burst(client: Box<Client>, read: BytesMut, served: &mut u64) -> Next {
    let conn = Rc::new(Conn::new(*client, read));
    loop {
        let (ended, idle_timeout) = match next(&conn, served).await {
            Ok(answered) => answered,
            Err(NoMore::Close) => return Next::Close,
            Err(NoMore::H2) => {
                let given_back = Rc::into_inner(conn).map(Conn::rest);
                return given_back.map_or(Next::Close, |(client, read)| Next::H2(client, read));
            }
        };
        if !conn.wire.borrow().read.is_empty() {
            continue;
        }
        match lull(&conn, ended, idle_timeout).await {
            Lull::More => {}
            Lull::Close => return Next::Close,
            Lull::Cold(rested) => {
                let cold = Rc::into_inner(conn).map(Conn::rest);
                return cold.map_or(Next::Close, |(client, _)| Next::Rest(client, rested));
            }
        }
    }
}

/// Waits as long as the next request would be one that follows soon.
async fn lull(conn: &Rc<Conn>, ended: Instant, idle_timeout: Duration) -> Lull {
    let mut rested = Duration::ZERO;
    loop {
        rested = (rested + WARM).min(idle_timeout);
        conn.wire.borrow_mut().deadline.set_at(ended + rested);
        let more = std::future::poll_fn(|cx| {
            if let Poll::Ready(read) = conn.poll_first(cx) {
                conn.wire.borrow_mut().deadline.clear();
                let gone = !matches!(read, Ok(n) if n > 0);
                return Poll::Ready(Some(if gone { Lull::Close } else { Lull::More }));
            }
            let cold = conn.wire.borrow_mut().deadline.poll(cx);
            cold.map(|()| None)
        });
        match more.await {
            Some(lull) => return lull,
            None if rested >= idle_timeout => return Lull::Close,
            None if Rc::strong_count(conn) == 1 => return Lull::Cold(rested),
            // The last request's body is still held by the connection to its endpoint.
            None => {}
        }
    }
}

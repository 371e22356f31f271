//! Accepting on one socket: spread over workers, paused when descriptors run out, never spinning.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{SocketFlags, acceptfrom_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

use super::{Accepted, Closing, Command, Fleet, conn};
use crate::net::nofile::exhausted;
use crate::net::socket::Bound;
use crate::proxy::worker::Worker;

/// Without descriptors or memory nothing can be accepted: time for connections to end.
const PAUSE: Duration = Duration::from_millis(100);

/// A listening socket whose accepts give plain descriptors, so that another worker may take them.
struct Socket(Bound);

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Bound::Tcp(listener) => listener.as_fd(),
            Bound::Unix(listener) => listener.as_fd(),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Socket {
    fn accept(&self) -> io::Result<(OwnedFd, Option<std::net::SocketAddr>)> {
        let (fd, addr) = acceptfrom_with(self, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?;
        Ok((fd, addr.and_then(|addr| addr.try_into().ok())))
    }
}

/// Accepts until `stop` says so or is dropped, then takes what waits and closes.
pub(super) async fn accept(
    worker: Rc<Worker>,
    fleet: Arc<Fleet>,
    socket: Bound,
    slot: Rc<Cell<usize>>,
    mut stop: oneshot::Receiver<Closing>,
) {
    // SAFETY: the descriptor is owned by the socket inside, stays open until that is dropped, and is always the same.
    let watched = unsafe { AsyncFd::register_with_interest(Socket(socket), Interest::READABLE) };
    let socket = match watched {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(%error, "cannot accept: the socket cannot be watched");
            return;
        }
    };
    let mut warned: Option<tokio::time::Instant> = None;
    let closing = loop {
        let accepted = tokio::select! {
            accepted = socket.async_io(Interest::READABLE, Socket::accept) => accepted,
            closing = &mut stop => break closing,
        };
        match accepted {
            Ok((fd, peer)) => place(
                &worker,
                &fleet,
                Accepted {
                    fd,
                    peer,
                    slot: slot.get(),
                },
            ),
            Err(e) if exhausted(&e) => {
                if let Some(listener) = worker.snapshot.get().listener(slot.get()) {
                    listener.live.series.local(worker.id).accept_errors.add(1);
                    if warned.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        warned = Some(tokio::time::Instant::now());
                        tracing::warn!(listener = %listener.name, error = %e, "accepting is paused: raise the limit on open files");
                    }
                }
                tokio::time::sleep(PAUSE).await;
            }
            // The client gave up while it waited (accept(2) tells other errors of the new connection too).
            Err(_) => {}
        }
    };
    // Not handed over: others may have ended already.
    while let Ok((fd, peer)) = socket.get_ref().accept() {
        let accepted = Accepted {
            fd,
            peer,
            slot: slot.get(),
        };
        conn::welcome(&worker, &fleet, accepted);
    }
    drop(socket);
    drop(closing);
}

fn place(worker: &Rc<Worker>, fleet: &Arc<Fleet>, accepted: Accepted) {
    let own = worker.id.0 - 1;
    let owner = fleet.choose(own);
    if owner == own {
        conn::welcome(worker, fleet, accepted);
    } else if let Some(other) = fleet.commands.get(owner) {
        // A worker that has ended closes what is left in its queue.
        let _ = other.send(Command::Adopt(accepted));
    }
}

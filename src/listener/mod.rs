//! Workers: the data-plane threads, the sockets they accept on, the connections they own.

mod accept;
mod conn;
mod thread;

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::mpsc::{Sender, UnboundedSender};

use crate::net::socket::Bound;
pub use thread::{Crew, start};

/// What control tells a worker. The queue is bounded by what control does: a few commands per reload.
#[derive(Debug)]
pub enum Command {
    /// Accept on a socket, for the listener in `slot`.
    Listen { id: SocketId, slot: usize, socket: Bound },
    /// The socket belongs to another listener now.
    Move { id: SocketId, slot: usize },
    /// Accept what waits, then close the socket, then drop what comes with it.
    Close(SocketId, Closing),
    /// Another worker's connection, handed over because this one has fewer.
    Adopt(Accepted),
    /// A new snapshot: connections at rest look whether their listener still exists.
    Changed,
    /// Stop accepting, let what runs finish, then end.
    Drain,
    /// End now.
    Stop,
}

/// A bound address, as long as it is bound.
pub type SocketId = u64;

/// Held until a socket is closed; the receiver ends when every worker has closed its own.
pub type Closing = Sender<Infallible>;

/// A connection no runtime knows yet.
#[derive(Debug)]
pub struct Accepted {
    fd: OwnedFd,
    peer: Option<std::net::SocketAddr>,
    slot: usize,
}

/// What workers know of each other.
#[derive(Debug)]
struct Fleet {
    /// Connections of each worker.
    loads: Box<[AtomicUsize]>,
    commands: Box<[UnboundedSender<Command>]>,
}

/// A worker keeps what the kernel gave it unless another has fewer by more than this.
const SLACK: usize = 2;

impl Fleet {
    /// Who should own a connection that worker `index` accepted.
    fn choose(&self, index: usize) -> usize {
        let own = self.loads.get(index).map_or(0, |load| load.load(Relaxed));
        let least = self
            .loads
            .iter()
            .map(|load| load.load(Relaxed))
            .enumerate()
            .min_by_key(|(_, load)| *load);
        match least {
            Some((other, load)) if load + SLACK < own => other,
            _ => index,
        }
    }
}

/// A connection counted as its worker's load, from accept to close.
#[derive(Debug)]
struct Load {
    fleet: Arc<Fleet>,
    index: usize,
}

impl Load {
    fn begin(fleet: &Arc<Fleet>, index: usize) -> Self {
        if let Some(load) = fleet.loads.get(index) {
            load.fetch_add(1, Relaxed);
        }
        Self {
            fleet: fleet.clone(),
            index,
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Some(load) = self.fleet.loads.get(self.index) {
            load.fetch_sub(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_loaded_takes_over_once_it_is_clearly_so() {
        let loads = |loads: [usize; 3]| Fleet {
            loads: loads.into_iter().map(AtomicUsize::new).collect(),
            commands: Box::default(),
        };
        assert_eq!(loads([2, 0, 0]).choose(0), 0);
        assert_eq!(loads([3, 1, 0]).choose(0), 2);
        assert_eq!(loads([3, 1, 0]).choose(1), 1);
    }
}

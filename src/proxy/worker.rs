//! What one data-plane thread has to itself.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use tokio::sync::Notify;

use super::http::upload::Upload;
use super::resting::Resting;
use crate::base::rng::Rng;
use crate::net::relay;
use crate::pool::Pools;
use crate::snapshot::current::Reader;
use crate::telemetry::access;
use crate::telemetry::shard::WorkerId;

/// One worker: its pools, its view of the world, its randomness.
pub struct Worker {
    pub id: WorkerId,
    pub pools: Rc<Pools<Upload>>,
    /// Endpoints, by id, that connections are being made to beforehand.
    pub warming: RefCell<HashSet<u32>>,
    pub relays: relay::Shared,
    pub snapshot: Reader,
    pub rng: RefCell<Rng>,
    pub access: access::Sender,
    /// The process is about to end: connections close when they are done with what runs.
    pub draining: Cell<bool>,
    /// Connections of HTTP/1 at rest.
    pub resting: Resting,
    /// Wakes those of HTTP/2, to see whether their listener still exists.
    pub changed: Notify,
    /// Connections now.
    pub connections: Cell<usize>,
    /// Told when a connection has ended.
    pub left: Notify,
}

/// Who is at the other end of an accepted connection.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub ip: IpAddr,
    /// `None`: a Unix socket's.
    pub port: Option<u16>,
}

/// Address and port, for logs.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => f.write_str("unix"),
        }
    }
}

impl Worker {
    pub fn new(id: WorkerId, snapshot: Reader, access: access::Sender) -> Self {
        Self {
            id,
            pools: Pools::new(id),
            warming: RefCell::default(),
            relays: relay::Shared::default(),
            snapshot,
            rng: RefCell::new(Rng::from_entropy()),
            access,
            draining: Cell::new(false),
            resting: Resting::default(),
            changed: Notify::new(),
            connections: Cell::new(0),
            left: Notify::new(),
        }
    }

    /// Has all connections look whether they are to go on.
    pub fn call(&self) {
        self.resting.call();
        self.changed.notify_waiters();
    }

    /// Whether connections of the listener in `slot` may go on after what they do now.
    pub fn keeps(&self, slot: usize) -> bool {
        !self.draining.get() && self.snapshot.get().keeps(slot)
    }
}

//! Connections to endpoints, kept by each worker for itself: idle HTTP/1 ones, shared HTTP/2 ones.

pub mod dial;
mod dialling;
mod giving;
pub mod h1;
pub mod h2;
pub mod idle;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use crate::base::clock::coarse_ms;
use crate::base::task::Handle;
use crate::endpoint::State;
use crate::endpoint::duty::Duty;
use crate::telemetry::shard::WorkerId;
pub use dial::{DialError, Dialer, Protocol};
use dialling::{Dialling, Made};
use h1::H1;
use h2::{H2Lease, Payload, Shared};
use idle::{Keep, Resting};

/// A connection taken out of the pool, or just made.
pub enum Lease<B> {
    H1(H1Lease),
    H2(H2Lease<B>),
}

/// One HTTP/1 connection, owned until given back; dropped, it is closed.
#[derive(Debug)]
pub struct H1Lease {
    pub conn: Rc<RefCell<H1>>,
    /// It has served a request before: the endpoint may have closed it in the meantime.
    pub reused: bool,
}

/// One worker's connections, indexed by their endpoint's place.
pub struct Pools<B> {
    worker: WorkerId,
    slots: RefCell<Vec<Slot<B>>>,
    /// Seconds since the worker began.
    tick: Cell<u32>,
}

struct Slot<B> {
    /// Of whom the connections are, while there are any.
    endpoint: Option<Arc<State>>,
    idle: Resting<Rc<RefCell<H1>>>,
    shared: Vec<Shared<B>>,
    /// The HTTP/2 connection being made: new requests wait for it.
    dialling: Option<Rc<Dialling>>,
    /// Closes connections here when others need them, where their number is limited.
    giving: Option<Handle>,
}

impl<B> Default for Slot<B> {
    fn default() -> Self {
        Self {
            endpoint: None,
            idle: Resting::default(),
            shared: Vec::new(),
            dialling: None,
            giving: None,
        }
    }
}

impl<B: Payload> Pools<B> {
    /// For worker `worker`.
    pub fn new(worker: WorkerId) -> Rc<Self> {
        Rc::new(Self {
            worker,
            slots: RefCell::default(),
            tick: Cell::new(0),
        })
    }

    /// A connection that is ready now. `careful` is for requests that cannot be sent twice: only what has rested
    /// shortly will do, and the kernel is asked whether it is still open; otherwise what the runtime has noticed is
    /// enough.
    pub fn take(&self, endpoint: &State, dialer: &Dialer, careful: bool) -> Option<Lease<B>> {
        let mut slots = self.slots.borrow_mut();
        let slot = slots.get_mut(endpoint.place.number())?;
        let is_open = |conn: &Rc<RefCell<H1>>| {
            let io = &mut conn.borrow_mut().io;
            !(io.is_spent() || (careful && io.stream().is_stale()))
        };
        let taken = slot
            .idle
            .take(dialer.epoch(), coarse_ms(), careful, &endpoint.idle, is_open);
        if let Some(conn) = taken {
            return Some(Lease::H1(H1Lease { conn, reused: true }));
        }
        slot.shared.retain(|s| s.epoch == dialer.epoch() && !s.send.is_closed());
        let shared = slot.shared.iter_mut().find(|s| s.has_room())?;
        shared.used = self.tick.get();
        Some(Lease::H2(shared.lease()))
    }

    /// Makes a connection. Requests for an HTTP/2 endpoint wait for one being made rather than make many, and share its
    /// failure. Takes three times `connect_timeout` at most: until there may be one more, to connect, to begin HTTP/2.
    /// Only where many more wait than one connection has streams, those who found none left wait for another.
    pub async fn connect(self: &Rc<Self>, endpoint: &Arc<State>, dialer: &Arc<Dialer>) -> Result<Lease<B>, DialError> {
        while dialer.expects_h2(endpoint) {
            self.dialling(endpoint, dialer).over().await?;
            if let Some(lease) = self.take(endpoint, dialer, false) {
                return Ok(lease);
            }
            // Closed as soon as it was made: there is nothing to wait for.
            if self.with_slot(endpoint, |slot| slot.dialling.is_none() && slot.shared.is_empty()) {
                break;
            }
        }
        match self.make(endpoint, dialer).await? {
            Made::H1(conn) => Ok(Lease::H1(H1Lease { conn, reused: false })),
            Made::H2(lease) => Ok(Lease::H2(lease)),
        }
    }

    /// Keeps a connection whose exchange has ended cleanly, unless somebody waits for it to be closed.
    pub fn give_back(self: &Rc<Self>, endpoint: &Arc<State>, dialer: &Dialer, conn: Rc<RefCell<H1>>) {
        let announced = {
            let mut c = conn.borrow_mut();
            c.deadline.clear();
            if !c.is_clean() {
                return;
            }
            c.end()
        };
        let configured = u32::try_from(dialer.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let keep = Keep::new(configured, announced);
        if dialer.max_idle == 0 || keep.at_most == 0 || endpoint.orders.duty() != Duty::Active {
            return;
        }
        if endpoint.links.waiting() > 0 {
            return;
        }
        self.with_slot(endpoint, |slot| {
            slot.idle.put(conn, dialer.epoch(), coarse_ms(), keep, dialer.max_idle);
            self.hold(slot, endpoint);
        });
    }

    /// Connections that wait for requests. A shared one is enough for many.
    pub fn waiting(&self, endpoint: &State) -> usize {
        let slots = self.slots.borrow();
        let slot = slots.get(endpoint.place.number());
        slot.map_or(0, |slot| match slot.shared.is_empty() {
            true => slot.idle.len(),
            false => usize::MAX,
        })
    }

    /// Once a second: closes what rested too long, was closed by the endpoint, or belongs to one that takes no work any
    /// more, and takes the buffers of the rest.
    pub fn sweep(self: &Rc<Self>) {
        let tick = self.tick.get().wrapping_add(1);
        self.tick.set(tick);
        let now = coarse_ms();
        for slot in self.slots.borrow_mut().iter_mut() {
            let Some(endpoint) = slot.endpoint.clone() else {
                continue;
            };
            if endpoint.orders.duty() == Duty::Active {
                slot.idle.sweep(now, &endpoint.idle, |conn, rested| {
                    let mut conn = conn.borrow_mut();
                    if rested >= 1_000 {
                        conn.rest();
                    }
                    !conn.io.is_spent()
                });
                while endpoint.links.are_too_many() && slot.idle.close_oldest() {}
                slot.shared.retain(|s| {
                    let idle = s.usage.active.get() == 0 && tick.wrapping_sub(s.used) > 60;
                    !idle && !s.send.is_closed()
                });
                // The limit may be new.
                self.hold(slot, &endpoint);
            } else {
                slot.idle = Resting::default();
                // Each ends with its last stream.
                slot.shared.clear();
            }
            endpoint.series.local(self.worker).idle.set(slot.idle.len() as u64);
            if slot.idle.len() == 0 && slot.shared.is_empty() {
                slot.endpoint = None;
                slot.giving = None;
            }
        }
    }

    /// The slot has connections of `endpoint`.
    fn hold(self: &Rc<Self>, slot: &mut Slot<B>, endpoint: &Arc<State>) {
        if slot.endpoint.is_none() {
            slot.endpoint = Some(endpoint.clone());
        }
        if slot.giving.is_none() && endpoint.links.limit().is_some() {
            slot.giving = Some(giving::start(self.clone(), endpoint.clone()));
        }
    }

    fn with_slot<T>(&self, endpoint: &State, f: impl FnOnce(&mut Slot<B>) -> T) -> T {
        let mut slots = self.slots.borrow_mut();
        let index = endpoint.place.number();
        if slots.len() <= index {
            slots.resize_with(index + 1, Slot::default);
        }
        f(&mut slots[index])
    }
}

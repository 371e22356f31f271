//! Connections being made: to an HTTP/2 endpoint one at a time, by a task that all who want it wait for.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Notify;

use super::Pools;
use super::dial::{DialError, Dialer};
use super::h1::H1;
use super::h2::{H2Lease, Payload, handshake};
use crate::endpoint::State;

/// A connection just made, not yet in the pool.
pub(super) enum Made<B> {
    H1(Rc<RefCell<H1>>),
    /// Of one that is in the pool already.
    H2(H2Lease<B>),
}

/// A connection being made.
#[derive(Default)]
pub(super) struct Dialling {
    over: Notify,
    failed: OnceCell<DialError>,
}

impl Dialling {
    /// Returns when there may be a connection to take, or none will come.
    pub async fn over(&self) -> Result<(), DialError> {
        self.over.notified().await;
        self.failed.get().map_or(Ok(()), |e| Err(e.clone()))
    }

    /// There may be a connection to take.
    pub fn look(&self) {
        self.over.notify_waiters();
    }
}

impl<B: Payload> Pools<B> {
    /// The connection being made to `endpoint`; if there is none, one is begun. The clients that wanted it may leave: others
    /// will come.
    pub(super) fn dialling(self: &Rc<Self>, endpoint: &Arc<State>, dialer: &Arc<Dialer>) -> Rc<Dialling> {
        self.with_slot(endpoint, |slot| {
            let dialling = slot.dialling.get_or_insert_with(|| {
                let dialling = Rc::new(Dialling::default());
                let over = Over {
                    pools: self.clone(),
                    endpoint: endpoint.clone(),
                    dialling: dialling.clone(),
                };
                tokio::task::spawn_local(over.dial(dialer.clone()));
                dialling
            });
            dialling.clone()
        })
    }

    /// Makes a connection by whatever it turns out to speak.
    pub(super) async fn make(
        self: &Rc<Self>,
        endpoint: &Arc<State>,
        dialer: &Arc<Dialer>,
    ) -> Result<Made<B>, DialError> {
        let connected = dialer.connect(endpoint).await?;
        let h2 = dialer.is_h2(&connected.io);
        endpoint.links.set_h2(h2);
        if !h2 {
            return Ok(Made::H1(Rc::new(RefCell::new(H1::new(connected)))));
        }
        let handshake = handshake(connected, dialer.epoch(), dialer.connect_timeout);
        let mut shared = tokio::time::timeout(dialer.connect_timeout, handshake)
            .await
            .map_err(|_| DialError::Timeout(dialer.connect_timeout))?
            .map_err(|e| DialError::Failed(Arc::new(std::io::Error::other(e))))?;
        shared.used = self.tick.get();
        let lease = shared.lease();
        self.with_slot(endpoint, |slot| {
            slot.shared.push(shared);
            self.hold(slot, endpoint);
        });
        Ok(Made::H2(lease))
    }
}

/// Lets the waiting go on, however making the connection has ended.
struct Over<B: Payload> {
    pools: Rc<Pools<B>>,
    endpoint: Arc<State>,
    dialling: Rc<Dialling>,
}

impl<B: Payload> Over<B> {
    async fn dial(self, dialer: Arc<Dialer>) {
        match self.pools.make(&self.endpoint, &dialer).await {
            // It has changed its mind: whoever comes first takes it.
            Ok(Made::H1(conn)) => self.pools.give_back(&self.endpoint, &dialer, conn),
            Ok(Made::H2(lease)) => lease.unused(),
            Err(e) => {
                let _ = self.dialling.failed.set(e);
            }
        }
    }
}

impl<B: Payload> Drop for Over<B> {
    fn drop(&mut self) {
        self.pools.with_slot(&self.endpoint, |slot| slot.dialling = None);
        self.dialling.look();
    }
}

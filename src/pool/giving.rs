//! Connections given up for others: where an endpoint may have only so many, a worker that needs one asks those that have some.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::Pools;
use super::h2::{Payload, Usage};
use crate::base::task::{self, Handle};
use crate::endpoint::State;

/// So long a shared connection takes no new requests for those under way to end. If they do not, it is used on: closing
/// would help nobody soon, and its worker would be without one, too.
const TURN: Duration = Duration::from_millis(100);
/// So long it is then left in peace.
const REST: Duration = Duration::from_secs(1);

/// Closes one of the pool's connections to `endpoint` whenever it is asked to.
pub(super) fn start<B: Payload>(pools: Rc<Pools<B>>, endpoint: Arc<State>) -> Handle {
    task::spawn_local(async move {
        loop {
            endpoint.links.asked().await;
            if endpoint.links.waiting() == 0 {
                continue;
            }
            if let Some(busy) = pools.close_one(&endpoint) {
                // A time-out or not: what counts is whether any stream is left.
                let _ = timeout(TURN, busy.emptied()).await;
                if !pools.close_if_empty(&endpoint, &busy) {
                    sleep(REST).await;
                }
            }
        }
    })
}

impl<B: Payload> Pools<B> {
    /// Closes the connection that has rested longest, else a shared one that has nothing to do. Where all have, one of them
    /// takes no more requests.
    fn close_one(&self, endpoint: &State) -> Option<Rc<Usage>> {
        self.with_slot(endpoint, |slot| {
            if slot.idle.close_oldest() {
                return None;
            }
            slot.shared.retain(|s| !s.send.is_closed());
            let busy = |n: &usize| slot.shared[*n].usage.active.get();
            let least = (0..slot.shared.len()).min_by_key(busy)?;
            if busy(&least) == 0 {
                slot.shared.swap_remove(least);
                return None;
            }
            let usage = slot.shared[least].usage.clone();
            usage.leaving.set(true);
            Some(usage)
        })
    }

    /// `false`: it is used on.
    fn close_if_empty(&self, endpoint: &State, usage: &Rc<Usage>) -> bool {
        self.with_slot(endpoint, |slot| {
            if usage.active.get() == 0 {
                slot.shared.retain(|s| !Rc::ptr_eq(&s.usage, usage));
                return true;
            }
            usage.leaving.set(false);
            if let Some(dialling) = &slot.dialling {
                dialling.look();
            }
            false
        })
    }
}

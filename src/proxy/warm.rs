//! Connections made before they are needed, where an upstream asks for some.

use std::rc::Rc;
use std::sync::Arc;

use super::worker::Worker;
use crate::endpoint::{Health, State};
use crate::pool::{Dialer, Lease};

/// Makes what is missing, each endpoint's one after the other. What fails is tried again the next time.
pub fn up(worker: &Rc<Worker>) {
    if worker.draining.get() {
        return;
    }
    for upstream in &worker.snapshot.get().upstreams {
        let wanted = upstream.settings.pool_min_idle;
        if wanted == 0 {
            continue;
        }
        for member in upstream.members().iter() {
            let endpoint = &member.endpoint;
            if !member.takes_work() || endpoint.health() == Health::Down {
                continue;
            }
            if !endpoint.links.have_room() {
                continue;
            }
            let missing = wanted.saturating_sub(worker.pools.waiting(endpoint));
            if missing > 0 && worker.warming.borrow_mut().insert(endpoint.id) {
                let making = make(worker.clone(), endpoint.clone(), upstream.dialer.clone(), missing);
                tokio::task::spawn_local(making);
            }
        }
    }
}

/// Bounded by the dialer's time-out for each of `missing`.
async fn make(worker: Rc<Worker>, endpoint: Arc<State>, dialer: Arc<Dialer>, missing: usize) {
    for _ in 0..missing {
        match worker.pools.connect(&endpoint, &dialer).await {
            Ok(Lease::H1(lease)) => worker.pools.give_back(&endpoint, &dialer, lease.conn),
            // The pool has it already, and one is enough.
            Ok(Lease::H2(_)) => break,
            Err(error) => {
                tracing::debug!(endpoint = %endpoint.label, %error, "a connection cannot be made beforehand");
                break;
            }
        }
    }
    worker.warming.borrow_mut().remove(&endpoint.id);
}

//! An endpoint for a request; where there is none at once, it waits for room, or is told to come back.

use std::time::Duration;

use tokio::time::Instant;

use super::Scope;
use crate::balance::PickContext;
use crate::base::rng::Rng;
use crate::endpoint::Active;
use crate::policy::queue::Importance;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::record::Record;
use crate::sticky::Bound;
use crate::telemetry::shard::WorkerId;
use crate::upstream::{Refused, Shed, Upstream};

/// What those who are sent away are asked to wait: long enough for a burst to be over.
pub const COME_BACK: Duration = Duration::from_secs(1);

/// What draws a request to an endpoint.
#[derive(Clone, Copy)]
pub struct Affinity {
    /// The hash of what is balanced by.
    pub key: Option<u64>,
    /// The endpoint its client is bound to.
    pub bound: Option<Bound>,
}

/// An endpoint other than those in `avoid`, counted as active.
pub fn pick(
    scope: &Scope<'_>,
    upstream: &Upstream,
    to: Affinity,
    avoid: &[u32],
    now: Instant,
) -> Result<Active, Refused> {
    let worker = &scope.down.worker;
    let rng = &mut worker.rng.borrow_mut();
    upstream.admit(&mut context(to.key, rng, avoid, now, worker.id), to.bound)
}

/// What a pick may look at.
fn context<'a>(
    key: Option<u64>,
    rng: &'a mut Rng,
    tried: &'a [u32],
    now: Instant,
    worker: WorkerId,
) -> PickContext<'a> {
    let now = now.into_std();
    PickContext {
        key,
        rng,
        tried,
        now,
        worker,
    }
}

/// An endpoint after all, or why there is none.
pub async fn wait(
    scope: &Scope<'_>,
    upstream: &Upstream,
    to: Affinity,
    importance: Importance,
    refused: Refused,
    record: &mut Record,
) -> Result<Active, ProxyError> {
    let worker = &scope.down.worker;
    if refused == Refused::Nobody {
        upstream.series.local(worker.id).unavailable.add(1);
        return Err(ProxyError::new(Kind::Unavailable, Shed::Nobody.reason()));
    }
    let begun = Instant::now();
    let look = || {
        let rng = &mut worker.rng.borrow_mut();
        upstream.admit_first(&mut context(to.key, rng, &[], Instant::now(), worker.id), to.bound)
    };
    let waited = upstream.wait(importance, worker.id, look).await;
    record.note(|line| line.queued = Some(begun.elapsed()));
    waited.map_err(|shed| {
        let kind = match shed {
            Shed::Nobody => Kind::Unavailable,
            Shed::QueueFull | Shed::Displaced => Kind::Overloaded,
            Shed::TimedOut(_) => Kind::QueueTimeout,
        };
        ProxyError::new(kind, shed.reason())
    })
}

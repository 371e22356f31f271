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
use crate::telemetry::shard::WorkerId;
use crate::upstream::{Refused, Shed, Upstream};

/// What those who are sent away are asked to wait: long enough for a burst to be over.
pub const COME_BACK: Duration = Duration::from_secs(1);

/// An endpoint other than those in `avoid`, counted as active.
pub fn pick(
    scope: &Scope<'_>,
    upstream: &Upstream,
    key: Option<u64>,
    avoid: &[u32],
    now: Instant,
) -> Result<Active, Refused> {
    let worker = &scope.down.worker;
    upstream.admit(&mut context(key, &mut worker.rng.borrow_mut(), avoid, now, worker.id))
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
    key: Option<u64>,
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
        upstream.admit_first(&mut context(
            key,
            &mut worker.rng.borrow_mut(),
            &[],
            Instant::now(),
            worker.id,
        ))
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

//! Picking within limits: an endpoint with room, else a place in the upstream's line, else nothing.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::Upstream;
use crate::balance::PickContext;
use crate::endpoint::Active;
use crate::policy::queue::{self, Entered, Gate, Importance, Standing};
use crate::sticky::Bound;
use crate::telemetry::reasons::ShedBy;
use crate::telemetry::shard::WorkerId;

/// Picks that may meet an endpoint without room before all are looked at.
const PICKS: usize = 6;

/// What an upstream and its endpoints may have under way.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Of the whole upstream.
    pub max_active: u32,
    pub queue: queue::Spec,
    /// Survives reloads with the upstream.
    pub gate: Arc<Gate>,
    /// Endpoints find out their own limits, and are to be told how attempts end.
    pub adaptive: bool,
}

/// Why there is no endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nobody is available, or everybody was tried.
    Nobody,
    /// Those who are have as much to do as they may, or others wait for them.
    Full,
}

/// Why there still is none after a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// Nobody is available any more.
    Nobody,
    /// As many wait as may.
    QueueFull,
    /// Somebody more important came.
    Displaced,
    /// Nothing became free in time.
    TimedOut(Duration),
}

impl Shed {
    /// For the log.
    pub fn reason(self) -> Cow<'static, str> {
        match self {
            Self::Nobody => "no endpoint of the upstream is available".into(),
            Self::QueueFull => "no endpoint has room, and as many wait as may".into(),
            Self::Displaced => "a more important request took its place in the queue".into(),
            Self::TimedOut(after) => format!("no endpoint had room within {after:?}").into(),
        }
    }
}

impl Upstream {
    /// An endpoint for one attempt, with room for it. Those who came before and wait go first.
    pub fn admit(&self, cx: &mut PickContext<'_>, bound: Option<Bound>) -> Result<Active, Refused> {
        match &self.settings.limits {
            None => self.pick(cx, bound).ok_or(Refused::Nobody),
            Some(limits) if limits.gate.waiting() > 0 => Err(Refused::Full),
            Some(limits) => self.look(limits, cx, bound).map_err(|(refused, entered)| {
                // Counted for a moment, it may have kept the first in the line from what room there was.
                drop(entered);
                refused
            }),
        }
    }

    /// As [`Self::admit`], for the first in the line.
    pub fn admit_first(&self, cx: &mut PickContext<'_>, bound: Option<Bound>) -> Result<Active, Refused> {
        match &self.settings.limits {
            None => self.pick(cx, bound).ok_or(Refused::Nobody),
            Some(limits) => self.look(limits, cx, bound).map_err(|(refused, entered)| {
                if let Some(entered) = entered {
                    entered.withdraw();
                }
                refused
            }),
        }
    }

    /// Waits in the line until `look`, which is [`Self::admit_first`], finds room. Dropped, it leaves the line.
    pub async fn wait(
        &self,
        importance: Importance,
        worker: WorkerId,
        mut look: impl FnMut() -> Result<Active, Refused>,
    ) -> Result<Active, Shed> {
        let series = self.series.local(worker);
        let waited = self.stand(importance, &mut look).await;
        match &waited {
            Ok(_) => {}
            Err(Shed::Nobody) => series.unavailable.add(1),
            Err(Shed::QueueFull) => series.shed(ShedBy::QueueFull).add(1),
            Err(Shed::Displaced) => series.shed(ShedBy::Displaced).add(1),
            Err(Shed::TimedOut(_)) => series.shed(ShedBy::Timeout).add(1),
        }
        waited
    }

    async fn stand(
        &self,
        importance: Importance,
        look: &mut impl FnMut() -> Result<Active, Refused>,
    ) -> Result<Active, Shed> {
        let Some(limits) = &self.settings.limits else {
            return Err(Shed::Nobody);
        };
        let queue::Spec { size, timeout } = limits.queue;
        let place = limits.gate.join(importance, size).ok_or(Shed::QueueFull)?;
        let mut late = std::pin::pin!(tokio::time::sleep_until(Instant::now() + timeout));
        std::future::poll_fn(|cx| {
            match place.poll(cx) {
                Standing::SentAway => return Poll::Ready(Err(Shed::Displaced)),
                Standing::First => match look() {
                    Ok(active) => return Poll::Ready(Ok(active)),
                    Err(Refused::Nobody) => return Poll::Ready(Err(Shed::Nobody)),
                    Err(Refused::Full) => {}
                },
                Standing::Behind => {}
            }
            late.as_mut().poll(cx).map(|()| Err(Shed::TimedOut(timeout)))
        })
        .await
    }

    /// An endpoint with room; else why not, and what was counted in the meantime.
    fn look(
        &self,
        limits: &Limits,
        cx: &mut PickContext<'_>,
        bound: Option<Bound>,
    ) -> Result<Active, (Refused, Option<Entered>)> {
        let Some(entered) = limits.gate.enter(limits.max_active) else {
            return Err((Refused::Full, None));
        };
        let mut tried = cx.tried.to_vec();
        for n in 0..PICKS {
            let cx = &mut PickContext {
                key: cx.key,
                rng: cx.rng,
                tried: &tried,
                now: cx.now,
                worker: cx.worker,
            };
            let picked = self.pick(cx, bound);
            let Some(active) = picked else {
                let refused = if n == 0 { Refused::Nobody } else { Refused::Full };
                return Err((refused, Some(entered)));
            };
            if has_room(&active) {
                return Ok(active.within(entered));
            }
            tried.push(active.endpoint().id);
        }
        match self.any_with_room(cx) {
            Some(active) => Ok(active.within(entered)),
            None => Err((Refused::Full, Some(entered))),
        }
    }

    /// The first with room from anywhere in the list.
    fn any_with_room(&self, cx: &mut PickContext<'_>) -> Option<Active> {
        let group = self.group.load();
        let candidates = || group.candidates();
        let from = cx.rng.below(candidates().count() as u64) as usize;
        let mut all = candidates()
            .skip(from)
            .chain(candidates().take(from))
            .map(|candidate| &candidate.endpoint);
        all.find_map(|endpoint| {
            let free = endpoint.allows(endpoint.active().saturating_add(1)) && !cx.tried.contains(&endpoint.id);
            free.then(|| endpoint.begin()).filter(has_room)
        })
    }
}

fn has_room(active: &Active) -> bool {
    let endpoint = active.endpoint();
    endpoint.allows(endpoint.active())
}

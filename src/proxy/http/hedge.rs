//! A second attempt beside one that takes long: the first answer wins, the other is given up.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

use super::Response;
use super::admit::pick;
use super::request::judged;
use super::retry::{Asked, Failed, discard};
use crate::endpoint::Active;
use crate::policy::budget::Permit;
use crate::policy::hedge::After;
use crate::telemetry::reasons::Hedged;
use crate::telemetry::series::Outcome;
use crate::upstream::Upstream;

/// When a second attempt is due; `None`: nobody knows yet.
pub fn delay(after: After, upstream: &Upstream) -> Option<Duration> {
    match after {
        After::Time(after) => Some(after),
        After::P95 => upstream.settings.p95.as_ref()?.get(),
    }
}

/// How a race ended.
pub struct Ended {
    pub result: Result<Response, Failed>,
    /// Whose answer or failure it is.
    pub endpoint: std::sync::Arc<crate::endpoint::State>,
    /// Who else was asked, and what they said did not help.
    pub other: Option<u32>,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Response, Failed>> + 'a>>;

/// One attempt, and after `delay` another at another endpoint, if there is one and the budget allows it.
pub async fn race(
    asked: &Asked<'_>,
    first: Active,
    begun: Instant,
    delay: Duration,
    connected: &Cell<Option<Duration>>,
    attempts: &mut u32,
) -> Ended {
    let endpoint = first.endpoint().clone();
    let mut one: Attempt<'_> = Box::pin(judged(asked, first, begun, connected));
    let alone = |result| Ended {
        result,
        endpoint: endpoint.clone(),
        other: None,
    };
    if let Ok(result) = tokio::time::timeout_at(begun + delay, one.as_mut()).await {
        return alone(result);
    }
    let series = asked.upstream.series.local(asked.scope.down.worker.id);
    let Some((active, permit)) = second(asked, endpoint.id) else {
        series.hedged(Hedged::Denied).add(1);
        return alone(one.await);
    };
    *attempts += 1;
    let another = active.endpoint().clone();
    let mut two: Attempt<'_> = Box::pin(judged(asked, active, Instant::now(), connected));
    let (result, second_ended) = std::future::poll_fn(|cx| {
        if let Poll::Ready(result) = one.as_mut().poll(cx) {
            return Poll::Ready((result, false));
        }
        two.as_mut().poll(cx).map(|result| (result, true))
    })
    .await;
    let (winner, loser, rest) = match second_ended {
        false => (&endpoint, &another, two),
        true => (&another, &endpoint, one),
    };
    let ended = match result {
        Ok(response) => {
            asked.cut.set(Outcome::HedgeLost);
            drop(rest);
            asked.cut.set(Outcome::Cancelled);
            series
                .hedged(if second_ended { Hedged::Won } else { Hedged::Lost })
                .add(1);
            Ended {
                result: Ok(response),
                endpoint: winner.clone(),
                other: None,
            }
        }
        // The other one decides.
        Err(failed) => {
            let result = rest.await;
            let won = result.is_ok() && !second_ended;
            series.hedged(if won { Hedged::Won } else { Hedged::Lost }).add(1);
            if let (Ok(_), Failed::Answer(response)) = (&result, failed) {
                discard(response).await;
            }
            Ended {
                result,
                endpoint: loser.clone(),
                other: Some(winner.id),
            }
        }
    };
    drop(permit);
    ended
}

/// An endpoint for the second attempt, other than `first`.
fn second(asked: &Asked<'_>, first: u32) -> Option<(Active, Permit)> {
    // A body that is still coming can have one reader alone.
    if asked.request.body.is_some_and(|body| !body.borrow().is_all_kept()) {
        return None;
    }
    let settings = &asked.upstream.settings;
    // Within the share alone: savings are for what would fail without them.
    let permit = settings
        .repeating
        .begin(settings.retry.budget, || asked.upstream.active())?;
    let active = pick(asked.scope, asked.upstream, asked.affinity, &[first], Instant::now()).ok()?;
    Some((active, permit))
}

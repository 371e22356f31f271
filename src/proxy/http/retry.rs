//! Between two attempts: whether another follows, at whom, how soon. The rules stand in `policy::retry`.

use std::cell::Cell;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{StatusCode, header};
use tokio::time::Instant;

use super::admit::{Affinity, pick};
use super::attempt::{Outgoing, may_repeat};
use super::body::ResponseBody;
use super::{Response, Scope};
use crate::endpoint::{Active, State};
use crate::policy::budget::Permit;
use crate::policy::retry::retry_after;
use crate::proxy::error::ProxyError;
use crate::telemetry::reasons::Denied;
use crate::telemetry::series::Outcome;
use crate::upstream::Upstream;

/// A response that is not passed on is read to its end, so that its connection can be used again, if that end is near.
const DISCARD: u64 = 64 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// How an attempt ended that may be followed by another.
pub enum Failed {
    /// With a response whose status is one that is retried on.
    Answer(Response),
    /// With a status of gRPC that is. Whoever names one takes it upon himself that calls may be repeated.
    Grpc(Response),
    Error(ProxyError),
}

/// What a request remembers of its attempts so far.
#[derive(Default)]
pub struct Retry {
    /// Ids of endpoints, the last one asked last.
    tried: Vec<u32>,
    /// Who asked not to be asked again before a time.
    resting: Vec<(u32, Instant)>,
    /// The repetition under way, in its upstream's budget.
    permit: Option<Permit>,
}

/// What all attempts of a request have in common.
pub struct Asked<'a> {
    pub scope: &'a Scope<'a>,
    pub upstream: &'a Upstream,
    pub affinity: Affinity,
    pub request: &'a Outgoing<'a>,
    /// What an attempt counts as that is given up.
    pub cut: &'a Cell<Outcome>,
}

impl Failed {
    /// What the client gets when no attempt follows.
    pub fn into_result(self) -> Result<Response, ProxyError> {
        match self {
            Self::Answer(response) | Self::Grpc(response) => Ok(response),
            Self::Error(e) => Err(e),
        }
    }
}

impl Retry {
    /// Another endpoint was asked, too.
    pub fn tried(&mut self, id: u32) {
        self.tried.push(id);
    }

    /// The endpoint for the attempt after one at `endpoint`, number `attempts`, that has failed. The failure comes back
    /// when there is none.
    pub async fn next(
        &mut self,
        asked: &Asked<'_>,
        failed: Failed,
        endpoint: &State,
        attempts: u32,
    ) -> Result<Active, Failed> {
        let spec = &asked.upstream.settings.retry;
        self.tried.push(endpoint.id);
        let is_failure = match &failed {
            Failed::Answer(response) | Failed::Grpc(response) => {
                if let Some(rest) = rest(response) {
                    self.resting.push((endpoint.id, Instant::now() + rest));
                }
                true
            }
            Failed::Error(e) => e.kind.failure().is_some_and(|failure| spec.on.has(failure)),
        };
        if spec.max == 0 || !is_failure {
            return Err(failed);
        }
        match self.find(asked, &failed, attempts).await {
            Ok(active) => {
                asked.upstream.series.local(asked.scope.down.worker.id).retries.add(1);
                if let Failed::Answer(response) = failed {
                    discard(response).await;
                }
                Ok(active)
            }
            Err(denied) => {
                let series = asked.upstream.series.local(asked.scope.down.worker.id);
                series.denied(denied).add(1);
                Err(failed)
            }
        }
    }

    async fn find(&mut self, asked: &Asked<'_>, failed: &Failed, attempts: u32) -> Result<Active, Denied> {
        let spec = &asked.upstream.settings.retry;
        if attempts > spec.max {
            return Err(Denied::Attempts);
        }
        let unsent = match failed {
            Failed::Error(e) => e.unsent,
            Failed::Answer(_) | Failed::Grpc(_) => false,
        };
        may_repeat(asked.request, unsent || matches!(failed, Failed::Grpc(_)))?;
        // The next one takes its place.
        self.permit = None;
        // What reached no endpoint has cost them nothing, and repeating it makes no more of it than it was.
        if !unsent {
            let permit =
                asked
                    .upstream
                    .settings
                    .repeating
                    .begin_or_spend(spec.budget, Instant::now().into_std(), || asked.upstream.active());
            self.permit = Some(permit.ok_or(Denied::Budget)?);
        }
        if attempts == 1
            && let Some(active) = self.pick(asked, |id| !self.tried.contains(&id))
        {
            return Ok(active);
        }
        let wait = spec
            .backoff
            .wait(attempts, &mut asked.scope.down.worker.rng.borrow_mut());
        let until = Instant::now() + wait;
        if asked.request.deadline.is_some_and(|deadline| deadline <= until) {
            return Err(Denied::Deadline);
        }
        tokio::time::sleep_until(until).await;
        let last = self.tried.last().copied();
        // Whoever was not asked yet; else anybody but the last; else anybody; never who asked for rest.
        self.pick(asked, |id| !self.tried.contains(&id))
            .or_else(|| self.pick(asked, |id| Some(id) != last && self.is_rested(id, until)))
            .or_else(|| self.pick(asked, |id| self.is_rested(id, until)))
            .ok_or(Denied::Endpoint)
    }

    /// One of those that may be picked, other than the tried ones that are not `free`.
    fn pick(&self, asked: &Asked<'_>, free: impl Fn(u32) -> bool) -> Option<Active> {
        let avoid: Vec<u32> = self.tried.iter().copied().filter(|id| !free(*id)).collect();
        pick(asked.scope, asked.upstream, asked.affinity, &avoid, Instant::now()).ok()
    }

    fn is_rested(&self, id: u32, now: Instant) -> bool {
        self.resting
            .iter()
            .all(|(resting, until)| *resting != id || *until <= now)
    }
}

/// How long an endpoint that has too much to do asks to be left alone.
fn rest(response: &Response) -> Option<Duration> {
    let has_too_much = matches!(
        response.status,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
    );
    let value = response
        .fields
        .named(&header::RETRY_AFTER)
        .next()
        .filter(|_| has_too_much)?;
    retry_after(value, SystemTime::now())
}

/// Lets a response go that is not passed on. What of it is there is read at once, the rest by a task of its own.
pub async fn discard(response: Response) {
    // A stream of HTTP/2 ends by itself, without its connection.
    if !matches!(&response.body, ResponseBody::H1(_)) || response.length.is_some_and(|length| length > DISCARD) {
        return;
    }
    let (mut body, mut left) = (response.body, DISCARD);
    let mut read = move |cx: &mut Context<'_>| {
        loop {
            match ready!(body.poll_frame(cx)) {
                Some(Ok(frame)) => match left.checked_sub(frame.data_ref().map_or(0, Bytes::len) as u64) {
                    Some(rest) => left = rest,
                    None => return Poll::Ready(()),
                },
                _ => return Poll::Ready(()),
            }
        }
    };
    let ended = std::future::poll_fn(|cx| Poll::Ready(read(cx).is_ready())).await;
    if !ended {
        tokio::task::spawn_local(async move {
            // Late or long: dropped, it closes its connection.
            let _ = tokio::time::timeout(DISCARD_TIME, std::future::poll_fn(read)).await;
        });
    }
}

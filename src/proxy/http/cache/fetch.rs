//! A fetch: a task of its own, so that it goes on for others when the one who began it leaves.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

use http::{Method, StatusCode, Version};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::fill::{Wanted, moment, opening, pump, renewed};
use super::{Asked, Missing, Stored};
use crate::cache::apart;
use crate::cache::conditional;
use crate::cache::entry::Entry;
use crate::cache::fill::{Failure, Joined, Lead, Opening, Seat};
use crate::cache::freshness::Moment;
use crate::cache::reason::Reason;
use crate::fields::{Fields, Known};
use crate::policy::queue::Importance;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::http::admit::Affinity;
use crate::proxy::http::body::{Read, RequestBody};
use crate::proxy::http::deadline::within;
use crate::proxy::http::request::{Work, send};
use crate::proxy::http::{Downstream, Inform, Request, Response, Scope};
use crate::proxy::record::Record;
use crate::snapshot::{Cached, Listener};
use crate::telemetry::series::Outcome;
use crate::upstream::Upstream;

/// How long an answer that could not be stored is remembered: who asks meanwhile does not wait for others.
const HIT_FOR_MISS: i64 = 60_000;
/// 1xx responses that may wait for the client.
const MAX_INFORMATIONAL: usize = 16;

/// What a fetch gave the one who began it.
pub enum Fetched {
    /// For it alone.
    Own(Response, Reason),
    /// Others see it too. `fields`: as they came.
    Shared {
        fields: Fields,
        opening: Arc<Opening>,
    },
    Validated(Arc<Entry>),
    /// Nothing, or an answer that tells of a failure.
    Failed(ProxyError, Option<Response>),
}

/// What is handed over on the worker that fetches.
type Shared<T> = Rc<RefCell<T>>;

/// What belongs to the one who began the fetch alone.
#[derive(Default)]
struct Delivery {
    waker: Option<Waker>,
    informational: VecDeque<(StatusCode, Fields)>,
    fetched: Option<Fetched>,
    record: Option<Record>,
}

fn deliver(to: &Shared<Delivery>, fetched: Fetched, record: Record) {
    let waker = {
        let delivery = &mut *to.borrow_mut();
        delivery.fetched = Some(fetched);
        delivery.record = Some(record);
        delivery.waker.take()
    };
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// A fetch as the one who began it waits for it. Dropped before there is an answer, it ends the fetch, unless others
/// wait.
pub struct Fetching {
    delivery: Shared<Delivery>,
    seat: Option<Seat>,
    task: AbortHandle,
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take()
            && !seat.has_company()
        {
            self.task.abort();
        }
    }
}

impl Fetching {
    /// Waits for the answer, passing 1xx responses on. The seat reads what is shared.
    pub async fn result(mut self, scope: &Scope<'_>, record: &mut Record) -> (Fetched, Option<Seat>) {
        let fetched = std::future::poll_fn(|cx| {
            let delivery = &mut *self.delivery.borrow_mut();
            for (status, fields) in delivery.informational.drain(..) {
                if let Some(inform) = scope.informational {
                    inform(status, &fields);
                }
            }
            match delivery.fetched.take() {
                Some(fetched) => Poll::Ready(fetched),
                None if self.task.is_finished() => {
                    let gone = ProxyError::new(Kind::Unavailable, "the fetch ended without an answer");
                    Poll::Ready(Fetched::Failed(gone, None))
                }
                None => {
                    delivery.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        if let Some(fetching) = self.delivery.borrow_mut().record.take() {
            record.adopt(fetching);
        }
        (fetched, self.seat.take())
    }
}

/// Everything a fetch needs, for it may outlive the request that began it.
struct Fetch {
    down: Downstream,
    listener: Arc<Listener>,
    upstream: Arc<Upstream>,
    affinity: Affinity,
    max_body: Option<u64>,
    importance: Importance,
    hedge: Option<Duration>,
    deadline: Option<Instant>,
    timeout: Duration,
    cached: Arc<Cached>,
    request: Request,
    wanted: Wanted,
    stale: Option<Stored>,
    lead: Lead,
    delivery: Shared<Delivery>,
    logged: bool,
}

/// Begins to fetch what is missing.
pub fn begin(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: &Asked,
    missing: &Missing,
    lead: Lead,
    seat: Seat,
) -> Fetching {
    let delivery = Rc::new(RefCell::new(Delivery::default()));
    let stale = missing.stale.clone();
    let fetch = prepare(
        scope,
        work,
        cached,
        asked,
        stale,
        missing.ask.ranged,
        lead,
        delivery.clone(),
    );
    let task = tokio::task::spawn_local(run(fetch)).abort_handle();
    Fetching {
        delivery,
        seat: Some(seat),
        task,
    }
}

/// Fetches a newer one behind what is served stale, unless that is under way.
pub fn behind(scope: &Scope<'_>, work: &Work<'_>, cached: &Arc<Cached>, asked: &Asked, stale: Stored) {
    let cache = &cached.cache;
    if let Joined::Lead(lead, _) = cache.fills.join(&asked.key, cache.store.under_way()) {
        let delivery = Shared::default();
        let mut fetch = prepare(scope, work, cached, asked, Some(stale), false, lead, delivery);
        // The client's patience is no measure: it is not waiting.
        fetch.deadline = None;
        tokio::task::spawn_local(run(fetch));
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "what a fetch is made of, gathered in one place"
)]
fn prepare(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: &Asked,
    stale: Option<Stored>,
    ranged: bool,
    lead: Lead,
    delivery: Shared<Delivery>,
) -> Fetch {
    let cache = &cached.cache;
    cache.series.local(scope.down.worker.id).fills.add(1);
    let mut fields = asked.request.fields.clone();
    apart::forget(&mut fields, &cached.cookies);
    let content = asked.content.clone();
    if content.is_some() {
        apart::forget_content(&mut fields);
    }
    let method = match content {
        Some(_) => asked.request.method.clone(),
        None => Method::GET,
    };
    match &stale {
        Some((entry, _)) if method != Method::POST => {
            conditional::ask(&mut fields, &entry.meta.head.fields());
        }
        None if ranged => {
            fields.remove(Known::IfNoneMatch);
            fields.remove(Known::IfModifiedSince);
        }
        // 304 answers no POST.
        _ => conditional::forget(&mut fields),
    }
    // It was understood here, and asks nothing of caches behind.
    Fetch {
        down: scope.down.clone(),
        listener: scope.listener.clone(),
        upstream: work.upstream.clone(),
        affinity: work.affinity,
        max_body: work.max_body,
        importance: work.importance,
        hedge: work.hedge,
        deadline: work.deadline,
        timeout: work.timeout,
        wanted: Wanted {
            // Of QUERY what is cacheable is what it is of GET (RFC 10008 section 2.7).
            method: match method {
                Method::POST => Method::POST,
                _ => Method::GET,
            },
            by_content: content.is_some(),
            cc: asked.cc,
            authorized: asked.authorized,
            fields: asked.request.fields.clone(),
            key: asked.key.clone(),
            stamp: cache.store.stamp(),
        },
        cached: cached.clone(),
        request: Request {
            method,
            target: asked.request.target.clone(),
            version: asked.request.version,
            fields,
            length: content.as_ref().map(|content| content.len() as u64),
            body: match content {
                Some(data) if !data.is_empty() => RequestBody::Read(Box::new(Read {
                    data,
                    rest: RequestBody::Empty,
                    trailers: None,
                })),
                _ => RequestBody::Empty,
            },
            expect_continue: false,
            upgrade: None,
            alone: asked.request.alone,
        },
        stale,
        lead,
        delivery,
        logged: scope.down.worker.snapshot.get().access_log,
    }
}

async fn run(fetch: Fetch) {
    let Fetch {
        down,
        listener,
        upstream,
        affinity,
        max_body,
        importance,
        hedge,
        deadline,
        timeout,
        cached,
        request,
        wanted,
        stale,
        mut lead,
        delivery,
        logged,
    } = fetch;
    let Some(http) = listener.http() else { return };
    let inform = |status: StatusCode, fields: &Fields| {
        let delivery = &mut *delivery.borrow_mut();
        if delivery.informational.len() < MAX_INFORMATIONAL {
            delivery.informational.push_back((status, fields.clone()));
        }
        if let Some(waker) = delivery.waker.take() {
            waker.wake();
        }
    };
    let scope = Scope {
        down: &down,
        listener: &listener,
        http,
        informational: (request.version == Version::HTTP_11).then_some(&inform as &Inform<'_>),
    };
    let work = Work {
        upstream: &upstream,
        affinity,
        max_body,
        importance,
        hedge,
        deadline,
        timeout,
        given: None,
        cut: Cell::new(Outcome::Cancelled),
    };
    let mut record = Record::apart(&down.worker, logged);
    let begun = record.started;
    let answered = within(&work, pin!(send(&scope, &work, request, &mut record))).await;
    let response = match answered {
        Ok(response) => response,
        Err(e) => {
            cached.cache.tiers.forgo(wanted.key.primary());
            lead.fail(Failure {
                status: e.kind.status(),
                detail: e.detail.clone(),
            });
            return deliver(&delivery, Fetched::Failed(e, None), record);
        }
    };
    let at = moment(&cached, begun);
    if let Some((entry, freshness)) = &stale {
        if response.status == StatusCode::NOT_MODIFIED {
            return validated(&cached, &wanted, entry, &response, at, &mut lead, &delivery, record);
        }
        let fails = matches!(response.status.as_u16(), 500 | 502 | 503 | 504);
        if fails && freshness.serves_on_error(&wanted.cc, at.clock) {
            cached.cache.tiers.forgo(wanted.key.primary());
            lead.fail(Failure {
                status: response.status,
                detail: format!("the endpoint answered {}", response.status.as_u16()).into(),
            });
            let e = ProxyError::new(Kind::BadResponse, "the endpoint failed");
            return deliver(&delivery, Fetched::Failed(e, Some(response)), record);
        }
    }
    match opening(&cached, &wanted, &response, at) {
        Err(reason) => {
            cached.cache.tiers.forgo(wanted.key.primary());
            // A failure is not how this answer always is.
            if !response.status.is_server_error() && !matches!(reason, Reason::RequestNoStore | Reason::PartUnusable) {
                cached.cache.store.pass(&wanted.key, at.clock + HIT_FOR_MISS);
            }
            lead.release();
            deliver(&delivery, Fetched::Own(response, reason), record);
        }
        Ok((mut opening, place)) => {
            if !lead.is_storable() {
                opening.unkept = Some(Reason::Purged);
            } else if opening
                .length
                .is_some_and(|n| !cached.cache.store.under_way().has_room(n))
            {
                // They all read it nevertheless: nobody asks again for want of room here.
                opening.unkept = Some(Reason::NoRoom);
                lead.forgo();
            }
            let Response { fields, body, .. } = response;
            let opening = Arc::new(opening);
            lead.open(opening.clone());
            let shared = Fetched::Shared {
                fields,
                opening: opening.clone(),
            };
            deliver(&delivery, shared, record);
            // It holds the request's record, and clients may read for long.
            drop(delivery);
            pump(&cached, &opening, place, body, &mut lead).await;
        }
    }
}

/// What is stored is still current.
#[expect(
    clippy::too_many_arguments,
    reason = "the end of a fetch, which has all of this at hand"
)]
fn validated(
    cached: &Cached,
    wanted: &Wanted,
    entry: &Arc<Entry>,
    response: &Response,
    at: Moment,
    lead: &mut Lead,
    delivery: &Shared<Delivery>,
    record: Record,
) {
    let fresh = renewed(cached, wanted, entry, &response.fields, at);
    match fresh {
        Ok((entry, place)) => {
            if lead.is_storable() {
                cached.cache.keep(&place, &entry, at.clock - at.delay, Some(lead));
            }
            lead.done(entry.clone());
            deliver(delivery, Fetched::Validated(entry), record);
        }
        Err(_) => {
            // It may not be stored any more: this answer is for the one who asked.
            cached.cache.purge(&wanted.key, false, at.clock).1.detach();
            lead.release();
            deliver(delivery, Fetched::Validated(entry.clone()), record);
        }
    }
}

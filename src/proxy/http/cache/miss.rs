//! GET for what is not stored, or has to be validated: asked for, or waited for.

use std::sync::Arc;

use http::StatusCode;
use tokio::time::Instant;

use super::fetch::{self, Fetched, Fetching};
use super::serve::{self, Now};
use super::status::Told;
use super::{Asked, Missing, Step, count, find, wall};
use crate::cache::fill::{Failure, Fills, Joined, Opening, Outcome, Seat};
use crate::cache::freshness::{Freshness, Verdict};
use crate::cache::range;
use crate::cache::reason::Reason;
use crate::fields::Known;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::http::request::Work;
use crate::proxy::http::{Response, Scope};
use crate::proxy::record::Record;
use crate::snapshot::Cached;
use crate::telemetry::series::CacheResult;

/// Times a request waits for another's fetch before it asks for itself.
const MAX_JOINS: u32 = 3;

/// GET for what is not there, or has to be validated.
pub async fn get(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: &mut Asked,
    mut missing: Missing,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let cache = &cached.cache;
    for joins in 0.. {
        let budget = cache.store.under_way();
        let key = match missing.ask.ranged {
            _ if !missing.ask.shared || joins == MAX_JOINS => None,
            true => range::shared(&asked.key, &asked.request.fields),
            false => Some(asked.key.clone()),
        };
        let joined = match key {
            Some(key) => cache.fills.join(&key, budget),
            None => {
                let (lead, seat) = Fills::alone(budget);
                Joined::Lead(lead, seat)
            }
        };
        match joined {
            Joined::Lead(lead, seat) => {
                // Another may have stored it between the look and this.
                if missing.ask.shared && missing.stale.is_none() {
                    match find(scope, work, cached, asked, Instant::now(), record) {
                        Ok(response) => return Ok(response),
                        Err(Step::Fetch(newer)) if newer.stale.is_some() => missing = newer,
                        Err(_) => {}
                    }
                }
                let fetching = fetch::begin(scope, work, cached, asked, &missing, lead, seat);
                return lead_on(scope, cached, asked, missing, fetching, record).await;
            }
            Joined::Follow(seat) => {
                let outcome = std::future::poll_fn(|cx| seat.poll_outcome(cx)).await;
                match outcome {
                    Outcome::Open(opening) => {
                        if let Some(response) = follow(scope, cached, asked, &missing, &opening, seat, record) {
                            return Ok(response);
                        }
                    }
                    Outcome::Done(entry) => {
                        let clock = cache.clock(Instant::now());
                        let told = Told {
                            result: CacheResult::Collapsed,
                            collapsed: true,
                            ttl: Some(entry.meta.freshness.ttl(clock)),
                            ..Told::forwarded(CacheResult::Collapsed, missing.ask.why, missing.ask.detail)
                        };
                        if suits(asked, &entry.meta.freshness, clock) {
                            let now = Now { clock, wall };
                            let served = serve::stored(&entry, &entry.meta.freshness, &asked.request, now, &told);
                            if let Some(response) = served {
                                count(scope, cached, told.result, record);
                                return Ok(response);
                            }
                        }
                    }
                    Outcome::Released => {}
                    Outcome::Failed(failure) => return failed(scope, cached, asked, &missing, failure, record),
                }
                // Not for this one: looked for anew, and asked for alone where that must be.
                match find(scope, work, cached, asked, Instant::now(), record) {
                    Ok(response) => return Ok(response),
                    Err(Step::Fetch(newer)) => missing = newer,
                    Err(_) => missing.ask.shared = false,
                }
            }
        }
    }
    Err(ProxyError::new(Kind::Unavailable, "no fetch was begun"))
}

/// Whether what was fetched for another may answer this request.
fn suits(asked: &Asked, freshness: &Freshness, clock: i64) -> bool {
    freshness.verdict(&asked.cc, clock) == Verdict::Fresh && (!asked.authorized || freshness.is_for_authorized())
}

/// The response another has asked for, as it arrives. `None`: it is not for this request.
fn follow(
    scope: &Scope<'_>,
    cached: &Cached,
    asked: &Asked,
    missing: &Missing,
    opening: &Opening,
    seat: Seat,
    record: &mut Record,
) -> Option<Response> {
    let cache = &cached.cache;
    let clock = cache.clock(Instant::now());
    let freshness = &opening.meta.freshness;
    if !suits(asked, freshness, clock) {
        return None;
    }
    if !opening.vary.is_empty() || asked.key.exact.is_some() {
        let mut own = asked.key.clone();
        let fields = opening.meta.head.fields();
        cache.place(&mut own, &fields, &opening.vary, &asked.request.fields)?;
        if *own.text != *opening.key {
            return None;
        }
    }
    let told = Told {
        collapsed: true,
        status: Some(opening.wire_status),
        ttl: Some(freshness.ttl(clock)),
        ..Told::forwarded(CacheResult::Collapsed, missing.ask.why, missing.ask.detail)
    };
    let status = StatusCode::from_u16(opening.wire_status).ok()?;
    let mut fields = opening.meta.head.fields();
    if let Some((span, length)) = opening.part {
        fields.append(Known::ContentRange, range::content_range(span, length).as_bytes());
    }
    count(scope, cached, told.result, record);
    Some(serve::streamed(
        serve::Streamed {
            status,
            fields,
            length: opening.length,
            seat,
        },
        freshness,
        &asked.request,
        Now { clock, wall },
        &told,
    ))
}

/// The answer of one's own fetch.
async fn lead_on(
    scope: &Scope<'_>,
    cached: &Arc<Cached>,
    asked: &Asked,
    missing: Missing,
    fetching: Fetching,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let (fetched, seat) = fetching.result(scope, record).await;
    let clock = cached.cache.clock(Instant::now());
    let now = Now { clock, wall };
    let told = Told::forwarded(CacheResult::Miss, missing.ask.why, missing.ask.detail);
    if !matches!(fetched, Fetched::Own(..)) {
        record.endpoint = None;
    }
    match fetched {
        Fetched::Own(mut response, reason) => {
            let told = Told {
                status: Some(response.status.as_u16()),
                detail: Some(reason),
                ..told
            };
            if !missing.ask.ranged {
                // It was asked for whole.
                serve::cut(&mut response, &asked.request, now);
            }
            told.tell(&mut response.fields);
            count(scope, cached, told.result, record);
            Ok(response)
        }
        Fetched::Shared { fields, opening } => {
            let seat = seat.ok_or_else(|| ProxyError::new(Kind::Unavailable, "nobody reads what is fetched"))?;
            let told = Told {
                status: Some(opening.wire_status),
                ttl: Some(opening.meta.freshness.ttl(clock)),
                stored: opening.unkept.is_none(),
                detail: opening.unkept.or(told.detail),
                ..told
            };
            count(scope, cached, told.result, record);
            let streamed = serve::Streamed {
                status: StatusCode::from_u16(opening.wire_status).unwrap_or_default(),
                fields,
                length: opening.length,
                seat,
            };
            Ok(serve::streamed(
                streamed,
                &opening.meta.freshness,
                &asked.request,
                now,
                &told,
            ))
        }
        Fetched::Validated(entry) => {
            let told = Told {
                result: CacheResult::Revalidated,
                status: Some(304),
                ttl: Some(entry.meta.freshness.ttl(clock)),
                stored: true,
                ..told
            };
            count(scope, cached, told.result, record);
            serve::stored(&entry, &entry.meta.freshness, &asked.request, now, &told)
                .ok_or_else(|| ProxyError::new(Kind::BadResponse, "304 for a part"))
        }
        Fetched::Failed(failure, fallback) => {
            // Stale, where that may be; else what the endpoint said, where it said anything.
            match (stale_on_error(scope, cached, asked, &missing, record), fallback) {
                (Some(response), _) => Ok(response),
                (None, Some(mut response)) => {
                    let told = Told {
                        status: Some(response.status.as_u16()),
                        ..told
                    };
                    told.tell(&mut response.fields);
                    count(scope, cached, told.result, record);
                    Ok(response)
                }
                (None, None) => Err(failure),
            }
        }
    }
}

/// Everybody who waited is told what went wrong, or gets what is stale.
fn failed(
    scope: &Scope<'_>,
    cached: &Arc<Cached>,
    asked: &Asked,
    missing: &Missing,
    failure: Failure,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    if let Some(response) = stale_on_error(scope, cached, asked, missing, record) {
        return Ok(response);
    }
    let kind = match failure.status {
        StatusCode::GATEWAY_TIMEOUT => Kind::ResponseTimeout,
        StatusCode::BAD_GATEWAY => Kind::BadResponse,
        _ => Kind::Unavailable,
    };
    Err(ProxyError::new(kind, failure.detail))
}

fn stale_on_error(
    scope: &Scope<'_>,
    cached: &Cached,
    asked: &Asked,
    missing: &Missing,
    record: &mut Record,
) -> Option<Response> {
    let (entry, freshness) = missing.stale.as_ref()?;
    let clock = cached.cache.clock(Instant::now());
    if !freshness.serves_on_error(&asked.cc, clock) {
        return None;
    }
    let told = Told {
        result: CacheResult::Stale,
        detail: Some(Reason::IfError),
        ..Told::hit(freshness.ttl(clock))
    };
    let response = serve::stored(entry, freshness, &asked.request, Now { clock, wall }, &told)?;
    count(scope, cached, told.result, record);
    Some(response)
}

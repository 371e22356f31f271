//! The cache in the life of a request (RFC 9111 section 4): looked up, served, fetched, validated, invalidated.

mod content;
mod fetch;
mod fill;
mod miss;
mod other;
mod recall;
mod serve;
mod status;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Method, StatusCode};
use tokio::time::Instant;

use self::serve::Now;
use self::status::Told;
use super::forward::{is_https, is_trusted};
use super::request::{Work, send};
use super::{Request, Response, Scope, respond};
use crate::cache::apart;
use crate::cache::directives::ForRequest;
use crate::cache::entry::Entry;
use crate::cache::freshness::{Freshness, Verdict};
use crate::cache::key::{self, Key};
use crate::cache::reason::Reason;
use crate::cache::store::Found;
use crate::cache::vary;
use crate::fields::{Fields, Known};
use crate::proxy::error::ProxyError;
use crate::proxy::record::Record;
use crate::snapshot::Cached;
use crate::telemetry::series::CacheResult;

/// Methods that are registered as safe and answered by no cache here; unknown ones change things.
const SAFE: [&str; 4] = ["QUERY", "PROPFIND", "REPORT", "SEARCH"];

/// How long what a purge or a change has made void is waited for to be so behind memory as well.
const PURGE_WAIT: Duration = Duration::from_millis(250);

/// A response that may be stale, as it was found.
type Stored = (Arc<Entry>, Freshness);

/// A request that could not be answered at once.
pub struct Asked {
    request: Request,
    key: Key,
    cc: ForRequest,
    authorized: bool,
    /// What it carries, where it is stored by that.
    content: Option<Bytes>,
    /// What is behind memory was asked.
    recalled: bool,
    step: Step,
}

/// What is to be done.
enum Step {
    Bypass(Reason),
    /// The method PURGE, for what has this key.
    Purge(Option<Key>),
    /// Memory has nothing, or what is stale: what is behind it may.
    Recall {
        stale: bool,
    },
    /// A method that changes things: what is stored is forgotten when it has.
    Change(Reason),
    /// What it carries decides.
    Content,
    /// HEAD for what is not stored or stale.
    Head(Option<Stored>),
    Fetch(Missing),
}

/// Why an endpoint is asked.
struct Missing {
    /// To be validated.
    stale: Option<Stored>,
    /// `fwd` of Cache-Status.
    why: &'static str,
    detail: Option<Reason>,
    /// Others that ask for the same wait for this answer.
    shared: bool,
    /// Only the range that is asked for.
    ranged: bool,
}

/// Whether requests of this method are looked up.
pub fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What the request is stored by. `None`: by nothing.
pub fn key_of(scope: &Scope<'_>, fields: &Fields, host: &str, path: &str, query: Option<&str>) -> Option<Key> {
    let authority = fields.get(Known::Host).unwrap_or_default();
    let https = is_https(scope.down, &scope.http.trusted_proxies, fields);
    Key::of(https, host, authority, path, query)
}

fn wall() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs() as i64)
}

/// Answers from the store, when that is all there is to do.
pub fn look_up(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    key: Option<Key>,
    request: Request,
    record: &mut Record,
) -> Result<Response, Box<Asked>> {
    let fields = &request.fields;
    let directed = fields.has(Known::CacheControl) || fields.has(Known::Pragma);
    let cc = match directed {
        true => ForRequest::read(fields),
        false => ForRequest::default(),
    };
    let mut asked = Asked {
        authorized: fields.has(Known::Authorization),
        cc,
        key: Key::default(),
        content: None,
        recalled: false,
        step: Step::Change(Reason::Method),
        request,
    };
    if asked.request.method.as_str() == "PURGE" && !cached.purge_sources.is_empty() {
        asked.step = Step::Purge(key);
        return Err(Box::new(asked));
    }
    let by_content = cached.by_content.takes(&asked.request.method);
    let bypass = why_bypass(scope, &asked, key.is_none(), by_content);
    asked.key = key.unwrap_or_default();
    if let Some(reason) = bypass {
        let changes = asked.request.method == Method::POST && reason != Reason::KeyTooLong;
        asked.step = if changes {
            Step::Change(reason)
        } else {
            Step::Bypass(reason)
        };
        return Err(Box::new(asked));
    }
    if by_content {
        asked.step = Step::Content;
        return Err(Box::new(asked));
    }
    if !matches!(asked.request.method, Method::GET | Method::HEAD) {
        return Err(Box::new(asked));
    }
    apart::note(&mut asked.request.fields, &cached.cookies);
    let started = record.started;
    match find(scope, work, cached, &mut asked, started, record) {
        Ok(response) => Ok(response),
        Err(step) => {
            asked.step = step;
            Err(Box::new(asked))
        }
    }
}

/// Why the cache has no part in a request. Methods that change things are told apart elsewhere.
fn why_bypass(scope: &Scope<'_>, asked: &Asked, no_key: bool, by_content: bool) -> Option<Reason> {
    let Request {
        method,
        fields,
        body,
        upgrade,
        ..
    } = &asked.request;
    let safe = matches!(*method, Method::OPTIONS | Method::TRACE | Method::CONNECT) || SAFE.contains(&method.as_str());
    if (safe && !by_content) || upgrade.is_some() {
        return Some(Reason::Method);
    }
    if no_key {
        return Some(Reason::KeyTooLong);
    }
    if !by_content && !matches!(*method, Method::GET | Method::HEAD) {
        return None;
    }
    if !by_content && !body.is_empty() {
        return Some(Reason::RequestBody);
    }
    if asked.cc.no_store {
        return Some(Reason::RequestNoStore);
    }
    // They are for the origin alone (RFC 9111 section 4.3.2).
    if fields.has(Known::IfMatch) || fields.has(Known::IfUnmodifiedSince) {
        return Some(Reason::RequestOverride);
    }
    // 304 answers no POST (RFC 9110 section 13.1.2).
    if *method == Method::POST && (fields.has(Known::IfNoneMatch) || fields.has(Known::IfModifiedSince)) {
        return Some(Reason::RequestOverride);
    }
    // A proxy in front that is believed may name a host of its choice: the endpoint sees it, the key does not.
    let renamed = fields.has(Known::XForwardedHost)
        && fields.get(Known::XForwardedHost) != fields.get(Known::Host)
        && is_trusted(scope.down, &scope.http.trusted_proxies);
    (renamed || key::is_overridden(fields)).then_some(Reason::RequestOverride)
}

/// The answer of the store, or what is to be done.
fn find(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: &mut Asked,
    at: Instant,
    record: &mut Record,
) -> Result<Response, Step> {
    let cache = &cached.cache;
    let found = cache.find(&mut asked.key, &asked.request.fields, cache.clock(at));
    judge(scope, work, cached, asked, found, at, record)
}

/// What is to be done about what was found.
#[inline]
fn judge(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: &mut Asked,
    found: Found,
    at: Instant,
    record: &mut Record,
) -> Result<Response, Step> {
    let cache = &cached.cache;
    let now = Now {
        clock: cache.clock(at),
        wall,
    };
    let is_head = asked.request.method == Method::HEAD;
    let ranged = asked.request.fields.has(Known::Range) && asked.request.method == Method::GET;
    let missing = |why, detail, shared| Missing {
        stale: None,
        why,
        detail,
        shared: shared && !ranged,
        ranged,
    };
    let (why, shared) = match found {
        Found::Nothing | Found::OtherVariant if !asked.recalled && !cache.tiers.is_empty() => {
            return Err(Step::Recall { stale: false });
        }
        Found::Nothing => {
            expect(cached, asked);
            ("uri-miss", true)
        }
        Found::OtherVariant => ("vary-miss", true),
        Found::Pass => ("uri-miss", false),
        Found::Entry(entry, _) if asked.authorized && !entry.meta.freshness.is_for_authorized() => {
            return Err(Step::Fetch(missing("bypass", Some(Reason::Authorization), false)));
        }
        Found::Entry(entry, freshness) => {
            let (detail, result) = match freshness.verdict(&asked.cc, now.clock) {
                Verdict::Fresh => (None, CacheResult::Hit),
                Verdict::Stale(reason) => (Some(reason), CacheResult::Stale),
                Verdict::Meanwhile => (Some(Reason::WhileRevalidate), CacheResult::Stale),
                Verdict::Validate(Reason::Stale) if !asked.recalled && cache.tiers.are_shared() => {
                    return Err(Step::Recall { stale: true });
                }
                Verdict::Validate(reason) => return Err(validate(asked, (entry, freshness), reason, ranged)),
            };
            let told = Told {
                result,
                detail,
                ..Told::hit(freshness.ttl(now.clock))
            };
            match serve::stored(&entry, &freshness, &asked.request, now, &told) {
                Some(response) => {
                    if detail == Some(Reason::WhileRevalidate) {
                        fetch::behind(scope, work, cached, asked, (entry, freshness));
                    }
                    count(scope, cached, result, record);
                    return Ok(response);
                }
                None => {
                    return Err(Step::Fetch(missing("partial", None, false)));
                }
            }
        }
    };
    if asked.cc.only_if_cached {
        return Ok(only_if_cached(scope, cached, why, record));
    }
    if is_head {
        return Err(Step::Head(None));
    }
    let detail = (!shared).then_some(Reason::HitForMiss);
    // Who wants it from the endpoint does not want what another asked for before.
    let insists = asked.cc.no_cache || asked.cc.max_age == Some(0);
    Err(Step::Fetch(missing(why, detail, shared && !insists)))
}

/// Where nothing is stored, requests that are told apart whatever `Vary` says do not wait for each other.
fn expect(cached: &Cached, asked: &mut Asked) {
    let apart = &cached.rules.apart;
    if apart.is_empty() && asked.content.is_none() {
        return;
    }
    // Names from the settings alone: never too many.
    let Ok(mut vary) = vary::of(&Fields::default(), apart) else {
        return;
    };
    if asked.content.is_some() {
        vary = vary::with(&vary, &apart::CONTENT);
    }
    cached.cache.store.expect(&mut asked.key, &vary, &asked.request.fields);
}

/// What is stored has to be validated first.
fn validate(asked: &Asked, stored: Stored, reason: Reason, ranged: bool) -> Step {
    if asked.request.method == Method::HEAD {
        return Step::Head(Some(stored));
    }
    let why = match reason {
        Reason::Stale | Reason::NoCache => "stale",
        _ => "request",
    };
    let whole = stored.0.body.is_whole();
    Step::Fetch(Missing {
        // A part cannot be told to be current as a whole.
        shared: reason == Reason::Stale && stored.1.is_reusable() && whole,
        ranged: ranged && !whole,
        stale: whole.then_some(stored),
        why,
        detail: Some(reason),
    })
}

fn only_if_cached(scope: &Scope<'_>, cached: &Cached, why: &'static str, record: &mut Record) -> Response {
    let mut response = respond::plain(StatusCode::GATEWAY_TIMEOUT, "nothing is stored for this request");
    let told = Told::forwarded(CacheResult::Miss, why, Some(Reason::OnlyIfCached));
    told.tell(&mut response.fields);
    count(scope, cached, told.result, record);
    response
}

/// Answers what [`look_up`] could not.
pub async fn answer(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: Box<Asked>,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let mut asked = *asked;
    let mut step = std::mem::replace(&mut asked.step, Step::Content);
    if let Step::Recall { stale } = step {
        step = match recall::find(scope, work, cached, &mut asked, stale, record).await {
            Ok(response) => return Ok(response),
            Err(step) => step,
        };
    }
    match step {
        // It was, and is not asked for twice.
        Step::Recall { .. } => send(scope, work, asked.request, record).await,
        Step::Purge(key) => Ok(other::purge(scope, cached, key.as_ref(), record).await),
        Step::Bypass(reason) => {
            let mut response = send(scope, work, asked.request, record).await?;
            Told::forwarded(CacheResult::Bypass, "bypass", Some(reason)).tell(&mut response.fields);
            count(scope, cached, CacheResult::Bypass, record);
            Ok(response)
        }
        Step::Change(reason) => other::change(scope, work, cached, asked, reason, record).await,
        Step::Content => content::answer(scope, work, cached, asked, record).await,
        Step::Head(stored) => other::head(scope, work, cached, asked, stored, record).await,
        Step::Fetch(missing) => {
            let fetched = miss::get(scope, work, cached, &mut asked, missing, record).await;
            if fetched.is_err() {
                count(scope, cached, CacheResult::Error, record);
            }
            fetched
        }
    }
}

fn count(scope: &Scope<'_>, cached: &Cached, result: CacheResult, record: &mut Record) {
    let series = cached.cache.series.local(scope.down.worker.id);
    series.results[result as usize].add(1);
    record.cache = Some(result);
    record.note(|line| line.cache = Some(result.label()));
}

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
use crate::cache::explain::{self, Ask, Asking, Decision};
use crate::cache::freshness::Freshness;
use crate::cache::key::Key;
use crate::cache::reason::Reason;
use crate::cache::store::Found;
use crate::cache::vary;
use crate::fields::{Fields, Known};
use crate::proxy::error::ProxyError;
use crate::proxy::record::Record;
use crate::snapshot::Cached;
use crate::telemetry::series::CacheResult;

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
    trusted: bool,
    keyless: bool,
    by_content: bool,
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
    ask: Ask,
}

impl Asked {
    fn asking<'a>(&'a self, cached: &'a Cached) -> Asking<'a> {
        let Request {
            method,
            fields,
            body,
            upgrade,
            ..
        } = &self.request;
        Asking {
            method,
            fields,
            cc: self.cc,
            authorized: self.authorized,
            has_body: !body.is_empty(),
            upgrades: upgrade.is_some(),
            by_content: self.by_content,
            keyless: self.keyless,
            trusted: self.trusted,
            apart: &cached.rules.apart,
        }
    }
}

/// Whether requests of this method are looked up.
pub fn reads(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD)
}

/// What the request is stored by. `None`: by nothing.
pub fn key_of(scope: &Scope<'_>, fields: &Fields, host: &str, path: &str, query: Option<&str>) -> Option<Key> {
    let authority = fields.get(Known::Host).unwrap_or_default();
    let https = is_https(scope.down, &scope.http.trusted_proxies, fields);
    // `shop.` is routed as `shop` is; its endpoint sees which was asked for, and may answer either in its own way.
    match authority.split(|b| *b == b':').next() {
        Some([.., b'.']) => Key::of(https, &format!("{host}."), authority, path, query),
        _ => Key::of(https, host, authority, path, query),
    }
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
    let by_content = cached.by_content.takes(&request.method);
    let mut asked = Asked {
        authorized: fields.has(Known::Authorization),
        cc,
        content: None,
        recalled: false,
        step: Step::Content,
        trusted: is_trusted(scope.down, &scope.http.trusted_proxies),
        keyless: key.is_none(),
        by_content,
        key: key.unwrap_or_default(),
        request,
    };
    if asked.request.method.as_str() == "PURGE" && !cached.purge_sources.is_empty() {
        let key = (!asked.keyless).then(|| std::mem::take(&mut asked.key));
        asked.step = Step::Purge(key);
        return Err(Box::new(asked));
    }
    let decision = explain::unasked(&asked.asking(cached));
    match decision {
        Some(Decision::Change(reason)) => asked.step = Step::Change(reason),
        Some(Decision::Bypass(reason)) => asked.step = Step::Bypass(reason),
        _ if by_content => {}
        _ => {
            apart::note(&mut asked.request.fields, &cached.cookies);
            let started = record.started;
            match find(scope, work, cached, &mut asked, started, record) {
                Ok(response) => return Ok(response),
                Err(step) => asked.step = step,
            }
        }
    }
    Err(Box::new(asked))
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
    let is_there = !matches!(found, Found::Nothing | Found::OtherVariant);
    if !is_there && !asked.recalled && !cache.tiers.is_empty() {
        return Err(Step::Recall { stale: false });
    }
    if matches!(found, Found::Nothing) {
        expect(cached, asked);
    }
    let rules = explain::Rules {
        ranges: cached.ranges,
        max_entry: cached.max_entry,
    };
    let decision = explain::look(&asked.asking(cached), &found, rules, now.clock, wall);
    if decision.is_for_want_of_fresh() && !asked.recalled && cache.tiers.are_shared() {
        return Err(Step::Recall { stale: true });
    }
    let stored = match found {
        Found::Entry(entry, freshness) => Some((entry, freshness)),
        _ => None,
    };
    let ask = match (decision, &stored) {
        (Decision::Serve(detail), Some((entry, freshness))) => {
            let renews = detail.is_none()
                && cached
                    .ahead
                    .is_some_and(|ahead| ahead.renews(&entry.heat, freshness, now.clock));
            let told = Told {
                result: detail.map_or(CacheResult::Hit, |_| CacheResult::Stale),
                detail: detail.or(renews.then_some(Reason::Ahead)),
                ..Told::hit(freshness.ttl(now.clock))
            };
            match serve::stored(entry, freshness, &asked.request, now, &told) {
                Some(response) => {
                    if renews || detail == Some(Reason::WhileRevalidate) {
                        fetch::behind(scope, work, cached, asked, (entry.clone(), *freshness));
                    }
                    count(scope, cached, told.result, record);
                    return Ok(response);
                }
                None => return Err(Step::Bypass(Reason::PartUnusable)),
            }
        }
        (Decision::Refuse(why), _) => return Ok(only_if_cached(scope, cached, why, record)),
        (Decision::Ask(ask), _) => ask,
        // The others are for what is not looked up.
        _ => return Err(Step::Bypass(Reason::Method)),
    };
    if asked.request.method == Method::HEAD {
        return Err(Step::Head(stored.filter(|_| ask.detail != Some(Reason::Authorization))));
    }
    Err(Step::Fetch(Missing {
        stale: stored.filter(|_| ask.validates),
        ask,
    }))
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

//! Requests that no stored response answers: HEAD that has to be asked for, and methods that change things.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::fill::{self, Wanted};
use super::status::Told;
use super::{Asked, Stored, count};
use crate::cache::apart;
use crate::cache::conditional;
use crate::cache::reason::Reason;
use crate::fields::Known;
use crate::proxy::error::ProxyError;
use crate::proxy::http::request::{Work, send};
use crate::proxy::http::{Response, Scope};
use crate::proxy::record::Record;
use crate::snapshot::Cached;
use crate::telemetry::series::CacheResult;

/// HEAD goes to the endpoint, and what it says is taken over (RFC 9111 section 4.3.5).
pub async fn head(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: Asked,
    stored: Option<Stored>,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let cache = &cached.cache;
    let Asked {
        mut request,
        key,
        cc,
        authorized,
        ..
    } = asked;
    let wanted = Wanted {
        method: Method::GET,
        by_content: false,
        cc,
        authorized,
        fields: request.fields.clone(),
        key,
        stamp: cache.store.stamp(),
    };
    conditional::forget(&mut request.fields);
    apart::forget(&mut request.fields, &cached.cookies);
    let begun = Instant::now();
    let mut response = send(scope, work, request, record).await?;
    let why = if stored.is_some() { "stale" } else { "uri-miss" };
    let updated = stored.and_then(|(entry, _)| fill::update(cached, &wanted, &entry, &response, begun));
    let told = Told {
        status: Some(response.status.as_u16()),
        ..Told::forwarded(CacheResult::Miss, why, Some(Reason::Method))
    };
    count(scope, cached, told.result, record);
    if let Some(entry) = updated {
        // With what the endpoint left out this time.
        response.fields = conditional::merge(&entry.meta.head.fields(), &response.fields);
    }
    told.tell(&mut response.fields);
    Ok(response)
}

/// A method that changes things (RFC 9111 section 4.4). What it answers may be what is there from now on (RFC 9110 section
/// 9.3.3): then it is stored.
pub async fn change(
    scope: &Scope<'_>,
    work: &Work<'_>,
    cached: &Arc<Cached>,
    asked: Asked,
    reason: Reason,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let Asked {
        request,
        key,
        cc,
        authorized,
        ..
    } = asked;
    let cache = &cached.cache;
    let mut fields = request.fields.clone();
    apart::note(&mut fields, &cached.cookies);
    let begun = Instant::now();
    let mut response = send(scope, work, request, record).await?;
    let mut told = Told {
        status: Some(response.status.as_u16()),
        ..Told::forwarded(CacheResult::Bypass, "method", Some(reason))
    };
    count(scope, cached, told.result, record);
    if !response.status.is_success() && !response.status.is_redirection() {
        told.tell(&mut response.fields);
        return Ok(response);
    }
    let clock = cache.clock(Instant::now());
    cache.change(&key, false, clock);
    let named = |field| {
        response
            .fields
            .get(field)
            .and_then(|to| key.same_origin(to, &cached.query))
    };
    let (location, content) = (named(Known::Location), named(Known::ContentLocation));
    for other in location.iter().chain(&content) {
        cache.change(other, false, clock);
    }
    let is_new_state =
        response.status == StatusCode::OK && content.is_some_and(|other| other.primary() == key.primary());
    let wanted = Wanted {
        method: Method::POST,
        by_content: false,
        cc,
        authorized,
        fields,
        key,
        stamp: cache.store.stamp(),
    };
    let at = fill::moment(cached, begun);
    let opened = is_new_state.then(|| fill::opening(cached, &wanted, &response, at));
    let Some(Ok((opening, place, None))) = opened else {
        told.tell(&mut response.fields);
        return Ok(response);
    };
    told.stored = true;
    told.ttl = Some(opening.meta.freshness.ttl(clock));
    told.tell(&mut response.fields);
    response.body = fill::share(cached, opening, place, response.body);
    Ok(response)
}

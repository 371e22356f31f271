//! Requests that no stored response answers: HEAD that has to be asked for, and methods that change things.

use std::sync::Arc;

use http::{Method, StatusCode};
use tokio::time::Instant;

use super::fill::{self, Wanted};
use super::status::Told;
use super::{Asked, PURGE_WAIT, Stored, count};
use crate::cache::apart;
use crate::cache::conditional;
use crate::cache::key::Key;
use crate::cache::reason::Reason;
use crate::fields::{Fields, Known};
use crate::proxy::error::ProxyError;
use crate::proxy::http::request::{Work, send};
use crate::proxy::http::{Response, Scope, respond};
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

/// The method PURGE, from who may use it.
pub async fn purge(scope: &Scope<'_>, cached: &Cached, key: Option<&Key>, record: &mut Record) -> Response {
    let source = scope.down.peer.ip.to_canonical();
    count(scope, cached, CacheResult::Bypass, record);
    if !cached.purge_sources.iter().any(|net| net.contains(&source)) {
        return respond::plain(StatusCode::FORBIDDEN, "PURGE is not for everybody");
    }
    let cache = &cached.cache;
    let purged = key.map(|key| cache.purge(key, false, cache.clock(record.started)));
    let (was, settling) = purged.unwrap_or_default();
    if let Err(e) = settling.settled(PURGE_WAIT).await {
        return respond::plain(
            StatusCode::INTERNAL_SERVER_ERROR,
            &format!("purged here, but behind memory: {e}"),
        );
    }
    let text = if was { "purged 1\n" } else { "purged 0\n" };
    let mut fields = Fields::default();
    fields.append_text("content-type", b"text/plain; charset=utf-8");
    respond::whole(StatusCode::OK, fields, text.into())
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
    let (_, mut settling) = cache.change(&key, false, clock);
    let named = |field| {
        response
            .fields
            .get(field)
            .and_then(|to| key.same_origin(to, &cached.query))
    };
    let (location, content) = (named(Known::Location), named(Known::ContentLocation));
    for other in location.iter().chain(&content) {
        settling.and(cache.change(other, false, clock).1);
    }
    // Whoever is told that it has changed does not see again what was before, were this process killed now. Where that cannot
    // be had, it is logged and counted there.
    let _ = settling.settled(PURGE_WAIT).await;
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
    let opened = opened
        .and_then(Result::ok)
        .filter(|(opening, _)| opening.part.is_none());
    let Some((opening, place)) = opened else {
        told.tell(&mut response.fields);
        return Ok(response);
    };
    told.stored = true;
    told.ttl = Some(opening.meta.freshness.ttl(clock));
    told.tell(&mut response.fields);
    response.body = fill::share(cached, opening, place, response.body);
    Ok(response)
}

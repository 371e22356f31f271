//! `POST /api/v1/purge`: forgets stored responses, or makes them stale, by URL, prefix, group, or all.

use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use tokio::time::Instant;

use super::body;
use super::respond::{Response, error, json};
use crate::cache::key::Key;
use crate::cache::query::Query;
use crate::cache::tier::Settling;
use crate::control::Operator;
use crate::snapshot::KeptCache;

/// For what is behind memory to have taken note.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What is asked for. Everything that is named is purged.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Purge {
    /// Default: every cache.
    cache: Option<String>,
    url: Names,
    prefix: Names,
    tag: Names,
    all: bool,
    /// Stale, not gone.
    soft: bool,
    /// Only count.
    dry_run: bool,
}

/// One or a list.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Names {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Names {
    fn list(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(name) => std::slice::from_ref(name),
            Self::Many(names) => names,
        }
    }
}

pub async fn answer(operator: &Operator, request: Request<Incoming>) -> Response {
    let purge: Purge = match body::json(request).await {
        Ok(purge) => purge,
        Err(response) => return response,
    };
    let named = [&purge.url, &purge.prefix, &purge.tag]
        .iter()
        .any(|names| !names.list().is_empty());
    if !named && !purge.all {
        return error(
            StatusCode::BAD_REQUEST,
            "name a `url`, a `prefix` or a `tag`, or say `all`",
        );
    }
    let snapshot = operator.current.get();
    let named = |kept: &&KeptCache| purge.cache.as_ref().is_none_or(|name| **name == *kept.cache.name);
    let caches: Vec<KeptCache> = snapshot.caches.iter().filter(named).cloned().collect();
    if caches.is_empty() {
        return error(StatusCode::NOT_FOUND, "there is no such cache");
    }
    let wrong = |url: &&String| Key::of_url(url, &Query::All).is_none();
    if let Some(url) = purge.url.list().iter().find(wrong) {
        return error(StatusCode::BAD_REQUEST, &format!("`{url}` is not an http or https URL"));
    }
    // Prefixes look at every key: not on the thread that answers health checks.
    let (dry_run, soft) = (purge.dry_run, purge.soft);
    let done = tokio::task::spawn_blocking(move || {
        let mut settling = Settling::default();
        let counts = caches
            .iter()
            .map(|kept| (kept.cache.name.to_string(), apply(kept, &purge, &mut settling)));
        let counts: serde_json::Map<String, serde_json::Value> = counts.collect();
        (counts, settling)
    });
    match done.await {
        Ok((counts, settling)) => {
            if let Err(e) = settling.settled(SETTLE_TIMEOUT).await {
                let text = format!("purged in memory, but what is kept behind it may come back after a restart: {e}");
                return error(StatusCode::INTERNAL_SERVER_ERROR, &text);
            }
            let total: u64 = counts.values().filter_map(serde_json::Value::as_u64).sum();
            tracing::info!(entries = total, soft, dry_run, "purged");
            json(
                StatusCode::OK,
                &serde_json::json!({ "entries": total, "caches": counts, "soft": soft, "dry_run": dry_run }),
            )
        }
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

/// How many entries were meant.
fn apply(kept: &KeptCache, purge: &Purge, settling: &mut Settling) -> serde_json::Value {
    let cache = &kept.cache;
    let now = cache.clock(Instant::now());
    let store = &cache.store;
    let mut count = 0;
    for key in purge.url.list().iter().filter_map(|url| Key::of_url(url, &kept.query)) {
        let was = match purge.dry_run {
            true => cache.contains(&key),
            false => {
                let (was, rest) = cache.purge(&key, purge.soft, now);
                settling.and(rest);
                was
            }
        };
        count += usize::from(was);
    }
    let mut add = |(n, rest): (usize, Settling)| {
        settling.and(rest);
        n
    };
    for tag in purge.tag.list().iter().map(String::as_bytes) {
        count += match purge.dry_run {
            true => store.tags.count(tag),
            false => add(cache.purge_tag(tag, purge.soft, now)),
        };
    }
    for prefix in purge.prefix.list().iter().map(String::as_bytes) {
        count += match purge.dry_run {
            true => store.purge_prefix(prefix, purge.soft, now, true),
            false => add(cache.purge_prefix(prefix, purge.soft, now)),
        };
    }
    if purge.all {
        count += match purge.dry_run {
            true => store.len(),
            false => add(cache.purge_all(purge.soft, now)),
        };
    }
    count.into()
}

//! Caches: their sizes, and how each route uses one.

use std::path::PathBuf;

use super::Names;
use crate::cache::content::ByContent;
use crate::cache::store::largest;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::plan::{Cache, CacheDisk, CacheUse};
use crate::config::schema::Schema;
use crate::config::schema::cache::{ContentKind, Reference, Usage};

pub fn compile(cx: &Context<'_>, schema: &Schema) -> Vec<Cache> {
    let mut planned = Vec::new();
    let mut folders = Vec::new();
    for cache in &schema.caches {
        let Some(memory) = cache.memory else { continue };
        check_entry(cx, &cache.usage, memory);
        if let Some(disk) = &cache.disk {
            check_folder(cx, &mut folders, &disk.path);
        }
        planned.push(Cache {
            name: cache.name.value.as_str().into(),
            memory,
            disk: cache.disk.as_ref().map(|disk| CacheDisk {
                path: disk.path.value.clone(),
                size: disk.size,
            }),
            query: cache.query.clone(),
            apart: cache.apart.clone(),
            cookies: cache.cookies.clone(),
        });
    }
    planned
}

/// How a route uses a cache; `None` when that was wrong.
pub fn used(cx: &Context<'_>, schema: &Schema, caches: &mut Names<'_>, reference: &Reference) -> Option<CacheUse> {
    let index = caches.resolve(cx, &reference.name)?;
    let cache = schema.caches.get(index)?;
    let memory = cache.memory?;
    check_entry(cx, &reference.usage, memory);
    let (own, shared) = (&reference.usage, &cache.usage);
    let max_entry = own.max_entry.as_ref().or(shared.max_entry.as_ref());
    let targets = own.targets.as_ref().or(shared.targets.as_ref());
    Some(CacheUse {
        cache: index,
        query: cache.query.clone(),
        apart: cache.apart.clone(),
        cookies: cache.cookies.clone(),
        purge_sources: cache.purge_sources.clone(),
        max_entry: max_entry.map_or(largest(memory), |found| found.value),
        heuristic: own.heuristic.or(shared.heuristic).unwrap_or(defaults::CACHE_HEURISTIC),
        stale_if_error: own
            .stale_if_error
            .or(shared.stale_if_error)
            .unwrap_or(defaults::CACHE_STALE_IF_ERROR),
        stale_while_revalidate: own
            .stale_while_revalidate
            .or(shared.stale_while_revalidate)
            .unwrap_or_default(),
        set_cookie: own.set_cookie.or(shared.set_cookie).unwrap_or(false),
        refresh_ahead: own.refresh_ahead.or(shared.refresh_ahead),
        jitter: own.jitter.or(shared.jitter).unwrap_or_default(),
        ranges: own.ranges.or(shared.ranges).unwrap_or_default(),
        by_content: by_content(cx, own, shared),
        targets: match targets {
            Some(names) => names.clone(),
            None => defaults::cache_targets(),
        },
    })
}

fn by_content(cx: &Context<'_>, own: &Usage, shared: &Usage) -> ByContent {
    let kinds = own.by_content.as_ref().or(shared.by_content.as_ref());
    let kinds = kinds.map_or(&[][..], |found| &found.value);
    let most = own.max_content.as_ref().or(shared.max_content.as_ref());
    let operations = own.operations.as_ref().or(shared.operations.as_ref());
    let graphql = kinds.contains(&ContentKind::Graphql);
    // What the cache says of its own holds for other routes, too.
    if let (Some(written), true) = (&own.max_content, kinds.is_empty()) {
        let error = Diagnostic::error(
            written.span,
            "`max_content` is for requests that are stored by their content",
        );
        cx.push(error.help("say which: `by_content = [\"query\", \"graphql\"]`"));
    }
    if let (Some(written), false) = (&own.operations, graphql) {
        let error = Diagnostic::error(written.span, "`operations` are GraphQL's");
        cx.push(error.help("say that its queries are stored: `by_content = [\"graphql\"]`"));
    }
    ByContent {
        query: kinds.contains(&ContentKind::Query),
        graphql,
        most: usize::try_from(most.map_or(defaults::CACHE_MAX_CONTENT, |found| found.value)).unwrap_or(usize::MAX),
        operations: operations.map_or(Box::default(), |found| found.value.as_slice().into()),
    }
}

/// Two caches would answer with what the other one stored.
fn check_folder<'a>(cx: &Context<'_>, folders: &mut Vec<&'a At<PathBuf>>, path: &'a At<PathBuf>) {
    if let Some(first) = folders.iter().find(|other| other.value == path.value) {
        let error = Diagnostic::error(path.span, "two caches cannot have one folder");
        let error = error.related(first.span, "it is this one's");
        cx.push(error.help("give each a folder of its own"));
    }
    folders.push(path);
}

/// What is larger than its share would push everything else out.
fn check_entry(cx: &Context<'_>, usage: &Usage, memory: u64) {
    if let Some(written) = &usage.max_entry
        && written.value > largest(memory)
    {
        let message = "`max_entry` is larger than a sixteenth of the cache's `memory`";
        let error = Diagnostic::error(written.span, message);
        cx.push(error.help("a cache of few large entries pushes each out by the next: raise `memory`"));
    }
}

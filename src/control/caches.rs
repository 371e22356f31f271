//! Caches as the snapshot has them, from what the plan says of them.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::Instant;

use crate::cache::Cache;
use crate::cache::apart::COOKIES;
use crate::cache::freshness::{Defaults, Heuristic};
use crate::cache::storable::Rules;
use crate::config::defaults;
use crate::config::plan::{self, Plan};
use crate::snapshot::{Cached, KeptCache};

/// Every cache with what its settings say of it.
pub fn kept(caches: &[Arc<Cache>], plan: &Plan) -> Vec<KeptCache> {
    let both = caches.iter().zip(&plan.caches);
    both.map(|(cache, plan)| KeptCache {
        cache: cache.clone(),
        memory: plan.memory,
        query: plan.query.clone(),
        apart: plan.apart.as_slice().into(),
        cookies: plan.cookies.as_slice().into(),
    })
    .collect()
}

/// How a route uses its cache.
pub fn used(used: &plan::CacheUse, caches: &[Arc<Cache>]) -> Option<Arc<Cached>> {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let most = seconds(used.heuristic);
    Some(Arc::new(Cached {
        cache: caches.get(used.cache)?.clone(),
        rules: Rules {
            defaults: Defaults {
                heuristic: (most > 0).then_some(Heuristic { most }),
                stale_if_error: seconds(used.stale_if_error),
                stale_while_revalidate: seconds(used.stale_while_revalidate),
            },
            set_cookie: used.set_cookie,
            targets: used.targets.as_slice().into(),
            apart: apart(used),
        },
        query: used.query.clone(),
        cookies: used.cookies.as_slice().into(),
        by_content: used.by_content.clone(),
        purge_sources: used.purge_sources.clone(),
        max_entry: used.max_entry,
        max_head: defaults::CACHE_MAX_HEAD,
    }))
}

fn apart(used: &plan::CacheUse) -> Box<[HeaderName]> {
    let cookies = (!used.cookies.is_empty()).then(|| COOKIES.clone());
    used.apart.iter().cloned().chain(cookies).collect()
}

/// After the swap: sizes, and what was stored under other keys.
pub fn settle(now: &[KeptCache], before: &[KeptCache]) {
    for kept in now {
        let cache = &kept.cache;
        cache.store.resize(kept.memory);
        let old = before.iter().find(|old| Arc::ptr_eq(&old.cache, cache));
        if old.is_some_and(|old| !kept.has_keys_of(old)) {
            cache.purge_all(false, cache.clock(Instant::now())).1.detach();
        }
    }
}

//! Caches as the snapshot has them, from what the plan says of them.

use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
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
            apart: used.apart.as_slice().into(),
        },
        query: used.query.clone(),
        purge_sources: used.purge_sources.clone(),
        max_entry: used.max_entry,
        max_head: defaults::CACHE_MAX_HEAD,
    }))
}

//! Caches as the snapshot has them, from what the plan says of them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use tokio::time::Instant;

use crate::base::hash;
use crate::cache::Cache;
use crate::cache::apart::COOKIES;
use crate::cache::disk::{self, Disk};
use crate::cache::freshness::{Defaults, Heuristic};
use crate::cache::storable::Rules;
use crate::cache::tier::Tier;
use crate::config::defaults;
use crate::config::plan::{self, Plan};
use crate::snapshot::{Cached, KeptCache, KeptDisk};

/// Folders in use, by their path.
pub type Disks = HashMap<PathBuf, Arc<Disk>>;

/// Every cache with what its settings say of it.
pub fn kept(caches: &[Arc<Cache>], disks: &Disks, plan: &Plan) -> Vec<KeptCache> {
    let both = caches.iter().zip(&plan.caches);
    both.map(|(cache, plan)| KeptCache {
        cache: cache.clone(),
        memory: plan.memory,
        disk: disk_settings(plan).and_then(|settings| {
            Some(KeptDisk {
                disk: disks.get(&settings.path)?.clone(),
                settings,
            })
        }),
        query: plan.query.clone(),
        apart: plan.apart.as_slice().into(),
        cookies: plan.cookies.as_slice().into(),
    })
    .collect()
}

/// The folder behind `cache`: the one that is in use, or it is taken now. What its process was told before this one has lower
/// stamps.
pub fn disk(cache: &Cache, plan: &plan::Cache, old: &Disks) -> Result<Option<(PathBuf, Arc<Disk>)>, String> {
    let Some(settings) = disk_settings(plan) else {
        return Ok(None);
    };
    let disk = match old.get(&settings.path) {
        Some(known) => known.clone(),
        None => {
            let opened = Disk::open(&settings);
            Arc::new(opened.map_err(|e| format!("`[caches.{}]`: `disk`: {e}", plan.name))?)
        }
    };
    cache.store.begin_stamps(disk.stamp());
    Ok(Some((settings.path, disk)))
}

fn disk_settings(plan: &plan::Cache) -> Option<disk::Settings> {
    let disk = plan.disk.as_ref()?;
    let keys = format!("{:?}", (&plan.query, &plan.apart, &plan.cookies));
    Some(disk::Settings {
        path: disk.path.clone(),
        size: disk.size,
        memory: plan.memory,
        keys: hash::stable(keys.as_bytes()),
    })
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
        ahead: used.refresh_ahead,
        jitter: used.jitter,
        ranges: used.ranges,
        max_entry: used.max_entry,
        max_head: defaults::CACHE_MAX_HEAD,
    }))
}

fn apart(used: &plan::CacheUse) -> Box<[HeaderName]> {
    let cookies = (!used.cookies.is_empty()).then(|| COOKIES.clone());
    used.apart.iter().cloned().chain(cookies).collect()
}

/// After the swap: sizes, what is behind them, and what was stored under other keys.
pub fn settle(now: &[KeptCache], before: &[KeptCache]) {
    for kept in now {
        let cache = &kept.cache;
        cache.store.resize(kept.memory);
        let disk = kept.disk.iter().map(|kept| kept.disk.clone() as Arc<dyn Tier>);
        cache.tiers.set(disk.collect());
        let old = before.iter().find(|old| Arc::ptr_eq(&old.cache, cache));
        if old.is_some_and(|old| !kept.has_keys_of(old)) {
            cache.purge_all(false, cache.clock(Instant::now())).1.detach();
        }
        if let Some(kept) = &kept.disk {
            kept.disk.set(&kept.settings, cache.store.next_stamp());
        }
    }
}

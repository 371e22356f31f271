//! The response cache (RFC 9111): what may be stored and served is pure code here, the store and the fetches that many
//! wait for are shared by all workers. How a request uses it stands in `proxy/http/cache.rs`.

pub mod conditional;
pub mod date;
pub mod directives;
pub mod entry;
pub mod fill;
pub mod freshness;
pub mod head;
pub mod key;
pub mod query;
pub mod range;
pub mod reason;
pub mod storable;
pub mod store;
pub mod structured;
pub mod tags;
pub mod vary;

use std::sync::Arc;

use tokio::time::Instant;

use self::fill::Fills;
use self::key::Key;
use self::store::Store;
use crate::telemetry::series::CacheSeries;

/// One cache, as the configuration names it: what outlives reloads.
#[derive(Debug)]
pub struct Cache {
    pub name: Arc<str>,
    pub store: Store,
    pub fills: Arc<Fills>,
    pub series: CacheSeries,
    /// Where its clock begins.
    epoch: Instant,
}

impl Cache {
    /// `memory`: bytes for everything it keeps.
    pub fn new(name: Arc<str>, memory: u64, workers: usize) -> Self {
        Self {
            name,
            store: Store::new(memory),
            fills: Arc::default(),
            series: CacheSeries::new(workers),
            epoch: Instant::now(),
        }
    }

    /// Milliseconds; below 0 before it was made.
    pub fn clock(&self, at: Instant) -> i64 {
        match at.checked_duration_since(self.epoch) {
            Some(since) => since.as_millis() as i64,
            None => -((self.epoch - at).as_millis() as i64),
        }
    }

    /// Forgets a URL, or makes it stale. `true`: there was something.
    pub fn purge(&self, key: &Key, soft: bool, clock: i64) -> bool {
        let was = self.store.purge(key, soft, clock);
        self.fills.purge(key);
        was
    }
}

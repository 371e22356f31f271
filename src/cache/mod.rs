//! The response cache (RFC 9111): what may be stored and served is pure code here, the store and the fetches that many
//! wait for are shared by all workers. How a request uses it stands in `proxy/http/cache.rs`.

pub mod ahead;
pub mod apart;
pub mod conditional;
pub mod content;
pub mod date;
pub mod directives;
pub mod disk;
pub mod entry;
pub mod explain;
pub mod fill;
pub mod freshness;
pub mod graphql;
pub mod head;
pub mod key;
pub mod query;
pub mod range;
pub mod reason;
pub mod recall;
pub mod record;
pub mod search;
pub mod storable;
pub mod store;
pub mod structured;
pub mod tags;
pub mod tier;
pub mod vary;

use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use self::content::Operations;
use self::fill::Fills;
use self::key::Key;
use self::search::{Rule, Searches};
use self::store::{Found, Store};
use self::tier::Tiers;
use self::vary::Vary;
use crate::base::rng::Rng;
use crate::fields::Fields;
use crate::telemetry::series::CacheSeries;
use crate::telemetry::shard::Sharded;

/// One cache, as the configuration names it: what outlives reloads.
#[derive(Debug)]
pub struct Cache {
    pub name: Arc<str>,
    pub store: Store,
    pub fills: Arc<Fills>,
    /// What is kept behind memory, and who reads it now.
    pub tiers: Tiers,
    pub recalls: Arc<Fills>,
    searches: Searches,
    /// By worker.
    pub operations: Sharded<Operations>,
    pub series: CacheSeries,
    /// What chance begins with.
    pub seed: u64,
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
            tiers: Tiers::default(),
            recalls: Arc::default(),
            searches: Searches::default(),
            operations: Sharded::new(workers),
            series: CacheSeries::new(workers),
            seed: Rng::from_entropy().next_u64(),
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

    /// Whether something is stored for a URL.
    pub fn contains(&self, key: &Key) -> bool {
        let query = Method::from_bytes(b"QUERY").ok();
        let by_content = query
            .iter()
            .chain([&Method::POST])
            .map(|method| key.with_content(method));
        let mut others = by_content.chain(self.searches.same(&self.store, key));
        self.store.contains(key) || others.any(|key| self.store.contains(&key))
    }

    /// What is there for `request`. `key` becomes the one it is stored by, or will be.
    pub fn find(&self, key: &mut Key, request: &Fields, now: i64) -> Found {
        key.restore();
        let Some(mut same) = self.searches.same(&self.store, key) else {
            return self.store.find(key, request, now);
        };
        let found = self.store.find(&mut same, request, now);
        // Of those that do not say that they answer for others there may be one for this very URL.
        if !matches!(found, Found::Entry(..))
            && let own @ Found::Entry(..) = self.store.find(key, request, now)
        {
            return own;
        }
        // The variant, if any, is no part of the URL.
        *key = same;
        found
    }

    /// Where a response with these fields belongs: `key` becomes its key. `None`: nowhere.
    pub fn place(&self, key: &mut Key, response: &Fields, vary: &Vary, request: &Fields) -> Option<()> {
        key.restore();
        key.text.truncate(key.primary);
        if let Some(rule) = Rule::of(response) {
            self.searches.note(&self.store, key, rule);
            if let Some(same) = self.searches.same(&self.store, key) {
                *key = same;
            }
        }
        self.store.place(key, vary, request)
    }
}

//! Where responses are kept behind memory: asked when that has nothing, told of every fill and every purge.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use super::record::Record;

/// What stands at a key, when that is known.
pub type Reading<'a> = Pin<Box<dyn Future<Output = Option<Record>> + Send + 'a>>;

/// A purge, until it holds whatever happens to this process. An error is for the operator.
pub type Settled = Pin<Box<dyn Future<Output = Result<(), String>> + Send>>;

/// One place behind memory. Workers and control call it: nothing in it may block.
pub trait Tier: Debug + Send + Sync {
    /// What stands at `key`, unless it was purged; what was made stale is. `None` also where that takes too long: it has a
    /// deadline of its own. Many who ask at once are one call. `fetches`: on `None` the origin is asked.
    fn read<'a>(&'a self, key: &'a [u8], fetches: bool) -> Reading<'a>;

    /// Keeps `record`, unless there is no room for it in line. A body may be one that is not in memory.
    fn write(&self, key: &[u8], record: &Record);

    /// The fetch that followed on `read` gives nothing that is kept.
    fn forgo(&self, _key: &[u8]) {}

    /// Holds at once for what is read here, whether the future is polled or not. `stamp`: entries with a lower one are
    /// meant.
    fn purge(&self, purge: &Purge, soft: bool, stamp: u64) -> Settled;

    /// Nothing follows: what it holds back is written, within about so long. Called when the process ends.
    fn close(&self, _most: Duration) {}

    /// Others write to it: it may have a newer one of what is stale here.
    fn is_shared(&self) -> bool {
        false
    }
}

/// What is purged.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Purge {
    All,
    Tag(Box<[u8]>),
    Prefix(Box<[u8]>),
    /// A URL's key, with all its variants.
    Url(Box<[u8]>),
}

/// The tiers of a cache, in the order they are asked.
#[derive(Debug, Default)]
pub struct Tiers(ArcSwap<Vec<Arc<dyn Tier>>>);

impl Tiers {
    pub fn is_empty(&self) -> bool {
        self.0.load().is_empty()
    }

    pub fn list(&self) -> Arc<Vec<Arc<dyn Tier>>> {
        self.0.load_full()
    }

    pub fn set(&self, tiers: Vec<Arc<dyn Tier>>) {
        self.0.store(Arc::new(tiers));
    }

    /// Whether others write to one.
    pub fn are_shared(&self) -> bool {
        self.0.load().iter().any(|tier| tier.is_shared())
    }

    /// Told to all, or to those that are this process's alone.
    pub fn purge(&self, purge: &Purge, soft: bool, stamp: u64, own: bool) -> Settling {
        let tiers = self.0.load();
        let meant = tiers.iter().filter(|tier| !own || !tier.is_shared());
        Settling(meant.map(|tier| tier.purge(purge, soft, stamp)).collect())
    }

    /// When the process ends.
    pub fn close(&self, most: Duration) {
        self.0.load().iter().for_each(|tier| tier.close(most));
    }

    pub fn forgo(&self, key: &[u8]) {
        self.0.load().iter().for_each(|tier| tier.forgo(key));
    }
}

/// Purges on their way to the tiers. They go there also when this is dropped.
#[must_use = "until it has settled, a purge may be lost with the process"]
#[derive(Default)]
pub struct Settling(Vec<Settled>);

impl Settling {
    pub fn and(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Nobody waits for it.
    pub fn detach(self) {}

    /// Waits until they hold, at most so long.
    pub async fn settled(self, most: Duration) -> Result<(), String> {
        if self.0.is_empty() {
            return Ok(());
        }
        let until = Instant::now() + most;
        let mut result = Ok(());
        for settled in self.0 {
            let done = tokio::time::timeout_at(until, settled).await;
            let done = done.unwrap_or_else(|_| Err(format!("no answer within {most:?}")));
            result = result.and(done);
        }
        result
    }
}

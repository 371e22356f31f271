//! The immutable running world that the data path reads, built by control and swapped as one.

pub mod current;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, StatusCode};
use ipnet::IpNet;

use crate::cache::Cache;
use crate::cache::ahead::{Ahead, Thousandths};
use crate::cache::content::ByContent;
use crate::cache::disk::{self, Disk};
use crate::cache::query::Query;
use crate::cache::range::Misses;
use crate::cache::storable::Rules;
use crate::fields::Fields;
use crate::h1::desync;
use crate::h1::head::Limits;
use crate::net::relay;
use crate::policy::hedge::After;
use crate::policy::queue::Importance;
use crate::route::{HostPattern, Matcher, Table};
use crate::telemetry::series::{ListenerSeries, RequestSeries};
use crate::tls::server::BySni;
use crate::upstream::Upstream;

/// One consistent world. A request holds the one it started with.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Counts accepted configurations, from 1.
    pub generation: u64,
    /// By slot: a listener keeps its slot for as long as it exists, and a slot is never used for another.
    pub listeners: Vec<Option<Arc<Listener>>>,
    /// As they were when a reload removed them, until their last connection is gone.
    pub removed: Vec<Arc<Listener>>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub caches: Vec<KeptCache>,
    pub access_log: bool,
}

/// A listener as connections see it.
#[derive(Debug)]
pub struct Listener {
    pub name: Arc<str>,
    pub slot: usize,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What `tls` chooses from.
    pub certificates: Option<Arc<BySni>>,
    /// For the whole TLS handshake, and the first bytes of what is peeked at.
    pub handshake_timeout: Duration,
    pub max_connections: usize,
    pub live: Arc<Live>,
    pub serve: Serve,
}

/// What of a listener outlives reloads.
#[derive(Debug)]
pub struct Live {
    pub series: ListenerSeries,
    /// Connections now, over all workers: for `max_connections`.
    active: AtomicUsize,
    /// Connections per source address, only counted where a limit is set.
    pub sources: std::sync::Mutex<std::collections::HashMap<std::net::IpAddr, usize>>,
    pub max_per_source: AtomicUsize,
}

#[derive(Debug)]
pub enum Serve {
    Http(Http),
    Tcp(Tcp),
}

#[derive(Debug)]
pub struct Http {
    pub limits: Limits,
    pub desync: desync::Mode,
    pub trusted_proxies: Vec<IpNet>,
    pub max_body: Option<u64>,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub body_timeout: Duration,
    pub write_timeout: Duration,
    /// Bytes per second a client must move in the long run while it is waited for; 0: any.
    pub min_rate: u64,
    pub tunnel_timeout: Duration,
    pub max_streams: u32,
    pub max_requests: Option<u64>,
    /// Where clients say how much time a request has, beside `grpc-timeout`.
    pub deadline_header: Option<HeaderName>,
    pub table: Arc<Table>,
    /// What `table` finds.
    pub routes: Vec<Route>,
    /// Requests that no route takes.
    pub unrouted: Arc<RequestSeries>,
}

#[derive(Debug)]
pub struct Tcp {
    pub upstream: Option<Arc<Upstream>>,
    pub sni: Vec<(HostPattern, Arc<Upstream>)>,
    pub limits: relay::Limits,
}

/// A route as one listener sees it.
#[derive(Debug)]
pub struct Route {
    pub name: Arc<str>,
    /// As written, for who explains: requests are matched by the listener's `table`.
    pub matcher: Arc<Matcher>,
    pub action: Action,
    /// Of this listener and route; for `Forward` the counters stand with each upstream.
    pub series: Arc<RequestSeries>,
}

#[derive(Debug)]
pub enum Action {
    Forward(Forward),
    Redirect {
        to: String,
        status: StatusCode,
    },
    Respond {
        status: StatusCode,
        headers: Fields,
        body: Bytes,
    },
}

#[derive(Debug)]
pub struct Forward {
    /// Cumulative weights; the last is the sum of all.
    pub split: Vec<Share>,
    pub timeout: Option<Duration>,
    pub max_duration: Option<Duration>,
    pub importance: Importance,
    /// A second attempt beside one that takes long.
    pub hedge: Option<After>,
    pub max_body: Option<u64>,
    pub cache: Option<Arc<Cached>>,
}

/// A cache with what its settings say of it as a whole.
#[derive(Debug, Clone)]
pub struct KeptCache {
    pub cache: Arc<Cache>,
    /// Bytes it may take.
    pub memory: u64,
    /// Behind it.
    pub disk: Option<KeptDisk>,
    /// Parameters in its keys.
    pub query: Query,
    /// Fields of requests and cookies in its keys.
    pub apart: Box<[HeaderName]>,
    pub cookies: Box<[String]>,
}

/// A folder behind a cache, and what its settings say of it.
#[derive(Debug, Clone)]
pub struct KeptDisk {
    pub disk: Arc<Disk>,
    pub settings: disk::Settings,
}

impl KeptCache {
    /// Whether what was stored with the settings of `before` may answer for requests that these settings tell apart.
    pub fn has_keys_of(&self, before: &Self) -> bool {
        (&self.query, &self.apart, &self.cookies) == (&before.query, &before.apart, &before.cookies)
    }
}

/// A route's cache and how it is used.
#[derive(Debug)]
pub struct Cached {
    pub cache: Arc<Cache>,
    pub rules: Rules,
    /// Parameters in its keys; others are not sent on.
    pub query: Query,
    /// Cookies in its keys.
    pub cookies: Box<[String]>,
    /// Requests that are stored by what they carry.
    pub by_content: ByContent,
    /// Who may purge by the method PURGE; empty: the method means nothing.
    pub purge_sources: Vec<IpNet>,
    /// When what is hot is renewed before it is stale; `None`: never.
    pub ahead: Option<Ahead>,
    /// By how much a lifetime may be shortened.
    pub jitter: Thousandths,
    /// How ranges of what is not stored are fetched.
    pub ranges: Misses,
    /// Bytes of a body, and of a head.
    pub max_entry: u64,
    pub max_head: usize,
}

#[derive(Debug)]
pub struct Share {
    pub up_to: u64,
    pub upstream: Arc<Upstream>,
    /// Of (listener, route, this upstream).
    pub series: Arc<RequestSeries>,
}

impl Snapshot {
    /// The listener in `slot`, also while a removed one finishes.
    pub fn listener(&self, slot: usize) -> Option<&Arc<Listener>> {
        let present = self.listeners.get(slot).and_then(Option::as_ref);
        present.or_else(|| self.removed.iter().find(|listener| listener.slot == slot))
    }

    /// Whether the listener in `slot` goes on.
    pub fn keeps(&self, slot: usize) -> bool {
        self.listeners.get(slot).is_some_and(Option::is_some)
    }
}

impl Listener {
    pub fn http(&self) -> Option<&Http> {
        match &self.serve {
            Serve::Http(http) => Some(http),
            Serve::Tcp(_) => None,
        }
    }
}

impl Live {
    pub fn new(workers: usize) -> Self {
        Self {
            series: ListenerSeries::new(workers),
            active: AtomicUsize::new(0),
            sources: std::sync::Mutex::default(),
            max_per_source: AtomicUsize::new(usize::MAX),
        }
    }

    /// Connections now.
    pub fn active(&self) -> usize {
        self.active.load(Relaxed)
    }

    /// Counts one connection until the guard is dropped; `None` when a limit is reached.
    pub fn admit(self: &Arc<Self>, max: usize, source: Option<std::net::IpAddr>) -> Option<Admitted> {
        if self.active.fetch_add(1, Relaxed) >= max {
            self.active.fetch_sub(1, Relaxed);
            return None;
        }
        let mut admitted = Admitted {
            live: self.clone(),
            source: None,
        };
        let per_source = self.max_per_source.load(Relaxed);
        if let (Some(source), true) = (source, per_source < usize::MAX) {
            let mut sources = self.sources.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let n = sources.entry(source).or_default();
            if *n >= per_source {
                // The guard is dropped on return and gives the connection count back.
                return None;
            }
            *n += 1;
            drop(sources);
            admitted.source = Some(source);
        }
        Some(admitted)
    }
}

/// One connection, counted against its listener's limits until dropped.
#[derive(Debug)]
pub struct Admitted {
    live: Arc<Live>,
    source: Option<std::net::IpAddr>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.live.active.fetch_sub(1, Relaxed);
        if let Some(source) = self.source {
            let mut sources = self
                .live
                .sources
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some(n) = sources.get_mut(&source) {
                *n -= 1;
                if *n == 0 {
                    sources.remove(&source);
                }
            }
        }
    }
}

impl Forward {
    /// The upstream that `roll`, below [`Self::total`], falls on.
    pub fn share(&self, roll: u64) -> Option<&Share> {
        let index = self.split.partition_point(|s| s.up_to <= roll);
        self.split.get(index).or(self.split.last())
    }

    pub fn total(&self) -> u64 {
        self.split.last().map_or(0, |s| s.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_count_connections_and_sources() {
        let live = Arc::new(Live::new(1));
        let source = Some([127, 0, 0, 1].into());
        let a = live.admit(2, source);
        let b = live.admit(2, source);
        assert!(a.is_some() && b.is_some() && live.admit(2, source).is_none());
        drop(a);
        live.max_per_source.store(1, Relaxed);
        let c = live.admit(3, source);
        assert!(c.is_some(), "the first two were not counted by source");
        assert!(live.admit(3, source).is_none());
        drop((b, c));
        assert!(live.sources.lock().unwrap().is_empty());
        assert_eq!(live.active.load(Relaxed), 0);
    }
}

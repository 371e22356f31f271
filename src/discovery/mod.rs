//! Where endpoints come from: sources that are asked again and again while the proxy runs.
//!
//! A source is a task that tells its [`feed`] what it finds. What it found last stays until it finds something
//! else: no failure of a source takes an endpoint away.

pub mod api;
pub mod consul;
pub mod dns;
pub mod feed;
pub mod file;
pub mod kubernetes;
pub mod name;
mod repeat;
pub mod srv;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use self::dns::Resolver;
use self::feed::Feed;
use crate::base::rng::Rng;
use crate::net::addr::EndpointAddr;

/// Nothing is asked more often than this, whatever happens.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Waits are shortened at random by up to this share, so that many proxies do not ask all at once.
const JITTER: f64 = 0.1;
/// More endpoints of one upstream are left out: whatever sources say, memory and probes stay bounded.
pub const MAX_ENDPOINTS: usize = 10_000;

/// An endpoint as it is listed, by the configuration or by a source.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub addr: EndpointAddr,
    /// 1 to 256; default 1.
    pub weight: u16,
    /// Used only while no other endpoint is up.
    pub backup: bool,
    /// 0 (default) comes first.
    pub priority: u8,
    pub zone: Option<Arc<str>>,
    /// It ends soon: it finishes what it does, and takes no new work.
    pub draining: bool,
}

impl Listed {
    /// With everything else as by default.
    pub fn at(addr: EndpointAddr) -> Self {
        Self {
            addr,
            weight: 1,
            backup: false,
            priority: 0,
            zone: None,
            draining: false,
        }
    }
}

/// Endpoints that are found as a whole list.
#[derive(Debug, Clone)]
pub enum Spec {
    /// The name of SRV records.
    Srv(String),
    File(PathBuf),
    Consul(consul::Spec),
    Kubernetes(kubernetes::Spec),
}

/// What a source has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer<T> {
    pub found: Vec<T>,
    /// How often in a row it has been said, since that was confirmed, that there is nothing any more. Those endpoints
    /// that are known to be down may go then; those that are well stay.
    pub denied: u32,
}

impl<T> From<Vec<T>> for Answer<T> {
    fn from(found: Vec<T>) -> Self {
        Self { found, denied: 0 }
    }
}

/// What a source is started with.
pub struct Start {
    pub resolver: Arc<Resolver>,
    /// The longest that an answer of DNS is believed.
    pub longest: Duration,
    /// Notified when a connection to one of the endpoints fails.
    pub doubt: Arc<Notify>,
    /// To be notified of news.
    pub changed: Arc<Notify>,
    /// What is believed until there is an answer.
    pub known: Option<Arc<Answer<Listed>>>,
}

/// Watches a list until the feed is dropped. Must be called in a tokio runtime.
pub fn watch(spec: &Spec, start: Start) -> Feed<Answer<Listed>> {
    match spec {
        Spec::Srv(name) => srv::watch(name, start),
        Spec::File(path) => file::watch(path, start),
        Spec::Consul(spec) => consul::watch(spec, start),
        Spec::Kubernetes(spec) => kubernetes::watch(spec, start),
    }
}

/// A zone as a source names it; empty is none, and a very long one is none that anybody has.
fn zone(name: &str) -> Option<Arc<str>> {
    (1..=128).contains(&name.len()).then(|| name.into())
}

/// How long to wait after the `failures`th failure in a row (from 1): 1 s, 2 s, 4 s … `longest`.
fn back_off(failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(31);
    MIN_WAIT.saturating_mul(1 << doublings).min(longest).max(MIN_WAIT)
}

/// `wait` with jitter, at least a second.
fn jittered(wait: Duration, rng: &mut Rng) -> Duration {
    rng.shortened(wait, JITTER).max(MIN_WAIT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn waits_stay_within_their_bounds(longest in 1u64..1 << 20, failures in 1u32.., seed: u64) {
            let longest = Duration::from_secs(longest);
            let wait = back_off(failures, longest);
            prop_assert!(wait >= MIN_WAIT && wait <= longest);
            prop_assert!(wait <= back_off(failures.saturating_add(1), longest));
            let jittered = jittered(wait, &mut crate::base::rng::Rng::new(seed));
            prop_assert!(jittered >= MIN_WAIT && jittered <= wait && jittered >= wait.mul_f64(1.0 - JITTER));
        }
    }
}

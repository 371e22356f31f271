//! A group of endpoints at work: who is in it, who may be picked now, how connections are made.

mod admit;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

pub use self::admit::{Limits, Refused, Shed};
use self::group::{Group, Subsets};
pub use self::order::Order;
use self::shadow::Sampling;
use self::shares::Shares;
use crate::balance::spread::Spread;
use crate::balance::{Memory, PickContext, Spec};
use crate::endpoint::duty::Duty;
use crate::endpoint::latency::Sample;
use crate::endpoint::{Active, Health, State};
use crate::policy::budget::Repeating;
use crate::policy::quantile::Quantile;
use crate::policy::retry;
use crate::pool::Dialer;
use crate::sticky::{self, Bound, Sticky};
use crate::telemetry::series::UpstreamSeries;
use crate::telemetry::shard::WorkerId;

mod group;
mod order;
pub mod shadow;
mod shares;

/// Charged to an endpoint that fails before any has answered.
const UNKNOWN_P99: Duration = Duration::from_secs(1);

/// How an attempt ended, for the balancing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Answered,
    /// No answer, or one that tells of failure or overload.
    Failed,
    /// The client did not wait for it.
    Unfinished,
}

/// How attempts at this upstream's endpoints are made.
#[derive(Debug, Clone)]
pub struct Settings {
    pub balance: Spec,
    /// The algorithm was chosen by who uses the upstream.
    pub auto: bool,
    pub spread: Spread,
    /// Threads that pick.
    pub workers: usize,
    /// A number of this host's own, for subsets.
    pub host: u64,
    /// From the request sent to the response head, per attempt.
    pub response_timeout: Duration,
    /// Longest pause within a response body.
    pub read_timeout: Duration,
    /// For connections of Layer 4 and tunnels after their endpoint began to drain. `None`: until they end.
    pub drain_timeout: Option<Duration>,
    /// Idle connections that each worker makes beforehand, for each endpoint.
    pub pool_min_idle: usize,
    /// When a failed attempt is followed by another.
    pub retry: retry::Spec,
    /// Repetitions under way, whatever the snapshot.
    pub repeating: Arc<Repeating>,
    /// How long its answers take, where a route wants to know.
    pub p95: Option<Arc<Quantile>>,
    /// How much may be under way; `None`: any number.
    pub limits: Option<Limits>,
    /// Clients are bound to endpoints.
    pub sticky: Option<sticky::Spec>,
    /// How long work takes is known: routes lead here. Of connections at Layer 4 it is not, but for how long connecting
    /// took.
    pub timed: bool,
    /// Which picks are put to the other algorithms too; `None`: none.
    pub shadow: Option<Sampling>,
}

/// One endpoint's place in an upstream.
#[derive(Debug, Clone)]
pub struct Member {
    pub endpoint: Arc<State>,
    /// 1 to 256.
    pub weight: u16,
    /// Used only while no other endpoint is up.
    pub backup: bool,
    /// 0 comes first.
    pub priority: u8,
    pub zone: Option<Arc<str>>,
}

impl Member {
    /// Whether nobody keeps new work away from it.
    pub fn takes_work(&self) -> bool {
        self.endpoint.orders.duty() == Duty::Active && self.endpoint.orders.weight(self.weight) > 0
    }
}

/// A named group of endpoints with one balancing policy.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub settings: Settings,
    pub dialer: Arc<Dialer>,
    pub series: Arc<UpstreamSeries>,
    /// What the balancers of all its objects share.
    pub memory: Memory,
    /// Who of its clients is bound to whom.
    pub sticky: Option<Sticky>,
    /// Who belongs to it; health decides who of them is in `group`. Only control locks it.
    members: Mutex<Arc<[Member]>>,
    group: ArcSwap<Group>,
    /// Groups of before that some worker was picking from: freed here, not there, where it would take long.
    retired: Mutex<Vec<Arc<Group>>>,
}

impl Upstream {
    pub fn new(
        name: Arc<str>,
        settings: Settings,
        dialer: Arc<Dialer>,
        series: Arc<UpstreamSeries>,
        memory: Memory,
        members: Vec<Member>,
    ) -> Self {
        let group = ArcSwap::from_pointee(Group::default());
        let sticky = settings.sticky.as_ref().map(|spec| Sticky::new(spec, &name));
        let upstream = Self {
            name,
            settings,
            dialer,
            series,
            memory,
            sticky,
            members: Mutex::new(members.into()),
            group,
            retired: Mutex::default(),
        };
        upstream.bind_to(&upstream.members());
        upstream.refresh();
        upstream
    }

    /// The endpoints that belong to it, available or not.
    pub fn members(&self) -> Arc<[Member]> {
        self.lock().clone()
    }

    /// Replaces the endpoints (a name now resolves to others) and who may be picked.
    pub fn set_members(&self, members: Vec<Member>) {
        let mut current = self.lock();
        *current = members.into();
        self.bind_to(&current);
        self.publish(&current);
    }

    /// Looks at every endpoint's health and orders again and publishes who may be picked.
    pub fn refresh(&self) {
        self.publish(&self.lock());
    }

    /// An endpoint for one attempt, counted as active until the guard is dropped. `None`: nobody is
    /// available, or everybody was tried. `bound`: the client's own endpoint, which comes first; no algorithm is asked then.
    pub fn pick(&self, cx: &mut PickContext<'_>, bound: Option<Bound>) -> Option<Active> {
        let own = bound.and_then(|bound| self.sticky.as_ref()?.endpoint(bound, cx.tried));
        let active = match own {
            Some(endpoint) => endpoint.begin(),
            None => {
                let sampled = self.sampled(cx);
                self.group.load().pick(cx, sampled)?.begin()
            }
        };
        Some(match self.settings.balance.wants_total() {
            true => active.also_in(&self.memory.active),
            false => active,
        })
    }

    /// Takes in how an attempt by `worker` ended, where the balancing wants to know.
    ///
    /// A failure is charged at least the p99 of what this worker's answered attempts took, and at least what it took
    /// itself.
    pub fn report(&self, endpoint: &State, worker: WorkerId, now: Instant, took: Duration, end: End) {
        if !self.settings.balance.wants_latency() {
            return;
        }
        let tail = &self.series.local(worker).tail;
        endpoint.latency.observe(
            now,
            match end {
                End::Answered => {
                    tail.observe(took);
                    Sample::Answered(took)
                }
                End::Failed => Sample::Failed(tail.p99().unwrap_or(UNKNOWN_P99).max(took)),
                End::Unfinished => Sample::Longer(took),
            },
        );
    }

    /// Requests under way at those who may be picked.
    pub fn active(&self) -> u64 {
        let group = self.group.load();
        group.candidates().map(|c| u64::from(c.endpoint.active())).sum()
    }

    /// Whether too few endpoints are up, so that those that are down are used too.
    pub fn panics(&self) -> bool {
        self.group.load().panics
    }

    /// Whether some endpoint has not come to its whole weight yet: then [`Self::refresh`] again and again.
    pub fn is_ramping(&self) -> bool {
        self.group.load().ramps
    }

    /// Whether there is anybody to pick.
    pub fn is_available(&self) -> bool {
        !self.group.load().is_empty()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<[Member]>> {
        // A panic while it was held left a whole list behind: assignments cannot tear.
        self.members.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn subsets(&self) -> Option<Subsets> {
        let settings = &self.settings;
        settings.spread.subset.map(|size| Subsets {
            size,
            workers: settings.workers,
            host: settings.host,
        })
    }

    fn bind_to(&self, members: &[Member]) {
        if let Some(sticky) = &self.sticky {
            sticky.set_members(members.iter().map(|member| &member.endpoint));
        }
    }

    fn publish(&self, members: &[Member]) {
        let (settings, now) = (&self.settings, Instant::now());
        for member in members {
            match member.endpoint.standing() {
                Health::Up => member.endpoint.ramp.warm(now),
                Health::Down => member.endpoint.ramp.cool(),
                Health::Checking => {}
            }
        }
        let shares = Shares::of(members, &settings.spread, now);
        if shares.panics != self.panics() {
            let upstream = &*self.name;
            match shares.panics {
                true => tracing::warn!(upstream, "too few endpoints are up: all are used"),
                false => tracing::info!(
                    upstream,
                    "enough endpoints are up: those that are down are left out again"
                ),
            }
        }
        let group = Group::new(shares, &settings.balance, self.subsets(), &self.memory);
        let old = self.group.swap(Arc::new(group));
        let mut retired = self.retired.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        retired.push(old);
        retired.retain(|group| Arc::strong_count(group) > 1);
        drop(retired);
        // Who waits may find somebody new, or nobody any more.
        if let Some(limits) = &settings.limits {
            limits.gate.freed();
        }
    }
}

#[cfg(test)]
mod tests;

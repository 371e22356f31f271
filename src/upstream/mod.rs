//! A group of endpoints at work: who is in it, who may be picked now, how connections are made.

mod admit;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::admit::{Limits, Refused, Shed};
use crate::balance::{self, Balancer, Candidate, Cursor, PickContext, Spec};
use crate::endpoint::duty::Duty;
use crate::endpoint::{Active, Health, State};
use crate::policy::budget::Repeating;
use crate::policy::quantile::Quantile;
use crate::policy::retry;
use crate::pool::Dialer;
use crate::telemetry::series::UpstreamSeries;

/// How attempts at this upstream's endpoints are made.
#[derive(Debug, Clone)]
pub struct Settings {
    pub balance: Spec,
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
}

/// One endpoint's place in an upstream.
#[derive(Debug, Clone)]
pub struct Member {
    pub endpoint: Arc<State>,
    /// 1 to 256.
    pub weight: u16,
    /// Used only while no other endpoint is up.
    pub backup: bool,
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
    pub cursor: Cursor,
    /// Who belongs to it; health decides who of them is in `group`. Only control locks it.
    members: Mutex<Arc<[Member]>>,
    group: ArcSwap<Group>,
}

/// Who may be picked now, and by what.
#[derive(Debug)]
struct Group {
    candidates: Vec<Candidate>,
    /// `None`: nobody is available.
    balancer: Option<Box<dyn Balancer>>,
}

impl Upstream {
    pub fn new(
        name: Arc<str>,
        settings: Settings,
        dialer: Arc<Dialer>,
        series: Arc<UpstreamSeries>,
        cursor: Cursor,
        members: Vec<Member>,
    ) -> Self {
        let group = ArcSwap::from_pointee(Group {
            candidates: Vec::new(),
            balancer: None,
        });
        let upstream = Self {
            name,
            settings,
            dialer,
            series,
            cursor,
            members: Mutex::new(members.into()),
            group,
        };
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
        self.publish(&current);
    }

    /// Looks at every endpoint's health and orders again and publishes who may be picked.
    pub fn refresh(&self) {
        self.publish(&self.lock());
    }

    /// An endpoint for one attempt, counted as active until the guard is dropped. `None`: nobody is
    /// available, or everybody was tried.
    pub fn pick(&self, cx: &mut PickContext<'_>) -> Option<Active> {
        let group = self.group.load();
        let index = group.balancer.as_ref()?.pick(cx)?;
        group.candidates.get(index).map(|c| c.endpoint.begin())
    }

    /// Requests under way at those who may be picked.
    pub fn active(&self) -> u64 {
        let group = self.group.load();
        group.candidates.iter().map(|c| u64::from(c.endpoint.active())).sum()
    }

    /// Whether there is anybody to pick.
    pub fn is_available(&self) -> bool {
        self.group.load().balancer.is_some()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<[Member]>> {
        // A panic while it was held left a whole list behind: assignments cannot tear.
        self.members.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn publish(&self, members: &[Member]) {
        let candidates = available(members);
        let balancer =
            (!candidates.is_empty()).then(|| balance::build(&self.settings.balance, &candidates, self.cursor.clone()));
        self.group.store(Arc::new(Group { candidates, balancer }));
        // Who waits may find somebody new, or nobody any more.
        if let Some(limits) = &self.settings.limits {
            limits.gate.freed();
        }
    }
}

/// Of those that take work: endpoints that are up; else those not yet known, so that a start does not refuse; else
/// backups by the same rule; else those that are ejected, by the same rule: an ejection never takes the last one. Else
/// nobody: what is known to be down gets no traffic.
fn available(members: &[Member]) -> Vec<Candidate> {
    match by_standing(members, State::standing) {
        none if none.is_empty() => by_standing(members, State::health),
        found => found,
    }
}

fn by_standing(members: &[Member], standing: impl Fn(&State) -> Health) -> Vec<Candidate> {
    for backup in [false, true] {
        for health in [Health::Up, Health::Checking] {
            let found: Vec<_> = members
                .iter()
                .filter(|m| m.backup == backup && standing(&m.endpoint) == health && m.takes_work())
                .map(|m| Candidate {
                    endpoint: m.endpoint.clone(),
                    weight: m.endpoint.orders.weight(m.weight),
                })
                .collect();
            if !found.is_empty() {
                return found;
            }
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::addr::{DialAddr, EndpointAddr};

    fn member(id: u32, health: Health, backup: bool) -> Member {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1000 + id as u16));
        let state = State::new(id, DialAddr::Ip(addr), EndpointAddr::Ip(addr), health, 1);
        Member {
            endpoint: Arc::new(state),
            weight: 1,
            backup,
        }
    }

    #[test]
    fn up_before_unknown_before_backups_and_never_down() {
        use Health::{Checking, Down, Up};
        let ids = |members: &[Member]| available(members).iter().map(|c| c.endpoint.id).collect::<Vec<_>>();
        let all = [
            member(0, Up, false),
            member(1, Checking, false),
            member(2, Down, false),
            member(3, Up, true),
        ];
        assert_eq!(ids(&all), [0]);
        assert_eq!(ids(&all[1..]), [1]);
        assert_eq!(ids(&all[2..]), [3]);
        assert_eq!(ids(&all[2..3]), [0u32; 0]);
    }
}

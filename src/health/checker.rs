//! A health checker: asks one address in one way, adds up the answers, and tells every endpoint there.
//!
//! The same address in several upstreams with the same settings is one target: asked once, told to all.
//! Probes start at most `interval` apart (`interval_down`, `interval_changing` where they apply). So an endpoint
//! that begins to fail is out within `interval` + (`fall` - 1) × `interval_changing`, plus `timeout` for each where
//! it fails by silence.
//!
//! There are no bursts: first probes are spread over a time that grows with their number, the second comes after a
//! random part of the interval, so that from then on probes fall evenly over it, and what runs at once is bounded.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, info, warn};

use super::agent::Said;
use super::threshold::Threshold;
use super::{Failed, ProbeTls, Spec, Target, agent, probe};
use crate::base::rng::Rng;
use crate::base::task::{self, Handle};
use crate::endpoint::duty::By;
use crate::endpoint::record::Probed;
use crate::endpoint::{Health, State};
use crate::telemetry::series::ProbeResult;

/// The time over which the first probes of `n` checkers that start together are spread: some thousand a second.
pub fn spread(n: usize) -> Duration {
    Duration::from_micros(200).saturating_mul(u32::try_from(n).unwrap_or(u32::MAX))
}

/// What is asked, and how the target is connected to.
#[derive(Debug, Clone)]
pub struct Checked {
    pub spec: Spec,
    pub tls: Option<ProbeTls>,
    /// HTTP probes speak HTTP/2; otherwise they do where TLS agrees on it.
    pub h2: bool,
}

impl PartialEq for Checked {
    fn eq(&self, other: &Self) -> bool {
        let tls = match (&self.tls, &other.tls) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(&a.config, &b.config) && a.server_name == b.server_name,
            _ => false,
        };
        tls && self.h2 == other.h2 && self.spec == other.spec
    }
}

/// Somebody who has an endpoint where is asked.
#[derive(Debug, Clone)]
pub struct Watcher {
    /// The upstream's name.
    pub upstream: Arc<str>,
    pub endpoint: Arc<State>,
}

/// Told the upstream of every endpoint whose health changed, after the change. Must not block.
pub type Changed = Arc<dyn Fn(&Arc<str>) + Send + Sync>;

/// What all checkers share.
#[derive(Clone)]
pub struct Shared {
    /// Probes at once.
    pub permits: Arc<Semaphore>,
    pub changed: Changed,
}

/// A running checker; ends when it is dropped.
pub struct Checker {
    pub checked: Arc<Checked>,
    found: Arc<Found>,
    _task: Handle,
    _agent: Option<Handle>,
}

/// What has been found out, and who wants to know.
struct Found {
    inner: Mutex<Inner>,
    shared: Shared,
}

struct Inner {
    threshold: Threshold,
    /// What the agent has said, where there is one.
    said: Said,
    watchers: Vec<Watcher>,
}

impl Inner {
    /// What probes have found, unless the agent says that it is down.
    fn health(&self) -> Health {
        match self.said.down {
            Some(_) => Health::Down,
            None => self.threshold.health(),
        }
    }
}

impl Checker {
    /// Begins to ask `target` within `spread`. Must be called in a tokio runtime.
    ///
    /// Counting starts from the health the endpoints have: one that was up before a reload takes `fall` failures
    /// to go out.
    pub fn start(target: Target, checked: Checked, watchers: Vec<Watcher>, spread: Duration, shared: &Shared) -> Self {
        let checked = Arc::new(checked);
        let mut known = watchers.iter().map(|w| w.endpoint.health());
        let initial = known.find(|h| *h != Health::Checking);
        let spec = &checked.spec;
        let found = Arc::new(Found {
            inner: Mutex::new(Inner {
                threshold: Threshold::new(spec.rise, spec.fall, initial.unwrap_or(Health::Checking)),
                said: Said::default(),
                watchers: Vec::new(),
            }),
            shared: shared.clone(),
        });
        found.watch(watchers);
        let agent = checked.spec.agent.is_some().then(|| {
            let (target, checked, found) = (target.clone(), checked.clone(), found.clone());
            task::spawn(async move { listen(&target, &checked.spec, &found, Rng::from_entropy(), spread).await })
        });
        let (asked, told) = (checked.clone(), found.clone());
        let task = task::spawn(async move {
            // In a box: between two probes it takes no room.
            let ask = || Box::pin(probe(&target, &asked.spec, asked.tls.as_ref(), asked.h2));
            run(&asked.spec, &told, Rng::from_entropy(), spread, ask).await;
        });
        Self {
            checked,
            found,
            _task: task,
            _agent: agent,
        }
    }

    /// Tells these from now on.
    pub fn watch(&self, watchers: Vec<Watcher>) {
        self.found.watch(watchers);
    }
}

impl Found {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held left a whole value behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New watchers learn at once what is known.
    fn watch(&self, watchers: Vec<Watcher>) {
        let mut inner = self.lock();
        let health = inner.health();
        for watcher in &watchers {
            let endpoint = &watcher.endpoint;
            // Without an agent this takes back what one has said before a reload.
            if obey(endpoint, &inner.said) {
                (self.shared.changed)(&watcher.upstream);
            }
            if health != Health::Checking && endpoint.health() != health {
                let reason = "checked for another upstream".to_owned();
                endpoint
                    .record
                    .changed(endpoint.health().label(), health.label(), reason);
                endpoint.set_health(health);
                (self.shared.changed)(&watcher.upstream);
            }
        }
        inner.watchers = watchers;
    }

    /// Takes in one answer; how long until the next probe, from the start of this one.
    fn report(&self, result: Result<(), Failed>, took: Duration, spec: &Spec) -> Duration {
        let mut inner = self.lock();
        let before = inner.health();
        let consecutive = inner.threshold.against() + 1;
        inner.threshold.report(result.is_ok());
        let change = Some(inner.health()).filter(|after| *after != before);
        let failed = result.err();
        let probed = Probed {
            at: SystemTime::now(),
            took,
            result: failed.as_ref().map_or(ProbeResult::Passed, Failed::result),
            reason: failed.map(|failed| failed.to_string()),
        };
        for Watcher { upstream, endpoint } in &inner.watchers {
            endpoint.record.probed(probed.clone());
            let reason = probed.reason.as_deref();
            if let Some(health) = change {
                let why = reason.unwrap_or("probe passed").to_owned();
                endpoint.record.changed(before.label(), health.label(), why);
                endpoint.set_health(health);
                (self.shared.changed)(upstream);
            }
            tell(upstream, endpoint, change, reason, consecutive);
        }
        spec.interval(&inner.threshold)
    }

    /// Takes in one line of the agent.
    fn heard(&self, line: &[u8]) {
        let mut inner = self.lock();
        let before = inner.health();
        inner.said.take(line);
        let (after, inner) = (inner.health(), &*inner);
        for Watcher { upstream, endpoint } in &inner.watchers {
            let obeyed = obey(endpoint, &inner.said);
            if before != after {
                let reason = inner.said.down.as_deref();
                let why = reason.unwrap_or("its agent no longer says that it is down");
                endpoint.record.changed(before.label(), after.label(), why.to_owned());
                endpoint.set_health(after);
                tell(upstream, endpoint, Some(after), reason, 1);
            }
            if obeyed || before != after {
                (self.shared.changed)(upstream);
            }
        }
    }
}

/// Gives the endpoint the agent's orders; whether that changed anything.
pub fn obey(endpoint: &State, said: &Said) -> bool {
    let orders = &endpoint.orders;
    let (before, share) = (orders.duty_by(By::Agent), orders.agents_share());
    orders.set_agents_share(said.share);
    if orders.set_duty(By::Agent, said.duty) {
        let (from, to) = (before.label(), said.duty.label());
        endpoint.record.changed(from, to, "its agent says so".into());
        info!(endpoint = &*endpoint.label, from, to, "duty changed by the agent");
        return true;
    }
    share != said.share
}

/// Asks the agent, every interval.
async fn listen(target: &Target, spec: &Spec, found: &Found, mut rng: Rng, spread: Duration) {
    let Some(agent) = &spec.agent else { return };
    sleep(spread.min(spec.interval).mul_f64(rng.unit())).await;
    loop {
        let permit = found.shared.permits.acquire().await;
        let started = Instant::now();
        let answer = Box::pin(agent::ask(target, agent, spec.timeout)).await;
        drop(permit);
        match answer {
            Ok(line) => found.heard(&line),
            Err(failed) => debug!(endpoint = %target.configured, reason = %failed, "the agent does not answer"),
        }
        sleep_until(started + rng.shortened(spec.interval, spec.jitter)).await;
    }
}

/// The loop; `ask` is one probe and ends within the spec's `timeout`.
async fn run<A: Future<Output = Result<(), Failed>>>(
    spec: &Spec,
    found: &Found,
    mut rng: Rng,
    spread: Duration,
    ask: impl Fn() -> A,
) {
    sleep(spread.min(spec.interval).mul_f64(rng.unit())).await;
    let mut jitter = 1.0;
    loop {
        // Closed never: what is waited for is the end of another probe.
        let permit = found.shared.permits.acquire().await;
        let started = Instant::now();
        let result = ask().await;
        drop(permit);
        let interval = found.report(result, started.elapsed(), spec);
        sleep_until(started + rng.shortened(interval, jitter)).await;
        jitter = spec.jitter;
    }
}

/// One line per change, and one for developers per failure without.
fn tell(upstream: &str, endpoint: &State, change: Option<Health>, reason: Option<&str>, consecutive: u32) {
    let label = &*endpoint.label;
    match (change, reason) {
        (Some(_), None) => info!(
            upstream,
            endpoint = label,
            reason = "probe passed",
            consecutive,
            "endpoint up"
        ),
        (Some(_), Some(reason)) => warn!(upstream, endpoint = label, reason, consecutive, "endpoint down"),
        (None, Some(reason)) => debug!(upstream, endpoint = label, reason, "probe failed"),
        (None, None) => {}
    }
}

#[cfg(test)]
mod tests;

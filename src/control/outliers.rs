//! Outlier detectors at work: one task for each upstream, woken by alarms of the data path and by its own clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};

use crate::base::rng::Rng;
use crate::base::task::{self, Handle};
use crate::config::plan::Plan;
use crate::endpoint::{Health, State};
use crate::health::outlier::detector::{Decision, Detector, Seen, Totals};
use crate::snapshot::Snapshot;
use crate::telemetry::series::{HistogramSum, Outcome};
use crate::upstream::{Member, Upstream};

/// Between two looks lie at least so much time and so many times what the last took: a storm of failures at an
/// upstream that has nobody left to eject costs little.
const REST: Duration = Duration::from_millis(5);
const REST_SHARE: u32 = 10;

/// All detectors, by the name of their upstream. Each ends when it is dropped.
#[derive(Default)]
pub struct Outliers(HashMap<Arc<str>, Watch>);

struct Watch {
    watched: Arc<Watched>,
    _task: Handle,
}

struct Watched {
    alarm: Arc<Notify>,
    inner: Mutex<Inner>,
    began: Instant,
}

struct Inner {
    upstream: Arc<Upstream>,
    detector: Detector,
}

impl Outliers {
    /// Starts and ends detectors; what they know stays. Must be called in a tokio runtime.
    pub fn follow(&mut self, plan: &Plan, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.0);
        for (plan, upstream) in plan.upstreams.iter().zip(&snapshot.upstreams) {
            let known = old.remove(&plan.name);
            let Some(spec) = &plan.outlier else {
                release(upstream);
                continue;
            };
            let watch = match known {
                Some(watch) => {
                    let mut inner = watch.watched.lock();
                    inner.upstream = upstream.clone();
                    if inner.detector.spec() != spec {
                        inner.detector.set_spec(spec.clone());
                    }
                    drop(inner);
                    watch
                }
                None => {
                    let watched = Arc::new(Watched {
                        alarm: Arc::default(),
                        inner: Mutex::new(Inner {
                            upstream: upstream.clone(),
                            detector: Detector::new(spec.clone()),
                        }),
                        began: Instant::now(),
                    });
                    let task = watched.clone();
                    Watch {
                        watched,
                        _task: task::spawn(async move { task.run(Rng::from_entropy()).await }),
                    }
                }
            };
            for member in upstream.members().iter() {
                let streak = &member.endpoint.streak;
                streak.watch(spec.consecutive_5xx, spec.consecutive_gateway, &watch.watched.alarm);
            }
            // It may have to look sooner than it thought.
            watch.watched.alarm.notify_one();
            self.0.insert(plan.name.clone(), watch);
        }
    }
}

/// Detection was switched off: nobody would let them in again.
fn release(upstream: &Upstream) {
    let members = upstream.members();
    let mut any = false;
    for endpoint in members.iter().map(|m| &m.endpoint) {
        endpoint.streak.watch(0, 0, &Arc::default());
        if endpoint.streak.is_ejected() {
            endpoint.streak.readmit();
            endpoint
                .record
                .changed("ejected", endpoint.health().label(), "outlier detection is off".into());
            any = true;
        }
    }
    if any {
        upstream.refresh();
    }
}

impl Watched {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held left a whole value behind.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, mut rng: Rng) {
        loop {
            let next = self.lock().detector.next();
            let due = async {
                match next {
                    Some(next) => sleep_until(self.began + next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.alarm.notified() => {}
                () = due => {}
            }
            let started = Instant::now();
            self.look(started - self.began, &mut rng);
            sleep(REST.max(started.elapsed() * REST_SHARE)).await;
        }
    }

    fn look(&self, now: Duration, rng: &mut Rng) {
        let inner = &mut *self.lock();
        let members = inner.upstream.members();
        let compares = inner.detector.spec().compares();
        let seen: Vec<Seen> = members.iter().map(|m| seen(m, compares)).collect();
        let decisions = inner.detector.judge(now, &seen, rng);
        for decision in &decisions {
            let (Decision::Eject { id, .. } | Decision::Return { id }) = decision;
            if let Some(member) = members.iter().find(|m| m.endpoint.id == *id) {
                apply(&inner.upstream.name, &member.endpoint, decision);
            }
        }
        if !decisions.is_empty() {
            inner.upstream.refresh();
        }
    }
}

fn seen(member: &Member, compares: bool) -> Seen {
    let endpoint = &member.endpoint;
    Seen {
        id: endpoint.id,
        usable: endpoint.health() != Health::Down && member.takes_work(),
        totals: match compares {
            true => totals(endpoint),
            false => Totals::default(),
        },
        tripped: endpoint.streak.tripped(),
    }
}

fn totals(endpoint: &State) -> Totals {
    let mut totals = Totals::default();
    let mut latency = HistogramSum::default();
    for part in endpoint.series.parts() {
        part.latency.add_to(&mut latency);
        for outcome in Outcome::ALL {
            let n = part.outcome(outcome).get();
            match outcome {
                Outcome::Success => totals.successes += n,
                Outcome::ServerError => totals.server_errors += n,
                outcome if outcome.is_gateway_failure() => totals.gateway += n,
                _ => {}
            }
        }
    }
    totals.latency_us = latency.sum_us;
    totals
}

fn apply(upstream: &str, endpoint: &State, decision: &Decision) {
    let label = &*endpoint.label;
    let health = endpoint.health().label();
    match decision {
        Decision::Eject {
            reason,
            detail,
            time,
            times,
            ..
        } => {
            endpoint.streak.eject(*reason, *time, *times);
            let detail = detail.as_str();
            let why = match detail {
                "" => reason.label().to_owned(),
                detail => format!("{}: {detail}", reason.label()),
            };
            endpoint.record.changed(health, "ejected", why);
            tracing::warn!(
                upstream,
                endpoint = label,
                reason = reason.label(),
                detail,
                ?time,
                times,
                "endpoint ejected"
            );
        }
        Decision::Return { .. } => {
            endpoint.streak.readmit();
            endpoint.record.changed("ejected", health, "its time is over".into());
            tracing::info!(upstream, endpoint = label, "endpoint returned");
        }
    }
}

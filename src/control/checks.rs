//! Health checkers in line with what is published: one for each address and way of asking, whoever has it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};

use crate::base::task::{self, Handle};
use crate::config::plan::{Plan, Upstream};
use crate::endpoint::Health;
use crate::health::agent::Said;
use crate::health::checker::{Checked, Checker, Shared, Watcher, obey, spread};
use crate::health::{Probe, ProbeTls, Target};
use crate::net::nofile;
use crate::pool::Protocol;
use crate::pool::dial::Tls;
use crate::snapshot::Snapshot;
use crate::snapshot::current::Current;
use crate::tls::{ClientSpec, client};

/// Probes at once; fewer where so many connections would take more than a quarter of the descriptors there are.
const MAX_PROBES: u64 = 4096;
/// Between two looks at the upstreams whose endpoints have changed lie at least so many times what the last took: a
/// change is seen at once, ten thousand together cost little more.
const REST: u32 = 10;

/// All checkers. Each ends when it is dropped.
pub struct Checks {
    shared: Shared,
    checkers: HashMap<Target, Vec<Checker>>,
    /// For handshakes that nobody verifies; made when first wanted.
    any_tls: Option<Arc<rustls::ClientConfig>>,
    _refresh: Handle,
}

/// Upstreams some of whose endpoints have changed.
#[derive(Default)]
struct Changed {
    upstreams: Mutex<HashSet<Arc<str>>>,
    news: Notify,
}

impl Checks {
    /// Must be called in a tokio runtime.
    pub fn new(current: Current) -> Self {
        let changed = Arc::new(Changed::default());
        let (refresh, tell) = (changed.clone(), changed);
        let permits = MAX_PROBES.min(nofile::raise() / 4).max(1);
        Self {
            shared: Shared {
                permits: Arc::new(Semaphore::new(permits as usize)),
                changed: Arc::new(move |upstream| {
                    let mut upstreams = tell.upstreams.lock().unwrap_or_else(PoisonError::into_inner);
                    upstreams.insert(upstream.clone());
                    tell.news.notify_one();
                }),
            },
            checkers: HashMap::new(),
            any_tls: None,
            _refresh: task::spawn(async move { refresh.run(&current).await }),
        }
    }

    /// Starts and ends checkers; those whose settings stay go on counting.
    pub fn follow(&mut self, plan: &Plan, snapshot: &Snapshot) {
        let mut wanted: HashMap<Target, Vec<(Checked, Vec<Watcher>)>> = HashMap::new();
        for (plan, upstream) in plan.upstreams.iter().zip(&snapshot.upstreams) {
            let Some(checked) = self.checked(plan, upstream) else {
                continue;
            };
            for member in upstream.members().iter() {
                let endpoint = member.endpoint.clone();
                let target = Target {
                    addr: endpoint.addr.clone(),
                    configured: endpoint.configured.clone(),
                };
                let watcher = Watcher {
                    upstream: plan.name.clone(),
                    endpoint,
                };
                let ways = wanted.entry(target).or_default();
                match ways.iter_mut().find(|(known, _)| *known == checked) {
                    Some((_, watchers)) => watchers.push(watcher),
                    None => ways.push((checked.clone(), vec![watcher])),
                }
            }
        }
        let mut old = std::mem::take(&mut self.checkers);
        let mut new = Vec::new();
        for (target, ways) in wanted {
            let mut known = old.remove(&target).unwrap_or_default();
            for (checked, watchers) in ways {
                match known.iter().position(|checker| *checker.checked == checked) {
                    Some(n) => {
                        let checker = known.swap_remove(n);
                        checker.watch(watchers);
                        self.checkers.entry(target.clone()).or_default().push(checker);
                    }
                    None => new.push((target.clone(), checked, watchers)),
                }
            }
        }
        let spread = spread(new.len());
        for (target, checked, watchers) in new {
            let checker = Checker::start(target.clone(), checked, watchers, spread, &self.shared);
            self.checkers.entry(target).or_default().push(checker);
        }
    }

    /// How the endpoints of an upstream are checked, if they are.
    fn checked(&mut self, plan: &Upstream, upstream: &crate::upstream::Upstream) -> Option<Checked> {
        let Some(spec) = &plan.health else {
            // Nobody would ever find such an endpoint well again.
            let members = upstream.members();
            let mut changed = false;
            for endpoint in members.iter().map(|m| &m.endpoint) {
                changed |= obey(endpoint, &Said::default());
                if endpoint.health() != Health::Up {
                    endpoint.set_health(Health::Up);
                    changed = true;
                }
            }
            if changed {
                upstream.refresh();
            }
            return None;
        };
        Some(Checked {
            spec: spec.clone(),
            tls: self.tls(&spec.probe, upstream.dialer.tls.as_ref()),
            h2: plan.protocol == Protocol::H2 && matches!(spec.probe, Probe::Http(_)),
        })
    }

    /// How `probe` speaks TLS to endpoints that requests are sent to by `upstream`.
    fn tls(&mut self, probe: &Probe, upstream: Option<&Tls>) -> Option<ProbeTls> {
        let own_name = match probe {
            Probe::Tls { server_name } => server_name.clone(),
            Probe::Exec(_) => return None,
            _ => None,
        };
        match upstream {
            Some(tls) => Some(ProbeTls {
                config: match probe.is_http() {
                    true => tls.http.clone(),
                    false => tls.raw.clone(),
                },
                server_name: own_name.or_else(|| tls.server_name.clone()),
            }),
            // TLS that passes through is for clients to verify: here is asked whether it is spoken at all.
            None if matches!(probe, Probe::Tls { .. }) => Some(ProbeTls {
                config: self.any_tls()?,
                server_name: own_name,
            }),
            None => None,
        }
    }

    fn any_tls(&mut self) -> Option<Arc<rustls::ClientConfig>> {
        if self.any_tls.is_none() {
            let spec = ClientSpec {
                ca: None,
                ca_path: None,
                server_name: None,
                client_certificate: None,
                verify: false,
                handshake_timeout: None,
            };
            let config = client::config(&spec, &[]).inspect_err(|error| tracing::error!(error, "no TLS for probes"));
            self.any_tls = config.ok();
        }
        self.any_tls.clone()
    }
}

impl Changed {
    /// Publishes anew who may be picked, wherever that changed.
    async fn run(&self, current: &Current) {
        loop {
            self.news.notified().await;
            let began = Instant::now();
            let changed = std::mem::take(&mut *self.upstreams.lock().unwrap_or_else(PoisonError::into_inner));
            // The upstreams of those names as they are now: a reload may have replaced the objects.
            let snapshot = current.get();
            let upstreams = snapshot.upstreams.iter().filter(|u| changed.contains(&u.name));
            upstreams.for_each(|upstream| upstream.refresh());
            let rest = began.elapsed() * REST;
            if rest >= Duration::from_millis(1) {
                sleep(rest).await;
            }
        }
    }
}

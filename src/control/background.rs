//! What runs beside the snapshot and belongs to it: health checkers.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::task::Handle;
use crate::config::plan::{Plan, Upstream};
use crate::endpoint::Health;
use crate::health::checker::{self, Checked};
use crate::health::{Probe, ProbeTls};
use crate::net::addr::DialAddr;
use crate::pool::Protocol;
use crate::pool::dial::Tls;
use crate::snapshot::Snapshot;
use crate::snapshot::current::Current;
use crate::tls::{ClientSpec, client};

/// Checkers by upstream and address. Each ends when it is dropped from its map.
pub struct Background {
    current: Current,
    checkers: HashMap<(Arc<str>, DialAddr), Checker>,
}

struct Checker {
    /// Of all that decides how endpoints are probed: what stays the same goes on counting.
    fingerprint: String,
    endpoint: u32,
    _task: Handle,
}

impl Background {
    pub fn new(current: Current) -> Self {
        Self {
            current,
            checkers: HashMap::new(),
        }
    }

    /// Brings checkers in line with what was published.
    pub fn follow(&mut self, plan: &Plan, snapshot: &Snapshot) {
        let mut old = std::mem::take(&mut self.checkers);
        for (plan, upstream) in plan.upstreams.iter().zip(&snapshot.upstreams) {
            self.check(plan, upstream, &mut old);
        }
    }

    fn check(
        &mut self,
        plan: &Upstream,
        upstream: &Arc<crate::upstream::Upstream>,
        old: &mut HashMap<(Arc<str>, DialAddr), Checker>,
    ) {
        let Some(spec) = &plan.health else {
            // Nobody would ever find such an endpoint well again.
            let members = upstream.members();
            let mut unchecked = members.iter().filter(|m| m.endpoint.health() != Health::Up).peekable();
            if unchecked.peek().is_some() {
                unchecked.for_each(|m| m.endpoint.set_health(Health::Up));
                upstream.refresh();
            }
            return;
        };
        let fingerprint = format!("{spec:?} {:?} {:?}", plan.protocol, Arc::as_ptr(&upstream.dialer));
        let checked = Arc::new(Checked {
            spec: spec.clone(),
            tls: tls(&spec.probe, upstream.dialer.tls.as_ref()),
            h2: plan.protocol == Protocol::H2,
            upstream: plan.name.clone(),
        });
        for member in upstream.members().iter() {
            let endpoint = &member.endpoint;
            let key = (plan.name.clone(), endpoint.addr.clone());
            let same = |c: &Checker| c.fingerprint == fingerprint && c.endpoint == endpoint.id;
            let checker = match old.remove(&key).filter(same) {
                Some(checker) => checker,
                None => {
                    let (current, name) = (self.current.clone(), plan.name.clone());
                    let changed = move || {
                        // The upstream of that name as it is now: a reload may have replaced the object.
                        if let Some(upstream) = current.get().upstreams.iter().find(|u| u.name == name) {
                            upstream.refresh();
                        }
                    };
                    Checker {
                        fingerprint: fingerprint.clone(),
                        endpoint: endpoint.id,
                        _task: checker::start(checked.clone(), endpoint.clone(), changed),
                    }
                }
            };
            self.checkers.insert(key, checker);
        }
    }
}

/// How `probe` speaks TLS to endpoints that requests are sent to by `upstream`.
fn tls(probe: &Probe, upstream: Option<&Tls>) -> Option<ProbeTls> {
    let own_name = match probe {
        Probe::Tls { server_name } => server_name.clone(),
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
        None if matches!(probe, Probe::Tls { .. }) => {
            // TLS that passes through is for clients to verify: here it is asked whether it is spoken at all.
            let spec = ClientSpec {
                ca: None,
                ca_path: None,
                server_name: None,
                client_certificate: None,
                verify: false,
                handshake_timeout: None,
            };
            let config = client::config(&spec, &[]).inspect_err(|error| tracing::error!(error, "no TLS for probes"));
            Some(ProbeTls {
                config: config.ok()?,
                server_name: own_name,
            })
        }
        None => None,
    }
}

//! From plan to snapshot: what the old world has and the new one wants is carried over by identity.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::caches::{self, Disks};
use super::dialers;
use super::members::Members;
use super::sources::Found;
use crate::base::hash;
use crate::cache::Cache;
use crate::config::plan::{self, Plan};
use crate::h1::head::Limits;
use crate::net::relay;
use crate::policy::budget::Repeating;
use crate::policy::hedge::After;
use crate::policy::quantile::Quantile;
use crate::policy::queue::Gate;
use crate::pool::Dialer;
use crate::route::Table;
use crate::snapshot::{Action, Forward, Http, Listener, Live, Route, Serve, Share, Snapshot, Tcp};
use crate::telemetry::series::{RequestSeries, UpstreamSeries};
use crate::tls::server;
use crate::tls::server::{BySni, Tickets};
use crate::upstream::shadow::{Ledger, Sampling};
use crate::upstream::{self, Member, Settings, Upstream};

/// A TLS handshake at Layer 4, and the most one may take at Layer 7.
const HANDSHAKE: Duration = Duration::from_secs(10);

const ALPN_BOTH: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What of a running world the next one takes over. Never edited: a build that fails leaves it as it was.
#[derive(Clone)]
pub struct World {
    workers: usize,
    /// A number of this host's own, the same after a restart.
    host: u64,
    generation: u64,
    tickets: Tickets,
    slots: HashMap<Arc<str>, (usize, Arc<Live>)>,
    next_slot: usize,
    found: Found,
    members: Members,
    requests: HashMap<[Arc<str>; 3], Arc<RequestSeries>>,
    upstreams: HashMap<Arc<str>, Kept>,
    caches: HashMap<Arc<str>, Arc<Cache>>,
    disks: Disks,
    removed: Vec<Arc<Listener>>,
}

/// What of an upstream outlives its object.
#[derive(Clone)]
struct Kept {
    series: Arc<UpstreamSeries>,
    repeating: Arc<Repeating>,
    memory: crate::balance::Memory,
    gate: Arc<Gate>,
    p95: Arc<Quantile>,
    ledger: Arc<Ledger>,
    dialer: Arc<Dialer>,
    /// Of all that decides how connections are made.
    fingerprint: u64,
}

impl World {
    pub fn new(workers: usize) -> Result<Self, String> {
        Ok(Self {
            workers,
            host: hash::stable(rustix::system::uname().nodename().to_bytes()),
            generation: 0,
            tickets: Tickets::new().map_err(|e| format!("no keys for TLS session tickets: {e}"))?,
            slots: HashMap::new(),
            next_slot: 0,
            found: Found::default(),
            members: Members::new(workers),
            requests: HashMap::new(),
            upstreams: HashMap::new(),
            caches: HashMap::new(),
            disks: Disks::new(),
            removed: Vec::new(),
        })
    }

    /// The slot of a listener that exists.
    pub fn slot(&self, name: &str) -> Option<usize> {
        self.slots.get(name).map(|(slot, _)| *slot)
    }

    /// The next world. `old`: the snapshot now in use, whose removed listeners may still have connections.
    pub fn build(&self, plan: &Plan, found: &Found, old: &Snapshot) -> Result<(Self, Snapshot), String> {
        let mut next = Self {
            generation: self.generation + 1,
            slots: HashMap::new(),
            found: found.clone(),
            requests: HashMap::new(),
            upstreams: HashMap::new(),
            caches: HashMap::new(),
            disks: Disks::new(),
            removed: self.removed.iter().filter(|l| l.live.active() > 0).cloned().collect(),
            ..self.clone()
        };
        next.members.keep(plan);
        let mut upstreams = Vec::with_capacity(plan.upstreams.len());
        for (n, upstream) in plan.upstreams.iter().enumerate() {
            upstreams.push(next.upstream(self, upstream, Uses::of(plan, n))?);
        }
        let caches = plan.caches.iter().map(|cache| next.cache(self, cache));
        let caches: Vec<_> = caches.collect::<Result<_, _>>()?;
        let shared = Shared {
            upstreams: &upstreams,
            caches: &caches,
        };
        let mut built = Vec::with_capacity(plan.listeners.len());
        for (index, listener) in plan.listeners.iter().enumerate() {
            built.push(next.listener(self, plan, index, listener, &shared)?);
        }
        let listeners = old.listeners.iter().flatten();
        let gone = listeners.filter(|l| !next.slots.contains_key(&l.name));
        next.removed.extend(gone.cloned());
        let mut listeners = vec![None; next.next_slot];
        for listener in built {
            let slot = listener.slot;
            listeners[slot] = Some(Arc::new(listener));
        }
        let snapshot = Snapshot {
            generation: next.generation,
            listeners,
            removed: next.removed.clone(),
            caches: caches::kept(&caches, &next.disks, plan),
            upstreams,
            access_log: plan.access_log.format.is_some(),
        };
        Ok((next, snapshot))
    }

    /// The members of those upstreams of `plan`, by position, of which `found` has news.
    pub fn follow(&mut self, plan: &Plan, found: Found) -> Vec<(usize, Vec<Member>)> {
        let upstreams = plan.upstreams.iter().enumerate();
        let changed = upstreams.filter(|(_, upstream)| found.differs(&self.found, upstream));
        let members = changed
            .map(|(n, upstream)| (n, self.members.of(upstream, &found)))
            .collect();
        self.found = found;
        members
    }

    fn upstream(&mut self, old: &Self, plan: &plan::Upstream, uses: Uses) -> Result<Arc<Upstream>, String> {
        let kept = old.upstreams.get(&plan.name);
        let fingerprint = dialers::fingerprint(plan);
        let kept = match kept {
            Some(kept) if kept.fingerprint == fingerprint => kept.clone(),
            _ => Kept {
                series: kept.map_or_else(|| Arc::new(UpstreamSeries::new(self.workers)), |k| k.series.clone()),
                repeating: kept.map_or_else(Default::default, |k| k.repeating.clone()),
                memory: kept.map_or_else(Default::default, |k| k.memory.clone()),
                gate: kept.map_or_else(Default::default, |k| k.gate.clone()),
                p95: kept.map_or_else(|| Arc::new(Quantile::new(0.95)), |k| k.p95.clone()),
                ledger: kept.map_or_else(Default::default, |k| k.ledger.clone()),
                dialer: Arc::new(dialers::new(plan)?),
                fingerprint,
            },
        };
        self.upstreams.insert(plan.name.clone(), kept.clone());
        let settings = Settings {
            balance: plan.balance.clone(),
            auto: plan.auto,
            spread: plan.spread.clone(),
            workers: self.workers,
            host: self.host,
            response_timeout: plan.response_timeout,
            read_timeout: plan.read_timeout,
            drain_timeout: plan.drain_timeout,
            pool_min_idle: plan.pool_min_idle,
            retry: plan.retry.clone(),
            repeating: kept.repeating.clone(),
            p95: uses.hedged.then(|| kept.p95.clone()),
            limits: plan.limits.as_ref().map(|limits| upstream::Limits {
                max_active: limits.max_active.unwrap_or(u32::MAX),
                queue: limits.queue,
                gate: kept.gate.clone(),
                adaptive: limits.adaptive.is_some(),
            }),
            sticky: plan.sticky.clone(),
            timed: uses.routed,
            shadow: plan.shadow_sample.map(|one_in| Sampling {
                one_in,
                ledger: kept.ledger.clone(),
            }),
        };
        let members = self.members.of(plan, &self.found);
        // Limits may be wider now, or gone.
        kept.gate.freed();
        let (
            name,
            Kept {
                dialer, series, memory, ..
            },
        ) = (plan.name.clone(), kept);
        Ok(Arc::new(Upstream::new(name, settings, dialer, series, memory, members)))
    }

    /// A cache keeps what is in it; a new size is for after the swap.
    fn cache(&mut self, old: &Self, plan: &plan::Cache) -> Result<Arc<Cache>, String> {
        let known = old.caches.get(&plan.name).cloned();
        let cache = known.unwrap_or_else(|| Arc::new(Cache::new(plan.name.clone(), plan.memory, self.workers)));
        self.disks.extend(caches::disk(&cache, plan, &old.disks)?);
        self.caches.insert(plan.name.clone(), cache.clone());
        Ok(cache)
    }

    fn listener(
        &mut self,
        old: &Self,
        plan: &Plan,
        index: usize,
        listener: &plan::Listener,
        shared: &Shared<'_>,
    ) -> Result<Listener, String> {
        let (slot, live) = match old.slots.get(&listener.name) {
            Some(known) => known.clone(),
            None => {
                let slot = self.next_slot;
                self.next_slot += 1;
                (slot, Arc::new(Live::new(self.workers)))
            }
        };
        self.slots.insert(listener.name.clone(), (slot, live.clone()));
        let per_source = listener.max_connections_per_source.unwrap_or(usize::MAX);
        live.max_per_source.store(per_source, Relaxed);
        let (serve, alpn, handshake_timeout) = match &listener.serve {
            plan::Serve::Http(http) => {
                let serve = Serve::Http(self.http(old, plan, index, &listener.name, http, shared));
                (serve, &ALPN_BOTH[..], http.header_timeout.min(HANDSHAKE))
            }
            plan::Serve::Tcp(tcp) => {
                let at = |index: &usize| shared.upstreams.get(*index).cloned();
                let serve = Serve::Tcp(Tcp {
                    upstream: tcp.upstream.as_ref().and_then(at),
                    sni: tcp
                        .sni
                        .iter()
                        .filter_map(|(name, i)| Some((name.clone(), at(i)?)))
                        .collect(),
                    limits: relay::Limits {
                        idle: tcp.idle_timeout,
                        half_close: tcp.half_close_timeout,
                    },
                });
                (serve, &[][..], HANDSHAKE)
            }
        };
        let (tls, certificates) = match &listener.tls {
            None => (None, None),
            Some(spec) => {
                let certificates = Arc::new(BySni::new(spec));
                let config = server::config(spec, &certificates, alpn, &self.tickets);
                let config = config.map_err(|e| format!("listener `{}`: TLS: {e}", listener.name))?;
                (Some(config), Some(certificates))
            }
        };
        Ok(Listener {
            name: listener.name.clone(),
            slot,
            tls,
            certificates,
            handshake_timeout,
            max_connections: listener.max_connections.unwrap_or(usize::MAX),
            live,
            serve,
        })
    }

    fn http(
        &mut self,
        old: &Self,
        plan: &Plan,
        index: usize,
        listener: &Arc<str>,
        http: &plan::Http,
        shared: &Shared<'_>,
    ) -> Http {
        let mine: Vec<&plan::Route> = plan.routes.iter().filter(|r| r.listeners.contains(&index)).collect();
        let matchers: Vec<_> = mine.iter().map(|r| &*r.matcher).collect();
        let none: Arc<str> = "".into();
        let routes = mine
            .iter()
            .map(|route| self.route(old, listener, route, shared))
            .collect();
        Http {
            limits: Limits {
                max_head: http.max_head,
                max_target: http.max_target,
                max_headers: http.max_headers,
            },
            desync: http.desync,
            trusted_proxies: http.trusted_proxies.clone(),
            max_body: http.max_body,
            header_timeout: http.header_timeout,
            idle_timeout: http.idle_timeout,
            body_timeout: http.body_timeout,
            write_timeout: http.write_timeout,
            min_rate: http.min_rate,
            tunnel_timeout: http.tunnel_timeout,
            max_streams: http.max_streams,
            max_requests: http.max_requests,
            deadline_header: http.deadline_header.clone(),
            table: Arc::new(Table::new(&matchers)),
            routes,
            unrouted: self.requests(old, [listener.clone(), none.clone(), none]),
        }
    }

    fn route(&mut self, old: &Self, listener: &Arc<str>, route: &plan::Route, shared: &Shared<'_>) -> Route {
        let action = match &route.action {
            plan::Action::Redirect(r) => Action::Redirect {
                to: r.to.clone(),
                status: r.status,
            },
            plan::Action::Respond(r) => Action::Respond {
                status: r.status,
                headers: (&r.headers).into(),
                body: r.body.clone(),
            },
            plan::Action::Forward(forward) => {
                let mut up_to = 0;
                let shares = forward.split.iter().filter_map(|(index, weight)| {
                    let upstream = shared.upstreams.get(*index)?.clone();
                    up_to += u64::from(*weight);
                    let key = [listener.clone(), route.name.clone(), upstream.name.clone()];
                    Some(Share {
                        up_to,
                        series: self.requests(old, key),
                        upstream,
                    })
                });
                Action::Forward(Forward {
                    split: shares.collect(),
                    timeout: forward.timeout,
                    max_duration: forward.max_duration,
                    importance: forward.importance,
                    hedge: forward.hedge,
                    max_body: forward.max_body,
                    cache: forward
                        .cache
                        .as_ref()
                        .and_then(|used| caches::used(used, shared.caches)),
                })
            }
        };
        let key = [listener.clone(), route.name.clone(), "".into()];
        Route {
            name: route.name.clone(),
            matcher: route.matcher.clone(),
            action,
            series: self.requests(old, key),
        }
    }

    fn requests(&mut self, old: &Self, key: [Arc<str>; 3]) -> Arc<RequestSeries> {
        let known = self.requests.get(&key).or_else(|| old.requests.get(&key)).cloned();
        let series = known.unwrap_or_else(|| Arc::new(RequestSeries::new(self.workers)));
        self.requests.insert(key, series.clone());
        series
    }
}

/// What routes do with an upstream.
#[derive(Clone, Copy)]
struct Uses {
    routed: bool,
    /// One wants to know how long answers take.
    hedged: bool,
}

impl Uses {
    fn of(plan: &Plan, n: usize) -> Self {
        let forwards = plan.routes.iter().filter_map(|route| match &route.action {
            plan::Action::Forward(forward) => Some(forward),
            _ => None,
        });
        let mut mine = forwards.filter(|forward| forward.split.iter().any(|(index, _)| *index == n));
        Self {
            routed: mine.clone().next().is_some(),
            hedged: mine.any(|forward| forward.hedge == Some(After::P95)),
        }
    }
}

/// What listeners and routes refer to.
struct Shared<'a> {
    upstreams: &'a [Arc<Upstream>],
    caches: &'a [Arc<Cache>],
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;

    fn plan(text: &str) -> Plan {
        load_text("test", text)
            .unwrap_or_else(|e| panic!("{}", e.render(false)))
            .plan
    }

    fn config(port: u16, endpoints: &str, health: &str) -> String {
        format!(
            "[listeners.web]\nbind = \"127.0.0.1:{port}\"\n[[routes]]\nname = \"all\"\nupstream = \"site\"\n\
             [upstreams.site]\nendpoints = [{endpoints}]\n{health}"
        )
    }

    #[test]
    fn what_stays_keeps_its_state_and_what_goes_is_forgotten() {
        let world = World::new(2).unwrap();
        let (none, resolved) = (Snapshot::default(), Found::default());
        let first = plan(&config(18080, "\"127.0.0.1:1\", \"127.0.0.1:2\"", ""));
        let (world, one) = world.build(&first, &resolved, &none).unwrap();
        let second = plan(&config(18081, "\"127.0.0.1:2\", \"127.0.0.1:3\"", ""));
        let (_, two) = world.build(&second, &resolved, &one).unwrap();

        assert_eq!((one.generation, two.generation), (1, 2));
        let members = |s: &Snapshot| s.upstreams[0].members();
        assert!(Arc::ptr_eq(&members(&one)[1].endpoint, &members(&two)[0].endpoint));
        assert_eq!(members(&two)[1].endpoint.id, 2, "ids are never used again");
        assert!(Arc::ptr_eq(&one.upstreams[0].dialer, &two.upstreams[0].dialer));
        let listener = |s: &Snapshot| s.listener(0).unwrap().clone();
        assert!(Arc::ptr_eq(&listener(&one).live, &listener(&two).live));
        let series = |s: &Snapshot| match &listener(s).http().unwrap().routes[0].action {
            Action::Forward(f) => f.split[0].series.clone(),
            _ => panic!(),
        };
        assert!(Arc::ptr_eq(&series(&one), &series(&two)));
    }

    #[test]
    fn a_removed_listener_stays_known_until_its_connections_end() {
        let text =
            |name: &str| config(18082, "\"127.0.0.1:1\"", "").replace("listeners.web", &format!("listeners.{name}"));
        let (none, resolved) = (Snapshot::default(), Found::default());
        let (world, one) = World::new(1)
            .unwrap()
            .build(&plan(&text("a")), &resolved, &none)
            .unwrap();
        let (world, two) = world.build(&plan(&text("b")), &resolved, &one).unwrap();
        assert!(!two.keeps(0) && two.keeps(1));
        let removed = two.listener(0).unwrap().clone();
        let connection = removed.live.admit(10, None);
        let (world, three) = world.build(&plan(&text("b")), &resolved, &two).unwrap();
        assert!(three.listener(0).is_some());
        drop(connection);
        let (_, four) = world.build(&plan(&text("b")), &resolved, &three).unwrap();
        assert!(four.listener(0).is_none());
    }
}

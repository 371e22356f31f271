//! `/api/v1/status`: the running world as JSON.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::caches::{self, CacheStatus};
use super::endpoints;
use super::shadow::{self, Shadow};
use super::sticky::{self, Sticky};
use crate::base::clock::coarse_ms;
use crate::control::Operator;
use crate::control::leaving::Former;
use crate::discovery::feed::Report;
use crate::endpoint::record;
use crate::h1::desync::Class;
use crate::snapshot::{Action, Listener, Route, Serve, Snapshot};
use crate::telemetry::reasons::ShedBy;
use crate::telemetry::series::{HistogramSum, Outcome};
use crate::upstream::Upstream;

#[derive(Debug, Serialize)]
pub struct Status {
    version: &'static str,
    /// Counts published configurations, from 1.
    generation: u64,
    /// `starting`, `ready` or `draining`.
    state: &'static str,
    started: String,
    uptime_seconds: u64,
    workers: usize,
    config: String,
    reloads: Reloads,
    listeners: Vec<ListenerStatus>,
    routes: Vec<RouteStatus>,
    upstreams: Vec<UpstreamStatus>,
    caches: Vec<CacheStatus>,
    /// Endpoints that belong to no upstream any more and still have work.
    leaving: Vec<Leaving>,
    /// Where the running world is otherwise than the configuration says, by order of an operator.
    deviations: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Leaving {
    upstream: String,
    address: String,
    active: u32,
}

#[derive(Debug, Serialize)]
struct Reloads {
    accepted: u64,
    rejected: u64,
    last: Option<LastReload>,
}

#[derive(Debug, Serialize)]
struct LastReload {
    at: String,
    result: &'static str,
    /// What changed, or every error.
    detail: String,
}

#[derive(Debug, Serialize)]
struct ListenerStatus {
    name: String,
    protocol: &'static str,
    addresses: Vec<String>,
    tls: bool,
    connections_active: usize,
    connections_total: u64,
    connections_refused: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// Of http listeners.
    desync: Option<Desync>,
}

#[derive(Debug, Serialize)]
struct Desync {
    /// `strict`, `defensive` or `monitor`.
    mode: &'static str,
    /// HTTP/1 requests by class.
    requests: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct RouteStatus {
    name: String,
    listeners: Vec<String>,
    /// `forward`, `redirect` or `respond`.
    action: &'static str,
    upstreams: Vec<String>,
    requests_total: u64,
}

#[derive(Debug, Serialize)]
struct UpstreamStatus {
    name: String,
    /// As configured.
    balance: &'static str,
    /// What `auto` came to.
    algorithm: &'static str,
    /// Whether any endpoint may be picked now.
    available: bool,
    /// Whether all endpoints are used, because too few are up.
    panic: bool,
    retries_total: u64,
    unavailable_total: u64,
    /// Of upstreams with a limit.
    queue: Option<Queue>,
    /// Of upstreams whose clients are bound to endpoints.
    sticky: Option<Sticky>,
    /// What the algorithms would do; `null`: nobody is asked.
    shadow: Option<Shadow>,
    /// Where its endpoints come from, beside those with a fixed address.
    sources: Vec<SourceStatus>,
    endpoints: Vec<EndpointStatus>,
}

#[derive(Debug, Serialize)]
struct SourceStatus {
    /// `dns`, `srv`, `file`, `consul` or `kubernetes`.
    kind: &'static str,
    source: String,
    last_success: Option<String>,
    /// The last failure, until an answer comes: what was found before it is used on.
    last_error: Option<SourceError>,
    updates: Updates,
}

#[derive(Debug, Serialize)]
struct SourceError {
    at: String,
    reason: String,
}

#[derive(Debug, Serialize)]
struct Updates {
    changed: u64,
    unchanged: u64,
    failed: u64,
}

#[derive(Debug, Serialize)]
struct Queue {
    active: u32,
    /// `null`: no limit of the upstream as a whole.
    max_active: Option<u32>,
    waiting: usize,
    /// Sent away, by reason.
    shed: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Serialize)]
struct EndpointStatus {
    address: String,
    /// As written in the configuration, where that is a name.
    configured: Option<String>,
    /// `checking`, `up` or `down`.
    health: &'static str,
    /// The last health check. `null`: none has ended.
    probe: Option<Probe>,
    /// `null`: live traffic has not taken it out.
    ejected: Option<Ejected>,
    /// The last changes of its health, the newest first.
    changes: Vec<Change>,
    /// `active`, `draining` or `disabled`, and who wants that.
    duty: &'static str,
    duty_by: Vec<&'static str>,
    /// As it is picked now, and as the configuration has it where that differs.
    weight: u16,
    weight_configured: Option<u16>,
    backup: bool,
    priority: u8,
    zone: Option<String>,
    active: u32,
    /// HTTP/1 connections at rest, and how long they may be, as far as that was learned from those it closed.
    idle: u64,
    idle_limit_seconds: Option<f64>,
    replays_total: u64,
    /// How many may be active now.
    limit: Option<u32>,
    /// All there are, and how many there may be.
    connections: u32,
    connections_limit: Option<u32>,
    attempts: BTreeMap<&'static str, u64>,
    latency: Option<Latency>,
}

#[derive(Debug, Serialize)]
struct Probe {
    at: String,
    took_seconds: f64,
    /// `passed`, `connect_failed`, `tls_failed`, `wrong_answer` or `timeout`.
    result: &'static str,
    /// Why it failed.
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct Ejected {
    reason: &'static str,
    until: String,
    /// The how-manieth in a row: the n-th lasts n times as long as the first.
    times: u32,
}

#[derive(Debug, Serialize)]
struct Change {
    at: String,
    from: &'static str,
    to: &'static str,
    reason: String,
}

/// Of the whole life of the process, interpolated within the histogram's buckets.
#[derive(Debug, Serialize)]
struct Latency {
    p50_seconds: f64,
    p90_seconds: f64,
    p99_seconds: f64,
}

pub fn of(operator: &Operator) -> Status {
    let snapshot = operator.current.get();
    let status = &operator.status;
    let (accepted, rejected) = status.reloads();
    let state = match (status.is_ready(), status.is_draining()) {
        (true, _) => "ready",
        (false, true) => "draining",
        (false, false) => "starting",
    };
    let listening = status.listening();
    let sources = status.sources();
    Status {
        version: env!("CARGO_PKG_VERSION"),
        generation: snapshot.generation,
        state,
        started: timestamp(status.started),
        uptime_seconds: status.started.elapsed().unwrap_or_default().as_secs(),
        workers: status.workers,
        config: status.config.clone(),
        reloads: Reloads {
            accepted,
            rejected,
            last: status.last_reload().map(|last| LastReload {
                at: timestamp(last.at),
                result: if last.result.is_ok() { "accepted" } else { "rejected" },
                detail: match last.result {
                    Ok(changes) => changes,
                    Err(rejected) => rejected.text,
                },
            }),
        },
        listeners: snapshot
            .listeners
            .iter()
            .flatten()
            .map(|l| listener(l, &listening))
            .collect(),
        routes: routes(&snapshot),
        upstreams: snapshot
            .upstreams
            .iter()
            .map(|u| upstream(u, sources.get(&u.name)))
            .collect(),
        caches: caches::of(&snapshot),
        leaving: leaving(status.leaving.list()),
        deviations: endpoints::deviations(&snapshot),
    }
}

fn listener(listener: &Listener, listening: &[(Arc<str>, String)]) -> ListenerStatus {
    let series = &listener.live.series;
    let mine = listening.iter().filter(|(name, _)| *name == listener.name);
    ListenerStatus {
        name: listener.name.to_string(),
        protocol: match &listener.serve {
            Serve::Http(_) => "http",
            Serve::Tcp(_) => "tcp",
        },
        addresses: mine.map(|(_, address)| address.clone()).collect(),
        tls: listener.tls.is_some(),
        connections_active: listener.live.active(),
        connections_total: series.sum(|s| &s.accepted),
        connections_refused: series.sum(|s| &s.refused),
        bytes_in: series.sum(|s| &s.bytes_in),
        bytes_out: series.sum(|s| &s.bytes_out),
        desync: listener.http().map(|http| Desync {
            mode: http.desync.label(),
            requests: Class::ALL
                .map(|class| (class.label(), series.sum(|s| &s.desync[class as usize])))
                .into(),
        }),
    }
}

/// A route is told once, however many listeners it is for.
fn routes(snapshot: &Snapshot) -> Vec<RouteStatus> {
    let mut routes: Vec<RouteStatus> = Vec::new();
    for listener in snapshot.listeners.iter().flatten() {
        for route in listener.http().iter().flat_map(|http| &http.routes) {
            let requests = requests(route);
            match routes.iter_mut().find(|known| known.name == *route.name) {
                Some(known) => {
                    known.listeners.push(listener.name.to_string());
                    known.requests_total += requests;
                }
                None => {
                    let (action, upstreams) = match &route.action {
                        Action::Forward(forward) => {
                            let names = forward.split.iter().map(|share| share.upstream.name.to_string());
                            ("forward", names.collect())
                        }
                        Action::Redirect { .. } => ("redirect", Vec::new()),
                        Action::Respond { .. } => ("respond", Vec::new()),
                    };
                    routes.push(RouteStatus {
                        name: route.name.to_string(),
                        listeners: vec![listener.name.to_string()],
                        action,
                        upstreams,
                        requests_total: requests,
                    });
                }
            }
        }
    }
    routes
}

fn requests(route: &Route) -> u64 {
    let mut series = vec![&route.series];
    if let Action::Forward(forward) = &route.action {
        series.extend(forward.split.iter().map(|share| &share.series));
    }
    series.sort_by_key(|s| Arc::as_ptr(s));
    series.dedup_by_key(|s| Arc::as_ptr(s));
    let parts = series.iter().flat_map(|s| s.parts());
    parts.flat_map(|part| part.codes()).map(|(_, n)| n).sum()
}

fn source(report: &Arc<Report>) -> SourceStatus {
    let state = report.state();
    SourceStatus {
        kind: report.kind,
        source: report.source.clone(),
        last_success: state.last_success.map(timestamp),
        last_error: state.last_error.map(|(at, reason)| SourceError {
            at: timestamp(at),
            reason,
        }),
        updates: Updates {
            changed: state.changed,
            unchanged: state.unchanged,
            failed: state.failed,
        },
    }
}

fn upstream(upstream: &Upstream, sources: Option<&Vec<Arc<Report>>>) -> UpstreamStatus {
    UpstreamStatus {
        name: upstream.name.to_string(),
        balance: match upstream.settings.auto {
            true => "auto",
            false => upstream.settings.balance.label(),
        },
        algorithm: upstream.settings.balance.label(),
        available: upstream.is_available(),
        panic: upstream.panics(),
        retries_total: upstream.series.sum(|s| &s.retries),
        unavailable_total: upstream.series.sum(|s| &s.unavailable),
        queue: upstream.settings.limits.as_ref().map(|limits| Queue {
            active: limits.gate.active(),
            max_active: Some(limits.max_active).filter(|max| *max < u32::MAX),
            waiting: limits.gate.waiting(),
            shed: ShedBy::ALL
                .map(|by| (by.label(), upstream.series.sum(|s| s.shed(by))))
                .into(),
        }),
        sticky: sticky::of(upstream),
        shadow: shadow::of(upstream),
        sources: sources.into_iter().flatten().map(source).collect(),
        endpoints: upstream
            .members()
            .iter()
            .map(|member| {
                let endpoint = &member.endpoint;
                let orders = &endpoint.orders;
                let weight = orders.weight(member.weight);
                let configured = endpoint.configured.to_string();
                let counted = |outcome| (Outcome::label(outcome), endpoint.series.sum(|s| s.outcome(outcome)));
                let mut latency = HistogramSum::default();
                endpoint
                    .series
                    .parts()
                    .for_each(|part| part.latency.add_to(&mut latency));
                EndpointStatus {
                    address: endpoint.label.to_string(),
                    configured: (configured != *endpoint.label).then_some(configured),
                    health: endpoint.health().label(),
                    probe: endpoint.record.last_probe().map(|probed| Probe {
                        at: timestamp(probed.at),
                        took_seconds: probed.took.as_secs_f64(),
                        result: probed.result.label(),
                        reason: probed.reason,
                    }),
                    ejected: endpoint.streak.ejection().map(|ejection| Ejected {
                        reason: ejection.reason.label(),
                        until: timestamp(ejection.until),
                        times: ejection.times,
                    }),
                    changes: endpoint.record.changes().into_iter().map(change).collect(),
                    duty: orders.duty().label(),
                    duty_by: endpoints::who(orders),
                    weight,
                    weight_configured: (weight != member.weight).then_some(member.weight),
                    backup: member.backup,
                    priority: member.priority,
                    zone: member.zone.as_deref().map(str::to_owned),
                    active: endpoint.active(),
                    idle: endpoint.series.sum(|s| &s.idle),
                    idle_limit_seconds: endpoint.idle.limit(coarse_ms()).map(|ms| f64::from(ms) / 1e3),
                    replays_total: endpoint.series.sum(|s| &s.replays),
                    limit: endpoint.limit.get(),
                    connections: endpoint.links.now(),
                    connections_limit: endpoint.links.limit(),
                    attempts: Outcome::ALL.into_iter().map(counted).collect(),
                    latency: quantiles(&latency),
                }
            })
            .collect(),
    }
}

fn leaving(all: Vec<Former>) -> Vec<Leaving> {
    let one = |(upstream, endpoint): Former| Leaving {
        upstream: upstream.to_string(),
        address: endpoint.label.to_string(),
        active: endpoint.active(),
    };
    all.into_iter().map(one).collect()
}

fn change(change: record::Change) -> Change {
    Change {
        at: timestamp(change.at),
        from: change.from,
        to: change.to,
        reason: change.reason,
    }
}

fn quantiles(sum: &HistogramSum) -> Option<Latency> {
    let at = |q| sum.quantile(q).map(|d: Duration| d.as_secs_f64());
    Some(Latency {
        p50_seconds: at(0.5)?,
        p90_seconds: at(0.9)?,
        p99_seconds: at(0.99)?,
    })
}

fn timestamp(time: SystemTime) -> String {
    let whole = OffsetDateTime::from(time).replace_nanosecond(0);
    whole
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

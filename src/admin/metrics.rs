//! `/metrics`: the counters of the running world as Prometheus text.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use http::StatusCode;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{TEXT_FORMAT, TextEncoder};

use super::respond::{Response, error, whole};
use crate::balance::NAMES;
use crate::cache::content::Operations;
use crate::control::Operator;
use crate::control::leaving::Former;
use crate::discovery::feed;
use crate::endpoint::Health;
use crate::endpoint::duty::Duty;
use crate::h1::desync::Class;
use crate::snapshot::{Action, Listener, Snapshot};
use crate::telemetry::names::{self, Name};
use crate::telemetry::reasons::{CutBy, Denied, Hedged, ShedBy, Stuck};
use crate::telemetry::series::{
    CacheResult, DURATION_BOUNDS_US, EjectReason, HistogramSum, Outcome, ProbeResult, RequestSeries,
};

pub fn response(operator: &Operator) -> Response {
    let mut families = families(operator);
    families.retain(|family| !family.get_metric().is_empty());
    match TextEncoder::new().encode_to_string(&families) {
        Ok(text) => whole(StatusCode::OK, TEXT_FORMAT, text),
        Err(e) => error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()),
    }
}

fn families(operator: &Operator) -> Vec<MetricFamily> {
    let snapshot = operator.current.get();
    let mut all = process(operator, &snapshot);
    all.extend(connections(&snapshot));
    all.extend(requests(&snapshot));
    all.extend(upstreams(&snapshot, &operator.status.leaving.list()));
    all.extend(limits(&snapshot));
    all.extend(shadows(&snapshot));
    all.extend(health(&snapshot));
    all.extend(caches(&snapshot));
    all.extend(disks(&snapshot));
    all.extend(discovery(operator, &snapshot));
    all.extend(ProcessCollector::for_self().collect());
    all
}

fn process(operator: &Operator, snapshot: &Snapshot) -> Vec<MetricFamily> {
    let status = &operator.status;
    let (accepted, rejected) = status.reloads();
    let last_failed = status.last_reload().is_some_and(|last| last.result.is_err());
    let mut build = Family::gauge(names::BUILD_INFO);
    build.add(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    let mut reloads = Family::counter(names::CONFIG_RELOADS);
    reloads.add(&[("result", "accepted")], accepted as f64);
    reloads.add(&[("result", "rejected")], rejected as f64);
    vec![
        build.0,
        Family::gauge(names::WORKERS).only(status.workers as f64),
        Family::gauge(names::CONFIG_GENERATION).only(snapshot.generation as f64),
        reloads.0,
        Family::gauge(names::CONFIG_LAST_RELOAD_SUCCESSFUL).only(f64::from(u8::from(!last_failed))),
        Family::gauge(names::DRAINING).only(f64::from(u8::from(status.is_draining()))),
        Family::counter(names::ACCESS_LOG_DROPPED).only(operator.dropped_lines() as f64),
    ]
}

/// Listeners that exist, and removed ones with connections left whose name nobody else has.
fn listeners(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<Listener>> {
    let present = || snapshot.listeners.iter().flatten();
    let mut seen: HashSet<&str> = present().map(|l| &*l.name).collect();
    let removed = snapshot.removed.iter().rev().filter(move |l| seen.insert(&l.name));
    present().chain(removed)
}

fn connections(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut accepted = Family::counter(names::CONNECTIONS);
    let mut active = Family::gauge(names::CONNECTIONS_ACTIVE);
    let mut refused = Family::counter(names::CONNECTIONS_REFUSED);
    let mut errors = Family::counter(names::ACCEPT_ERRORS);
    let mut handshakes = Family::counter(names::TLS_HANDSHAKE_FAILURES);
    let mut bytes = Family::counter(names::BYTES);
    for listener in listeners(snapshot) {
        let name = ("listener", &*listener.name);
        let series = &listener.live.series;
        accepted.add(&[name], series.sum(|s| &s.accepted) as f64);
        active.add(&[name], listener.live.active() as f64);
        refused.add(&[name], series.sum(|s| &s.refused) as f64);
        errors.add(&[name], series.sum(|s| &s.accept_errors) as f64);
        if listener.tls.is_some() {
            handshakes.add(&[name], series.sum(|s| &s.handshake_failures) as f64);
        }
        bytes.add(&[name, ("direction", "in")], series.sum(|s| &s.bytes_in) as f64);
        bytes.add(&[name, ("direction", "out")], series.sum(|s| &s.bytes_out) as f64);
    }
    [accepted, active, refused, errors, handshakes, bytes]
        .map(|f| f.0)
        .into()
}

fn requests(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut requests = Family::counter(names::REQUESTS);
    let mut desync = Family::counter(names::DESYNC_REQUESTS);
    let mut cut = Family::counter(names::RESPONSES_CUT);
    let mut cuts: BTreeMap<(&str, &str, &str), u64> = BTreeMap::new();
    let mut durations: BTreeMap<(&str, &str), HistogramSum> = BTreeMap::new();
    let mut seen = HashSet::new();
    for listener in listeners(snapshot) {
        let Some(http) = listener.http() else { continue };
        for class in Class::ALL {
            let n = listener.live.series.sum(|s| &s.desync[class as usize]);
            desync.add(&[("listener", &*listener.name), ("class", class.label())], n as f64);
        }
        let mut count = |route, upstream, series: &Arc<RequestSeries>| {
            // A split may name an upstream twice, a removed listener share its counters with nobody else.
            if !seen.insert(Arc::as_ptr(series)) {
                return;
            }
            let mut codes: BTreeMap<u16, u64> = BTreeMap::new();
            let sum = durations.entry((route, upstream)).or_default();
            for part in series.parts() {
                part.duration.add_to(sum);
                part.codes().for_each(|(code, n)| *codes.entry(code).or_default() += n);
                for by in CutBy::ALL {
                    *cuts.entry((route, upstream, by.label())).or_default() += part.cut(by).get();
                }
            }
            for (code, n) in codes {
                let code = code.to_string();
                let listener = ("listener", &*listener.name);
                let labels = [listener, ("route", route), ("upstream", upstream), ("code", &code)];
                requests.add(&labels, n as f64);
            }
        };
        count("", "", &http.unrouted);
        for route in &http.routes {
            count(&route.name, "", &route.series);
            if let Action::Forward(forward) = &route.action {
                forward
                    .split
                    .iter()
                    .for_each(|share| count(&route.name, &share.upstream.name, &share.series));
            }
        }
    }
    let mut duration = Family::histogram(names::REQUEST_DURATION);
    for ((route, upstream), sum) in durations.iter().filter(|(_, sum)| sum.count() > 0) {
        duration.add_histogram(&[("route", route), ("upstream", upstream)], sum);
    }
    for ((route, upstream, reason), n) in cuts.into_iter().filter(|(_, n)| *n > 0) {
        cut.add(
            &[("route", route), ("upstream", upstream), ("reason", reason)],
            n as f64,
        );
    }
    vec![requests.0, duration.0, cut.0, desync.0]
}

/// Of upstreams that limit what is under way, whose requests may be hedged, or whose clients are bound.
fn limits(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut hedges = Family::counter(names::HEDGES);
    let mut sticky = Family::counter(names::STICKY);
    let mut waiting = Family::gauge(names::UPSTREAM_WAITING);
    let mut shed = Family::counter(names::UPSTREAM_SHED);
    let mut limit = Family::gauge(names::ENDPOINT_LIMIT);
    for upstream in &snapshot.upstreams {
        let name = ("upstream", &*upstream.name);
        for end in Hedged::ALL {
            let n = upstream.series.sum(|s| s.hedged(end));
            if n > 0 {
                hedges.add(&[name, ("result", end.label())], n as f64);
            }
        }
        if upstream.sticky.is_some() {
            for result in Stuck::ALL {
                let n = upstream.series.sum(|s| s.stuck(result));
                sticky.add(&[name, ("result", result.label())], n as f64);
            }
        }
        let Some(limits) = &upstream.settings.limits else {
            continue;
        };
        waiting.add(&[name], limits.gate.waiting() as f64);
        for by in ShedBy::ALL {
            shed.add(
                &[name, ("reason", by.label())],
                upstream.series.sum(|s| s.shed(by)) as f64,
            );
        }
        for member in upstream.members().iter() {
            if let Some(n) = member.endpoint.limit.get() {
                limit.add(&[name, ("endpoint", &*member.endpoint.label)], f64::from(n));
            }
        }
    }
    [hedges, sticky, waiting, shed, limit].map(|f| f.0).into()
}

/// What the algorithms would do.
fn shadows(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut picks = Family::counter(names::SHADOW_PICKS);
    let mut latency = Family::histogram(names::SHADOW_LATENCY);
    let mut failures = Family::counter(names::SHADOW_FAILURES);
    let mut imbalance = Family::gauge(names::SHADOW_IMBALANCE);
    for upstream in &snapshot.upstreams {
        for (number, account) in upstream.accounts() {
            let labels = [("upstream", &*upstream.name), ("algorithm", NAMES[number])];
            picks.add(&labels, account.picks as f64);
            latency.add_histogram(&labels, &account.total.histogram());
            failures.add(&labels, account.total.failed());
            if let Some(n) = account.imbalance {
                imbalance.add(&labels, n);
            }
        }
    }
    [picks, latency, failures, imbalance].map(|f| f.0).into()
}

fn upstreams(snapshot: &Snapshot, leaving: &[Former]) -> Vec<MetricFamily> {
    let mut up = Family::gauge(names::ENDPOINT_UP);
    let mut active = Family::gauge(names::ENDPOINT_ACTIVE);
    let mut attempts = Family::counter(names::ENDPOINT_ATTEMPTS);
    let mut latency = Family::histogram(names::ENDPOINT_LATENCY);
    let mut draining = Family::gauge(names::ENDPOINT_DRAINING);
    let mut weight = Family::gauge(names::ENDPOINT_WEIGHT);
    let mut idle = Family::gauge(names::ENDPOINT_IDLE);
    let mut connections = Family::gauge(names::ENDPOINT_CONNECTIONS);
    let mut replays = Family::counter(names::ENDPOINT_REPLAYS);
    let mut retries = Family::counter(names::RETRIES);
    let mut denied = Family::counter(names::RETRIES_DENIED);
    let mut unavailable = Family::counter(names::UPSTREAM_UNAVAILABLE);
    let mut panic = Family::gauge(names::UPSTREAM_PANIC);
    for upstream in &snapshot.upstreams {
        let name = ("upstream", &*upstream.name);
        if upstream.settings.spread.panic_threshold > 0.0 {
            panic.add(&[name], f64::from(u8::from(upstream.panics())));
        }
        retries.add(&[name], upstream.series.sum(|s| &s.retries) as f64);
        for reason in Denied::ALL {
            let n = upstream.series.sum(|s| s.denied(reason));
            denied.add(&[name, ("reason", reason.label())], n as f64);
        }
        unavailable.add(&[name], upstream.series.sum(|s| &s.unavailable) as f64);
        for member in upstream.members().iter() {
            let endpoint = &member.endpoint;
            let labels = [name, ("endpoint", &*endpoint.label)];
            up.add(&labels, f64::from(u8::from(endpoint.health() == Health::Up)));
            let orders = &endpoint.orders;
            draining.add(&labels, f64::from(u8::from(orders.duty() != Duty::Active)));
            weight.add(&labels, f64::from(orders.weight(member.weight)));
            active.add(&labels, f64::from(endpoint.active()));
            idle.add(&labels, endpoint.series.sum(|s| &s.idle) as f64);
            connections.add(&labels, f64::from(endpoint.links.now()));
            replays.add(&labels, endpoint.series.sum(|s| &s.replays) as f64);
            for outcome in Outcome::ALL {
                let n = endpoint.series.sum(|s| s.outcome(outcome));
                // What has never happened here is not told, but for what everybody asks for.
                if n > 0 || outcome == Outcome::Success {
                    attempts.add(&[labels[0], labels[1], ("outcome", outcome.label())], n as f64);
                }
            }
            let mut sum = HistogramSum::default();
            endpoint.series.parts().for_each(|part| part.latency.add_to(&mut sum));
            if sum.count() > 0 {
                latency.add_histogram(&labels, &sum);
            }
        }
    }
    // What is gone from the configuration is told while it has work, unless it is back under the same name.
    for (upstream, endpoint) in leaving {
        let present = snapshot.upstreams.iter().find(|u| u.name == *upstream);
        let back = present.is_some_and(|u| u.members().iter().any(|m| m.endpoint.label == endpoint.label));
        if !back {
            let labels = [("upstream", &**upstream), ("endpoint", &*endpoint.label)];
            draining.add(&labels, 1.0);
            active.add(&labels, f64::from(endpoint.active()));
        }
    }
    [
        up,
        draining,
        weight,
        active,
        idle,
        connections,
        replays,
        attempts,
        latency,
        panic,
        retries,
        denied,
        unavailable,
    ]
    .map(|f| f.0)
    .into()
}

fn discovery(operator: &Operator, snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut updates = Family::counter(names::DISCOVERY_UPDATES);
    let mut endpoints = Family::gauge(names::DISCOVERY_ENDPOINTS);
    let sources = operator.status.sources();
    for upstream in &snapshot.upstreams {
        let Some(reports) = sources.get(&upstream.name) else {
            continue;
        };
        let name = ("upstream", &*upstream.name);
        let states: Vec<_> = reports.iter().map(|report| report.state()).collect();
        let mut count = |result, of: fn(&feed::State) -> u64| {
            updates.add(&[name, ("result", result)], states.iter().map(of).sum::<u64>() as f64);
        };
        count("changed", |state| state.changed);
        count("unchanged", |state| state.unchanged);
        count("failed", |state| state.failed);
        endpoints.add(&[name], upstream.members().len() as f64);
    }
    vec![updates.0, endpoints.0]
}

/// What health checks and outlier detection found.
fn health(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut probes = Family::counter(names::ENDPOINT_PROBES);
    let mut ejected = Family::gauge(names::ENDPOINT_EJECTED);
    let mut ejections = Family::counter(names::EJECTIONS);
    for upstream in &snapshot.upstreams {
        for endpoint in upstream.members().iter().map(|m| &m.endpoint) {
            let labels = [("upstream", &*upstream.name), ("endpoint", &*endpoint.label)];
            for result in ProbeResult::ALL {
                let n = endpoint.record.probes(result);
                if n > 0 {
                    probes.add(&[labels[0], labels[1], ("result", result.label())], n as f64);
                }
            }
            ejected.add(&labels, f64::from(u8::from(endpoint.streak.is_ejected())));
            for reason in EjectReason::ALL {
                let n = endpoint.streak.ejections(reason);
                if n > 0 {
                    ejections.add(&[labels[0], labels[1], ("reason", reason.label())], n as f64);
                }
            }
        }
    }
    vec![probes.0, ejected.0, ejections.0]
}

fn caches(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut requests = Family::counter(names::CACHE_REQUESTS);
    let mut operations = Family::counter(names::CACHE_OPERATIONS);
    let mut fills = Family::counter(names::CACHE_FILLS);
    let mut active = Family::gauge(names::CACHE_FILLS_ACTIVE);
    let mut entries = Family::gauge(names::CACHE_ENTRIES);
    let mut bytes = Family::gauge(names::CACHE_BYTES);
    let mut evictions = Family::counter(names::CACHE_EVICTIONS);
    for kept in &snapshot.caches {
        let cache = &kept.cache;
        let name = ("cache", &*cache.name);
        for result in CacheResult::ALL {
            let n = cache.series.sum(|s| &s.results[result as usize]);
            requests.add(&[name, ("result", result.label())], n as f64);
        }
        Operations::sum(&cache.operations, |operation, counts| {
            for (result, n) in CacheResult::ALL.iter().zip(counts) {
                operations.add(&[name, ("operation", operation), ("result", result.label())], *n as f64);
            }
        });
        fills.add(&[name], cache.series.sum(|s| &s.fills) as f64);
        active.add(&[name], cache.fills.len() as f64);
        entries.add(&[name], cache.store.len() as f64);
        bytes.add(&[name], cache.store.bytes() as f64);
        evictions.add(&[name], cache.store.evictions() as f64);
    }
    [requests, operations, fills, active, entries, bytes, evictions]
        .map(|f| f.0)
        .into()
}

fn disks(snapshot: &Snapshot) -> Vec<MetricFamily> {
    let mut up = Family::gauge(names::CACHE_DISK_UP);
    let mut entries = Family::gauge(names::CACHE_DISK_ENTRIES);
    let mut bytes = Family::gauge(names::CACHE_DISK_BYTES);
    let mut hits = Family::counter(names::CACHE_DISK_HITS);
    let mut evictions = Family::counter(names::CACHE_DISK_EVICTIONS);
    let mut dropped = Family::counter(names::CACHE_DISK_DROPPED);
    let mut errors = Family::counter(names::CACHE_DISK_ERRORS);
    for kept in &snapshot.caches {
        let Some(disk) = &kept.disk else { continue };
        let (name, report) = (("cache", &*kept.cache.name), disk.disk.report());
        up.add(&[name], f64::from(u8::from(report.works)));
        entries.add(&[name], report.entries as f64);
        bytes.add(&[name], report.bytes as f64);
        hits.add(&[name], report.hits as f64);
        evictions.add(&[name], report.evictions as f64);
        dropped.add(&[name], report.dropped as f64);
        for (operation, n) in [
            ("read", report.read_errors),
            ("write", report.write_errors),
            ("purge", report.purge_errors),
            ("corrupt", report.spoilt),
        ] {
            errors.add(&[name, ("operation", operation)], n as f64);
        }
    }
    [up, entries, bytes, hits, evictions, dropped, errors]
        .map(|f| f.0)
        .into()
}

/// One metric with all its label sets.
struct Family(MetricFamily);

impl Family {
    fn new(name: Name, kind: MetricType) -> Self {
        let mut family = MetricFamily::default();
        family.set_name(name.name.to_owned());
        family.set_help(name.help.to_owned());
        family.set_field_type(kind);
        Self(family)
    }

    fn counter(name: Name) -> Self {
        Self::new(name, MetricType::COUNTER)
    }

    fn gauge(name: Name) -> Self {
        Self::new(name, MetricType::GAUGE)
    }

    fn histogram(name: Name) -> Self {
        Self::new(name, MetricType::HISTOGRAM)
    }

    /// The family with one value and no labels.
    fn only(mut self, value: f64) -> MetricFamily {
        self.add(&[], value);
        self.0
    }

    fn add(&mut self, labels: &[(&str, &str)], value: f64) {
        let mut metric = labelled(labels);
        if self.0.get_field_type() == MetricType::COUNTER {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        } else {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
        self.0.mut_metric().push(metric);
    }

    fn add_histogram(&mut self, labels: &[(&str, &str)], sum: &HistogramSum) {
        let mut cumulative = 0;
        let buckets = sum.buckets.iter().zip(DURATION_BOUNDS_US).map(|(n, bound)| {
            cumulative += n;
            let mut bucket = Bucket::default();
            bucket.set_cumulative_count(cumulative);
            bucket.set_upper_bound(bound as f64 / 1e6);
            bucket
        });
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets.collect());
        histogram.set_sample_count(sum.count());
        histogram.set_sample_sum(sum.sum_us as f64 / 1e6);
        let mut metric = labelled(labels);
        metric.set_histogram(histogram);
        self.0.mut_metric().push(metric);
    }
}

fn labelled(labels: &[(&str, &str)]) -> Metric {
    let pair = |(name, value): &(&str, &str)| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

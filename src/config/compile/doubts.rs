//! Settings that are right by themselves and do nothing where they stand: warnings, each with what would be needed.

use super::sticky::by_tcp;
use crate::balance::Spec;
use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::plan::{Action, Forward, Route};
use crate::config::reader::listed;
use crate::config::schema::Schema;
use crate::config::schema::discovery::Discovery;
use crate::config::schema::upstream::Upstream;
use crate::net::addr::EndpointAddr;

/// Keys of an upstream that are about requests alone, or connections kept for them.
const OF_REQUESTS: [&str; 13] = [
    "response_timeout",
    "read_timeout",
    "pool_idle_timeout",
    "pool_max_idle",
    "pool_min_idle",
    "retries.methods",
    "retries.per_try_timeout",
    "retries.budget",
    "retries.min_concurrency",
    "retries.min_per_second",
    "retries.backoff",
    "retries.buffer",
    "retries.attempts_header",
];
const OF_NAMES: [&str; 3] = ["resolve_interval", "address_family", "one_per_name"];
const COMPARISONS: [&str; 3] = ["outlier.success_rate", "outlier.failure_rate", "outlier.latency"];

/// What passes and does nothing. `positions`: where each planned route was written.
pub fn check(cx: &Context<'_>, schema: &Schema, routes: &[Route], positions: &[usize]) {
    zones(cx, schema);
    for (n, upstream) in schema.upstreams.iter().enumerate() {
        never_down(cx, upstream);
        comparisons(cx, upstream);
        names(cx, upstream);
        backups(cx, upstream);
        let uses = |route: &Route| forward(route).is_some_and(|forward| leads_to(forward, n));
        if !routes.iter().any(uses) {
            of_requests(cx, schema, upstream);
            by_latency(cx, schema, upstream);
        }
    }
    for (route, position) in routes.iter().zip(positions) {
        if let (Some(forward), Some(written)) = (forward(route), schema.routes.get(*position)) {
            let key = |name: &str| find(&written.written, name);
            let upstreams = || forward.split.iter().filter_map(|(n, _)| schema.upstreams.get(*n));
            importance(cx, key("importance"), upstreams());
            hedging(cx, key("hedge"), route, upstreams());
            per_try(cx, key("timeout"), forward, upstreams());
        }
    }
}

fn forward(route: &Route) -> Option<&Forward> {
    match &route.action {
        Action::Forward(forward) => Some(forward),
        _ => None,
    }
}

fn leads_to(forward: &Forward, n: usize) -> bool {
    forward.split.iter().any(|(upstream, _)| *upstream == n)
}

/// Where the key of this name stands.
fn find(written: &[At<String>], name: &str) -> Option<Span> {
    written.iter().find(|key| key.value == name).map(|key| key.span)
}

/// How many endpoints there are; `None`: more may be found.
fn settled(upstream: &Upstream) -> Option<usize> {
    let is_literal = |addr: &EndpointAddr| !matches!(addr, EndpointAddr::Name { .. });
    let all = &upstream.endpoints;
    let finds = upstream.discovery.is_some() || !all.iter().all(|endpoint| is_literal(&endpoint.value.addr));
    (!finds).then_some(all.len())
}

/// Zones count where the proxy is in one itself.
fn zones(cx: &Context<'_>, schema: &Schema) {
    let zoned = |upstream: &Upstream| {
        upstream
            .endpoints
            .iter()
            .find(|e| e.value.zone.is_some())
            .map(|e| e.span)
    };
    let first = schema.upstreams.iter().find_map(zoned);
    let Some(here) = &schema.server.zone else {
        for upstream in &schema.upstreams {
            if let Some(span) = zoned(upstream) {
                let message = format!(
                    "the zones of `{}` make no difference: all endpoints are used alike",
                    upstream.name.value
                );
                cx.push(
                    Diagnostic::warning(span, message)
                        .label("it is not known in which zone this proxy is")
                        .help("set `zone` in `[server]`, as in `zone = \"${ZONE}\"`"),
                );
            }
        }
        return;
    };
    let mut zones = Vec::new();
    for upstream in &schema.upstreams {
        // Sources tell zones too.
        if matches!(upstream.discovery, Some(Discovery::List(_) | Discovery::Consul(_))) {
            return;
        }
        zones.extend(
            upstream
                .endpoints
                .iter()
                .filter_map(|endpoint| endpoint.value.zone.as_deref()),
        );
    }
    if let (Some(span), false) = (first, zones.contains(&&**here)) {
        let message = format!("no endpoint is in `{here}`, the zone of this proxy: all are used alike");
        cx.push(Diagnostic::warning(span, message).did_you_mean(here, zones));
    }
}

/// What is for endpoints that are down, where nobody looks.
fn never_down(cx: &Context<'_>, upstream: &Upstream) {
    if upstream.health.is_some() || upstream.outlier.is_some() || upstream.discovery.is_some() {
        return;
    }
    let help = "add `health`, or leave `outlier` on";
    if let Some(span) = find(&upstream.written, "panic_threshold") {
        let message = "`panic_threshold` never comes: no endpoint is ever found to be down";
        cx.push(
            Diagnostic::warning(span, message)
                .label("there is neither a health check nor `outlier`")
                .help(help),
        );
    }
    if let Some(span) = find(&upstream.written, "slow_start") {
        let message = "`slow_start` is for endpoints that a reload brings alone: none is ever found to be down";
        cx.push(
            Diagnostic::warning(span, message)
                .label("there is neither a health check nor `outlier`")
                .help(help),
        );
    }
}

/// Outliers are told by comparing, and the last endpoint stays.
fn comparisons(cx: &Context<'_>, upstream: &Upstream) {
    let (Some(spec), Some(count)) = (&upstream.outlier, settled(upstream)) else {
        return;
    };
    if let (1, Some(span)) = (count, find(&upstream.written, "outlier")) {
        let message = format!("the only endpoint of `{}` is never ejected", upstream.name.value);
        cx.push(Diagnostic::warning(span, message).label("nobody would be left"));
        return;
    }
    let written = COMPARISONS.iter().find_map(|key| find(&upstream.written, key));
    if let (true, Some(span)) = (spec.compares() && count < spec.minimum_hosts, written) {
        let least = spec.minimum_hosts;
        let message = format!("{count} endpoints are never compared: `minimum_hosts` is {least}");
        cx.push(Diagnostic::warning(span, message).help(format!("set `minimum_hosts = {}`", count.max(2))));
    }
}

/// What is for names, where every endpoint is an address.
fn names(cx: &Context<'_>, upstream: &Upstream) {
    if settled(upstream).is_none() {
        return;
    }
    for key in upstream
        .written
        .iter()
        .filter(|key| OF_NAMES.contains(&key.value.as_str()))
    {
        let message = format!(
            "`{}` is for endpoints with names, and `{}` has none",
            key.value, upstream.name.value
        );
        cx.push(Diagnostic::warning(key.span, message).label("all of them are addresses: nothing is resolved"));
    }
}

fn backups(cx: &Context<'_>, upstream: &Upstream) {
    let all = &upstream.endpoints;
    if let (Some(first), None, true) = (all.first(), &upstream.discovery, all.iter().all(|e| e.value.backup)) {
        let message = format!("every endpoint of `{}` is a backup", upstream.name.value);
        cx.push(Diagnostic::warning(first.span, message).label("there is nobody for whom they stand in"));
    }
}

/// Keys that say nothing of connections at Layer 4.
fn of_requests(cx: &Context<'_>, schema: &Schema, upstream: &Upstream) {
    let Some(listener) = by_tcp(schema, &upstream.name.value) else {
        return;
    };
    let is_of_requests = |key: &&At<String>| OF_REQUESTS.contains(&key.value.as_str());
    let keys: Vec<_> = upstream.written.iter().filter(is_of_requests).collect();
    if let Some(first) = keys.first() {
        let names = listed(keys.iter().map(|key| &key.value), "and");
        let message = format!(
            "no route leads to `{}`: {names} make no difference",
            upstream.name.value
        );
        cx.push(
            Diagnostic::warning(first.span, message)
                .label("about requests, of which Layer 4 knows nothing")
                .related(listener, "used here alone")
                .help("for connections there are `connect_timeout` and `retries` here, `idle_timeout` in the listener"),
        );
    }
}

/// Of connections at Layer 4 nothing is known but how long connecting took.
fn by_latency(cx: &Context<'_>, schema: &Schema, upstream: &Upstream) {
    if let (Some(Spec::PeakEwma), Some(listener)) = (&upstream.balance.value, by_tcp(schema, &upstream.name.value)) {
        let message = "`peak_ewma` goes by how long connecting takes here, which is the way there and not the work";
        cx.push(
            Diagnostic::warning(upstream.balance.span, message)
                .related(listener, "used here alone")
                .help("`least_connections`, which `auto` is for tcp listeners, sees how much each endpoint has to do"),
        );
    }
}

fn importance<'a>(cx: &Context<'_>, key: Option<Span>, mut upstreams: impl Iterator<Item = &'a Upstream>) {
    if let Some(span) = key
        && upstreams.all(|upstream| upstream.limits.is_none())
    {
        let message = "`importance` makes no difference: nobody waits where there is no limit";
        let help = "set `max_active`, `max_active_per_endpoint` or `adaptive_limit` in the upstream";
        cx.push(Diagnostic::warning(span, message).help(help));
    }
}

fn hedging<'a>(
    cx: &Context<'_>,
    key: Option<Span>,
    route: &Route,
    mut upstreams: impl Iterator<Item = &'a Upstream> + Clone,
) {
    let Some(span) = key else { return };
    let methods = &route.matcher.methods;
    let repeats = |upstream: &Upstream| methods.iter().any(|method| upstream.retry.methods.has(method));
    if !methods.is_empty() && !upstreams.clone().any(repeats) {
        let message = "a second attempt is never made: no request of this route may be sent twice";
        let label = format!("its `methods` are {}", listed(methods.iter(), "and"));
        cx.push(Diagnostic::warning(span, message).label(label));
    } else if upstreams.all(|upstream| settled(upstream) == Some(1)) {
        let message = "a second attempt is never made: there is no other endpoint";
        cx.push(Diagnostic::warning(span, message));
    }
}

fn per_try<'a>(cx: &Context<'_>, key: Option<Span>, forward: &Forward, upstreams: impl Iterator<Item = &'a Upstream>) {
    let (Some(span), Some(whole)) = (key, forward.timeout) else {
        return;
    };
    for upstream in upstreams {
        if let Some(one) = upstream.retry.per_try_timeout.filter(|one| *one >= whole)
            && let Some(place) = find(&upstream.written, "retries.per_try_timeout")
        {
            let message = "the time for all attempts is over before the time for one: there is no second";
            cx.push(
                Diagnostic::warning(span, message)
                    .label(format!("expected more than {one:?}"))
                    .related(place, "the time for one"),
            );
        }
    }
}

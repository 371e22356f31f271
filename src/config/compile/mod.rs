//! From schema to plan: names become indexes, files are read, and what concerns several tables is checked.

mod binds;
mod caches;
mod doubts;
mod files;
mod routes;
mod sticky;

use std::collections::BTreeMap;

use super::diagnostic::{At, Context, Diagnostic};
use super::plan::{Action, Listener, Plan, Route, Serve, Tcp, Upstream};
use super::schema::discovery::Discovery;
use super::schema::tls::ClientTls;
use super::schema::{self, Schema};
use crate::balance::spread::Spread;
use crate::balance::{HashKey, Spec};
use crate::discovery::{self, consul};
use crate::health::Probe;
use crate::net::addr::EndpointAddr;
use crate::tls::{ClientSpec, ServerSpec};

/// The names of one kind of table, and which of them something refers to.
struct Names<'a> {
    /// `listener`, `upstream` or `cache`.
    what: &'static str,
    index: BTreeMap<&'a str, usize>,
    used: Vec<bool>,
    /// Some may be missing because of a syntax error: an unknown name is then no error.
    is_partial: bool,
}

impl<'a> Names<'a> {
    fn new(what: &'static str, names: impl Iterator<Item = &'a At<String>>, is_partial: bool) -> Self {
        let index: BTreeMap<_, _> = names.enumerate().map(|(n, name)| (name.value.as_str(), n)).collect();
        Self {
            what,
            used: vec![false; index.len()],
            index,
            is_partial,
        }
    }

    /// The index of what `name` names; reports a name that names nothing.
    fn resolve(&mut self, cx: &Context<'_>, name: &At<String>) -> Option<usize> {
        let found = self.index.get(name.value.as_str()).copied();
        match found {
            Some(n) => {
                if let Some(used) = self.used.get_mut(n) {
                    *used = true;
                }
            }
            None if self.is_partial => {}
            None => cx.push(
                Diagnostic::error(name.span, format!("there is no {} `{}`", self.what, name.value))
                    .label(format!("expected the name of a table `[{}s.NAME]`", self.what))
                    .did_you_mean(&name.value, self.index.keys().copied()),
            ),
        }
        found
    }
}

/// The plan, or `None` when anything, here or before, was an error.
pub fn compile(cx: &Context<'_>, schema: Schema) -> Option<Plan> {
    let is_partial = schema.is_partial;
    if let Some(start) = schema.start
        && schema.listeners.is_empty()
        && !is_partial
        && cx.errors() == 0
    {
        let hint = "a configuration needs at least one table `[listeners.NAME]`";
        cx.push(Diagnostic::error(start, "there is no listener, so there is nothing to serve").help(hint));
    }
    let mut upstreams = Names::new("upstream", schema.upstreams.iter().map(|u| &u.name), is_partial);
    let mut listeners = Names::new("listener", schema.listeners.iter().map(|l| &l.name), is_partial);
    let planned_listeners: Vec<Listener> = schema
        .listeners
        .iter()
        .filter_map(|listener| compile_listener(cx, listener, &schema, &mut upstreams))
        .collect();
    let mut caches = Names::new("cache", schema.caches.iter().map(|c| &c.name), is_partial);
    let (planned_routes, positions) = routes::compile(cx, &schema, &mut listeners, &mut upstreams, &mut caches);
    let planned_caches = caches::compile(cx, &schema);
    let planned_upstreams: Vec<Upstream> = schema
        .upstreams
        .iter()
        .enumerate()
        .map(|(n, upstream)| {
            if !schema.server.allow_exec {
                refuse_exec(cx, upstream);
            }
            check_connections(cx, upstream, schema.server.workers);
            compile_upstream(cx, upstream, schema.server.zone.as_ref(), auto(n, &planned_routes))
        })
        .collect();
    sticky::check(cx, &schema, &planned_routes);
    binds::check(cx, &schema);
    if cx.errors() > 0 {
        return None;
    }
    doubts::check(cx, &schema, &planned_routes, &positions);
    for (upstream, used) in schema.upstreams.iter().zip(upstreams.used) {
        if !used {
            let message = format!("nothing uses the upstream `{}`", upstream.name.value);
            cx.push(Diagnostic::warning(upstream.name.span, message));
        }
    }
    for (cache, used) in schema.caches.iter().zip(caches.used) {
        if !used {
            let message = format!("nothing uses the cache `{}`", cache.name.value);
            cx.push(Diagnostic::warning(cache.name.span, message));
        }
    }
    Some(Plan {
        server: schema.server,
        admin: schema.admin.map(|admin| admin.value),
        log: schema.log,
        access_log: schema.access_log,
        listeners: planned_listeners,
        routes: planned_routes,
        upstreams: planned_upstreams,
        caches: planned_caches,
    })
}

fn compile_listener(
    cx: &Context<'_>,
    listener: &schema::listener::Listener,
    schema: &Schema,
    upstreams: &mut Names<'_>,
) -> Option<Listener> {
    let tls = listener.tls.as_ref().map(|tls| ServerSpec {
        certificates: tls
            .certificates
            .iter()
            .filter_map(|files| files::certificate(cx, files))
            .collect(),
        only_tls13: tls.only_tls13,
    });
    let serve = match listener.serve.as_ref()? {
        schema::listener::Serve::Http(http) => Serve::Http(http.clone()),
        schema::listener::Serve::Tcp(tcp) => {
            let mut resolve = |name: &At<String>| {
                let n = upstreams.resolve(cx, name)?;
                check_hash(cx, name, schema.upstreams.get(n)?);
                check_adaptive(cx, name, schema.upstreams.get(n)?);
                Some(n)
            };
            Serve::Tcp(Tcp {
                upstream: tcp.upstream.as_ref().and_then(&mut resolve),
                sni: tcp
                    .sni
                    .iter()
                    .filter_map(|(host, name)| Some((host.value.clone(), resolve(name)?)))
                    .collect(),
                idle_timeout: tcp.idle_timeout,
                half_close_timeout: tcp.half_close_timeout,
            })
        }
    };
    Some(Listener {
        name: listener.name.value.as_str().into(),
        bind: listener.bind.iter().map(|address| address.value.clone()).collect(),
        tls,
        max_connections: listener.max_connections,
        max_connections_per_source: listener.max_connections_per_source,
        serve,
    })
}

/// What `balance = "auto"` is for the upstream at position `n`: of responses it is known how long they took, of
/// connections at Layer 4 how many there are. docs/load-balancing.md has the figures.
fn auto(n: usize, routes: &[Route]) -> Spec {
    let forwards = |route: &Route| match &route.action {
        Action::Forward(forward) => forward.split.iter().any(|(upstream, _)| *upstream == n),
        _ => false,
    };
    match routes.iter().any(forwards) {
        true => Spec::PeakEwma,
        false => Spec::LeastConnections,
    }
}

/// A TCP connection has no path, header or cookie to hash.
fn check_hash(cx: &Context<'_>, used: &At<String>, upstream: &schema::upstream::Upstream) {
    if let Some(hashing) = upstream.balance.value.as_ref().and_then(Spec::hashing)
        && hashing.key != HashKey::SourceIp
    {
        let message = "a tcp listener has no requests to hash: endpoints will be picked at random";
        cx.push(
            Diagnostic::warning(used.span, message)
                .related(upstream.balance.span, "what is hashed stands here")
                .help("for tcp only `source_ip` can be hashed"),
        );
    }
}

/// Programs are run only where the one who runs the proxy has said so, beside whoever writes its upstreams.
fn refuse_exec(cx: &Context<'_>, upstream: &schema::upstream::Upstream) {
    if let Some(health) = &upstream.health
        && matches!(health.value.probe, Probe::Exec(_))
    {
        cx.push(
            Diagnostic::error(health.span, "health checks may not run programs here")
                .label("a program would be run with the rights of the proxy")
                .help("allow it by `allow_exec = true` in `[server]`"),
        );
    }
}

/// Reads the files; `unverified` is said of a side whose certificate does not matter.
fn client_tls(cx: &Context<'_>, tls: &ClientTls, unverified: &str) -> ClientSpec {
    if !tls.verify.value {
        cx.push(
            Diagnostic::warning(tls.verify.span, unverified)
                .label("whoever answers there can read and change everything")
                .help("for a private authority set `ca` to its certificate"),
        );
    }
    ClientSpec {
        ca: tls.ca.as_ref().and_then(|path| files::roots(cx, path)),
        ca_path: tls.ca.as_ref().map(|path| path.value.clone()),
        server_name: tls.server_name.clone(),
        client_certificate: tls.certificate.as_ref().and_then(|files| files::certificate(cx, files)),
        verify: tls.verify.value,
        handshake_timeout: tls.handshake_timeout.as_ref().map(|timeout| timeout.value),
    }
}

fn discovery(cx: &Context<'_>, upstream: &schema::upstream::Upstream) -> Option<discovery::Spec> {
    match upstream.discovery.as_ref()? {
        // Stand among the endpoints.
        Discovery::Names(_) => None,
        Discovery::List(spec) => Some((**spec).clone()),
        Discovery::Consul(consul) => {
            let (spec, tls) = &**consul;
            let unverified = format!("the Consul of `{}` is not verified", upstream.name.value);
            let tls = tls.as_ref().map(|tls| client_tls(cx, tls, &unverified));
            Some(discovery::Spec::Consul(consul::Spec { tls, ..spec.clone() }))
        }
    }
}

/// A connection's length says nothing about how much its endpoint has to do.
fn check_adaptive(cx: &Context<'_>, used: &At<String>, upstream: &schema::upstream::Upstream) {
    if upstream.limits.as_ref().is_some_and(|limits| limits.adaptive.is_some()) {
        let message = "an adaptive limit is learned from the latency of requests, which a tcp listener has none of";
        cx.push(
            Diagnostic::error(used.span, message)
                .related(upstream.name.span, "this upstream has an `adaptive_limit`")
                .help("set `max_active_per_endpoint` instead"),
        );
    }
}

/// Fewer connections than workers want for themselves: a warning, as another machine may have other numbers of workers.
fn check_connections(cx: &Context<'_>, upstream: &schema::upstream::Upstream, workers: usize) {
    let limits = upstream.limits.as_ref();
    let Some(most) = limits.and_then(|limits| limits.max_connections_per_endpoint) else {
        return;
    };
    let (most, beforehand) = (most as usize, upstream.pool_min_idle);
    let warn = |message: String, help: &str| {
        let warning = Diagnostic::warning(upstream.name.span, message);
        let label = format!("`max_connections_per_endpoint` is {most} here");
        cx.push(warning.label(label).help(help));
    };
    if beforehand <= most && beforehand * workers > most {
        let message =
            format!("{workers} workers with `pool_min_idle` {beforehand} would have more connections than may be");
        warn(
            message,
            "some workers will have none beforehand: lower `pool_min_idle`, or raise the limit",
        );
    }
    if upstream.may_be_h2() && most < workers {
        let message = format!("{workers} workers would each have an HTTP/2 connection of their own");
        warn(
            message,
            "with fewer they take turns: raise the limit, or lower `server.workers`",
        );
    }
}

fn compile_upstream(
    cx: &Context<'_>,
    upstream: &schema::upstream::Upstream,
    zone: Option<&std::sync::Arc<str>>,
    auto: Spec,
) -> Upstream {
    let name = &upstream.name.value;
    let tls = upstream
        .tls
        .as_ref()
        .map(|tls| client_tls(cx, tls, &format!("the endpoints of `{name}` are not verified")));
    if let Some(tls) = &tls
        && tls.verify
        && tls.server_name.is_none()
    {
        let finds_addresses = match &upstream.discovery {
            Some(Discovery::Consul(_)) => true,
            Some(Discovery::List(spec)) => matches!(**spec, discovery::Spec::Kubernetes(_)),
            _ => false,
        };
        if finds_addresses {
            let message = format!("the endpoints of `{}` are found by address", upstream.name.value);
            cx.push(
                Diagnostic::warning(upstream.name.span, message)
                    .label("TLS is to verify them, and few certificates hold addresses")
                    .help("set `tls.server_name` to the name that their certificates hold"),
            );
        }
        for endpoint in &upstream.endpoints {
            if matches!(endpoint.value.addr, EndpointAddr::Unix(_)) {
                let message = "TLS over a Unix socket needs the name to verify";
                let hint = "set `tls.server_name`";
                cx.push(
                    Diagnostic::error(endpoint.span, message)
                        .label("this address holds no name")
                        .help(hint),
                );
            }
        }
    }
    Upstream {
        name: upstream.name.value.as_str().into(),
        auto: upstream.balance.value.is_none(),
        balance: upstream.balance.value.clone().unwrap_or(auto),
        shadow_sample: upstream.shadow_sample,
        spread: Spread {
            zone: zone.cloned(),
            ..upstream.spread.clone()
        },
        endpoints: upstream
            .endpoints
            .iter()
            .map(|endpoint| endpoint.value.clone())
            .collect(),
        discovery: discovery(cx, upstream),
        health: upstream.health.as_ref().map(|health| health.value.clone()),
        outlier: upstream.outlier.clone(),
        protocol: upstream.protocol,
        tls,
        connect_timeout: upstream.connect_timeout,
        response_timeout: upstream.response_timeout,
        read_timeout: upstream.read_timeout,
        pool_idle_timeout: upstream.pool_idle_timeout,
        pool_max_idle: upstream.pool_max_idle,
        pool_min_idle: upstream.pool_min_idle,
        drain_timeout: upstream.drain_timeout,
        retry: upstream.retry.clone(),
        limits: upstream.limits.clone(),
        sticky: upstream.sticky.as_ref().and_then(|written| sticky::spec(cx, written)),
        resolve_interval: upstream.resolve_interval,
        name_servers: upstream.name_servers.clone(),
        address_family: upstream.address_family,
        one_per_name: upstream.one_per_name,
    }
}

//! `[upstreams.NAME]`.

use std::net::SocketAddr;
use std::time::Duration;

use super::discovery::{self, Discovery};
use super::name::{check_name, endpoint, zone_name};
use super::sticky::{self, Sticky};
use super::tls::{self, ClientTls};
use super::{balance, health, limits, outlier, retries};
use crate::balance::spread::Spread;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::plan::Limits;
use crate::config::reader::{Fields, Shape};
use crate::config::value::{Node, Value};
use crate::discovery::Listed;
use crate::discovery::name::Families;
use crate::net::addr::EndpointAddr;
use crate::policy::retry;
use crate::pool::Protocol;

#[derive(Debug)]
pub struct Upstream {
    pub name: At<String>,
    /// Its keys.
    pub written: Vec<At<String>>,
    /// `None`: `auto`.
    pub balance: At<Option<crate::balance::Spec>>,
    pub spread: Spread,
    pub shadow_sample: Option<u32>,
    pub endpoints: Vec<At<Listed>>,
    pub discovery: Option<Discovery>,
    /// With the place of what is asked.
    pub health: Option<At<crate::health::Spec>>,
    pub outlier: Option<crate::health::outlier::Spec>,
    pub protocol: Protocol,
    pub tls: Option<ClientTls>,
    pub connect_timeout: Duration,
    pub response_timeout: Duration,
    pub read_timeout: Duration,
    pub pool_idle_timeout: Duration,
    pub pool_max_idle: usize,
    pub pool_min_idle: usize,
    pub drain_timeout: Option<Duration>,
    pub retry: retry::Spec,
    pub limits: Option<Limits>,
    pub sticky: Option<Sticky>,
    pub resolve_interval: Duration,
    pub name_servers: Vec<SocketAddr>,
    pub address_family: Families,
    pub one_per_name: bool,
}

pub const UPSTREAM: Shape = Shape {
    what: "an upstream",
    keys: &[
        "endpoints",
        "discovery",
        "balance",
        "slow_start",
        "panic_threshold",
        "subset",
        "shadow_sample",
        "health",
        "outlier",
        "protocol",
        "tls",
        "connect_timeout",
        "response_timeout",
        "read_timeout",
        "pool_idle_timeout",
        "pool_max_idle",
        "pool_min_idle",
        "drain_timeout",
        "retries",
        "max_active",
        "max_active_per_endpoint",
        "max_connections_per_endpoint",
        "adaptive_limit",
        "queue",
        "sticky",
        "resolve_interval",
        "name_servers",
        "address_family",
        "one_per_name",
    ],
    later: &[],
};
pub const ENDPOINT: Shape = Shape {
    what: "an endpoint",
    keys: &["address", "weight", "backup", "priority", "zone"],
    later: &[],
};

const LEAST: Duration = Duration::from_millis(1);

pub fn read(cx: &Context<'_>, name: &At<String>, node: &Node) -> Option<Upstream> {
    check_name(cx, name);
    let fields = Fields::of(cx, node, &UPSTREAM)?;
    let (connect_timeout, response_timeout) = (
        fields.duration("connect_timeout", LEAST, defaults::CONNECT_TIMEOUT),
        fields.duration("response_timeout", LEAST, defaults::RESPONSE_TIMEOUT),
    );
    let pool_max_idle = fields
        .number("pool_max_idle", 0..=100_000)
        .unwrap_or(defaults::POOL_MAX_IDLE);
    let protocols = [
        ("auto", Protocol::Auto),
        ("http1", Protocol::Http1),
        ("h2", Protocol::H2),
    ];
    let protocol = fields
        .word("protocol", &protocols, &[])
        .map_or(Protocol::Auto, |found| found.value);
    let tls = fields
        .get("tls")
        .and_then(|node| tls::client(cx, node))
        .inspect(|tls| check_handshake(cx, tls, connect_timeout));
    let may_be_h2 = may_be_h2(protocol, tls.is_some());
    let pool_min_idle = min_idle(&fields, pool_max_idle);
    let (endpoints, discovery) = endpoints(&fields);
    let balance = fields
        .get("balance")
        .and_then(|node| balance::read(cx, node))
        .unwrap_or(At {
            value: None,
            span: fields.span,
        });
    Some(Upstream {
        name: name.clone(),
        written: fields.written(),
        spread: balance::spread(&fields, balance.value.as_ref()),
        balance,
        shadow_sample: shadow_sample(&fields),
        endpoints,
        discovery,
        health: fields.get("health").and_then(|node| health::read(cx, node)),
        outlier: outlier::read(cx, fields.get("outlier")),
        protocol,
        tls,
        connect_timeout,
        response_timeout,
        read_timeout: fields.duration("read_timeout", LEAST, defaults::READ_TIMEOUT),
        pool_idle_timeout: fields.duration("pool_idle_timeout", LEAST, defaults::POOL_IDLE_TIMEOUT),
        pool_max_idle,
        pool_min_idle,
        drain_timeout: fields.optional_duration("drain_timeout", LEAST),
        limits: limits::read(&fields, may_be_h2, pool_min_idle),
        sticky: fields.get("sticky").and_then(|node| sticky::read(cx, node)),
        retry: retries::read(&fields, connect_timeout + response_timeout),
        resolve_interval: fields.duration("resolve_interval", Duration::from_secs(1), defaults::RESOLVE_INTERVAL),
        name_servers: discovery::name_servers(&fields),
        address_family: discovery::address_family(&fields),
        one_per_name: fields.flag("one_per_name").unwrap_or(false),
    })
}

/// Over TLS, ALPN may lead there.
fn may_be_h2(protocol: Protocol, tls: bool) -> bool {
    protocol == Protocol::H2 || (protocol == Protocol::Auto && tls)
}

impl Upstream {
    /// Whether its endpoints may speak HTTP/2.
    pub fn may_be_h2(&self) -> bool {
        may_be_h2(self.protocol, self.tls.is_some())
    }
}

/// 0: none.
fn shadow_sample(fields: &Fields<'_>) -> Option<u32> {
    let one_in = fields.number("shadow_sample", 0..=1_000_000);
    Some(one_in.unwrap_or(defaults::SHADOW_SAMPLE)).filter(|one_in| *one_in > 0)
}

fn min_idle(fields: &Fields<'_>, most: usize) -> usize {
    let Some(least) = fields.number("pool_min_idle", 0..=1_000) else {
        return 0;
    };
    if least > most
        && let Some(node) = fields.get("pool_min_idle")
    {
        fields.cx.push(
            Diagnostic::error(
                node.span,
                format!("`pool_min_idle` is above `pool_max_idle`, which is {most}"),
            )
            .label("more than may be kept")
            .help(format!("at most {most} here, or raise `pool_max_idle`")),
        );
    }
    least
}

/// Those listed and those that `discovery` names, none of them twice; and where more come from.
fn endpoints(fields: &Fields<'_>) -> (Vec<At<Listed>>, Option<Discovery>) {
    let cx = fields.cx;
    let found = fields.get("discovery").map(|node| discovery::read(cx, node));
    let mut all = match (&found, fields.get("endpoints")) {
        (Some(_), None) => Vec::new(),
        _ => listed(fields),
    };
    let list = match found.flatten() {
        Some(Discovery::Names(names)) => {
            all.extend(names);
            None
        }
        list => list,
    };
    check_twice(cx, &all);
    (all, list)
}

/// A handshake is a part of connecting.
fn check_handshake(cx: &Context<'_>, tls: &ClientTls, connect_timeout: Duration) {
    if let Some(timeout) = &tls.handshake_timeout
        && timeout.value >= connect_timeout
    {
        let message = "`handshake_timeout` never ends a handshake: `connect_timeout` does before";
        let label = format!("expected less than `connect_timeout`, {connect_timeout:?}");
        cx.push(Diagnostic::error(timeout.span, message).label(label));
    }
}

/// A list of addresses or tables.
fn listed(fields: &Fields<'_>) -> Vec<At<Listed>> {
    let cx = fields.cx;
    let Some(node) = fields.require("endpoints") else {
        return Vec::new();
    };
    let what = "a list of endpoints such as `[\"10.0.0.1:8080\", \"10.0.0.2:8080\"]`";
    let Some(list) = fields.list("endpoints", what, |node| one(cx, node)) else {
        return Vec::new();
    };
    // Not the list that is left: what was wrong in it has been said.
    if matches!(&node.value, Value::Array(all) if all.is_empty()) {
        cx.push(Diagnostic::error(list.span, "an upstream needs an endpoint").label("this list is empty"));
    }
    list.value
}

fn check_twice(cx: &Context<'_>, endpoints: &[At<Listed>]) {
    let mut seen = std::collections::BTreeMap::<&EndpointAddr, _>::new();
    for endpoint in endpoints {
        match seen.get(&endpoint.value.addr) {
            Some(first) => cx.push(
                Diagnostic::error(
                    endpoint.span,
                    format!("the endpoint `{}` stands here twice", endpoint.value.addr),
                )
                .label("again here")
                .related(*first, "first here")
                .help("give it a `weight` to send it more"),
            ),
            None => {
                seen.insert(&endpoint.value.addr, endpoint.span);
            }
        }
    }
}

fn one(cx: &Context<'_>, node: &Node) -> Option<At<Listed>> {
    let Value::Table(table) = &node.value else {
        let addr = endpoint(cx, node)?;
        return Some(At {
            span: addr.span,
            value: Listed::at(addr.value),
        });
    };
    let fields = Fields::new(cx, table, node.span, &ENDPOINT);
    let addr = endpoint(cx, fields.require("address")?);
    let weight = fields.number("weight", 1..=256).unwrap_or(defaults::WEIGHT);
    let backup = fields.flag("backup").unwrap_or(false);
    let priority = fields.number("priority", 0..=127);
    if backup && priority.is_some() {
        fields.refuse(
            &["priority"],
            "says nothing of a backup, which is used while no other endpoint is up",
        );
    }
    let zone = fields.text("zone").and_then(|zone| zone_name(zone.value));
    let addr = addr?;
    Some(At {
        span: addr.span,
        value: Listed {
            weight,
            backup,
            priority: priority.unwrap_or(0),
            zone,
            ..Listed::at(addr.value)
        },
    })
}

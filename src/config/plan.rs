//! The plan: the configuration validated, every name resolved to an index, every file read.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode};
use ipnet::IpNet;

use crate::balance;
use crate::cache::ahead::{Ahead, Thousandths};
use crate::cache::content::ByContent;
use crate::cache::query::Query;
use crate::cache::range::Misses;
use crate::discovery::name::Families;
use crate::discovery::{self, Listed};
use crate::h1::desync;
use crate::health;
use crate::net::addr::BindAddr;
use crate::policy;
use crate::pool::Protocol;
use crate::route::{HostPattern, Matcher};
use crate::sticky;
use crate::tls;

/// Everything a snapshot is built from.
#[derive(Debug, Clone)]
pub struct Plan {
    pub server: Server,
    pub admin: Option<Admin>,
    pub log: Log,
    pub access_log: AccessLog,
    pub listeners: Vec<Listener>,
    /// In file order.
    pub routes: Vec<Route>,
    pub upstreams: Vec<Upstream>,
    pub caches: Vec<Cache>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Default: the CPUs this process may use. Cannot change by a reload.
    pub workers: usize,
    pub shutdown_grace: Duration,
    /// Where this proxy is; endpoints there are preferred.
    pub zone: Option<Arc<str>>,
    /// Whether health checks may run programs (`false`).
    pub allow_exec: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Admin {
    pub bind: BindAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Log {
    /// A level or a filter as `tracing-subscriber` reads it (`info`, `evenkeel=debug`). Default `info`.
    pub level: String,
    pub format: LogFormat,
}

/// `[access_log]`; absent or `format = "off"`: none.
#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub format: Option<LogFormat>,
    /// `None`: standard output.
    pub path: Option<PathBuf>,
}

#[derive(Debug, Clone)]
pub struct Listener {
    pub name: Arc<str>,
    pub bind: Vec<BindAddr>,
    pub tls: Option<tls::ServerSpec>,
    /// Connections at once; more are closed at once. `None`: bounded by file descriptors alone.
    pub max_connections: Option<usize>,
    /// `None`: no limit per source address.
    pub max_connections_per_source: Option<usize>,
    pub serve: Serve,
}

#[derive(Debug, Clone)]
pub enum Serve {
    Http(Http),
    Tcp(Tcp),
}

/// Limits and time-outs of an HTTP listener; defaults in `config::defaults`.
#[derive(Debug, Clone, PartialEq)]
pub struct Http {
    /// What happens to requests that others might read differently (`Strict`).
    pub desync: desync::Mode,
    /// Forwarding fields from these addresses are kept and added to; from all others replaced.
    pub trusted_proxies: Vec<IpNet>,
    /// Whole request head in bytes (32 KiB), request-target in bytes (8 KiB), number of fields (100).
    pub max_head: usize,
    pub max_target: usize,
    pub max_headers: usize,
    /// Request body in bytes; `None`: no limit.
    pub max_body: Option<u64>,
    /// From the first byte of a head to its last (15 s); also the TLS handshake (10 s at most).
    pub header_timeout: Duration,
    /// Between requests (60 s).
    pub idle_timeout: Duration,
    /// Longest pause while a request body arrives (30 s).
    pub body_timeout: Duration,
    /// Longest time the client may take no byte of a response (30 s).
    pub write_timeout: Duration,
    /// Bytes per second; 0: any.
    pub min_rate: u64,
    /// Longest silence on an upgraded connection (1 h).
    pub tunnel_timeout: Duration,
    /// HTTP/2 streams at once on one connection (100).
    pub max_streams: u32,
    /// Requests on one HTTP/1 connection before it is closed (`None`: no limit).
    pub max_requests: Option<u64>,
    /// Where clients say how much time a request has, beside `grpc-timeout`.
    pub deadline_header: Option<HeaderName>,
}

/// A TCP listener.
#[derive(Debug, Clone, PartialEq)]
pub struct Tcp {
    /// For everything, or for what `sni` does not name. Index into `Plan::upstreams`.
    pub upstream: Option<usize>,
    /// Routes of untouched TLS by the ClientHello's server name.
    pub sni: Vec<(HostPattern, usize)>,
    /// No byte in either direction (10 min).
    pub idle_timeout: Duration,
    /// After one side has closed (30 s).
    pub half_close_timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Route {
    pub name: Arc<str>,
    /// Indexes into `Plan::listeners`: the HTTP listeners it is for.
    pub listeners: Vec<usize>,
    pub matcher: Arc<Matcher>,
    pub action: Action,
}

#[derive(Debug, Clone)]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Forward {
    /// Index into `Plan::upstreams` and weight; one entry, or those of `split`. Weights are not all 0.
    pub split: Vec<(usize, u32)>,
    /// From the request's head to the response's head, all attempts together. `None`: no limit.
    pub timeout: Option<Duration>,
    /// From the request's head to the response's last byte. `None`: no limit.
    pub max_duration: Option<Duration>,
    /// A second attempt beside one that takes long. `None`: never.
    pub hedge: Option<policy::hedge::After>,
    /// Who goes first where requests wait.
    pub importance: policy::queue::Importance,
    /// Overrides the listener's `max_body`.
    pub max_body: Option<u64>,
    pub cache: Option<CacheUse>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cache {
    pub name: Arc<str>,
    /// Bytes for everything in it.
    pub memory: u64,
    pub disk: Option<CacheDisk>,
    /// Parameters in its keys (all).
    pub query: Query,
    /// Fields of requests that responses are told apart by beside their Vary, and cookies.
    pub apart: Vec<HeaderName>,
    pub cookies: Vec<String>,
}

/// Where a cache keeps what it has, too.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheDisk {
    pub path: PathBuf,
    /// Bytes of all files.
    pub size: u64,
}

/// How a route uses a cache.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheUse {
    /// Index into `Plan::caches`.
    pub cache: usize,
    /// Parameters in the key (all); others are not sent on.
    pub query: Query,
    /// Fields of requests that responses are told apart by beside their Vary.
    pub apart: Vec<HeaderName>,
    pub cookies: Vec<String>,
    /// Who may purge by the method PURGE; empty: the method means nothing.
    pub purge_sources: Vec<IpNet>,
    /// Bytes of a body (a sixteenth of the memory).
    pub max_entry: u64,
    /// Longest lifetime that nothing but Last-Modified tells (1 d); 0: none.
    pub heuristic: Duration,
    /// Where responses do not say it (10 min, 0).
    pub stale_if_error: Duration,
    pub stale_while_revalidate: Duration,
    /// Responses with Set-Cookie are stored where the standard allows it (no).
    pub set_cookie: bool,
    /// When what is hot is renewed before it is stale (never).
    pub refresh_ahead: Option<Ahead>,
    /// By how much a lifetime may be shortened (nothing).
    pub jitter: Thousandths,
    /// How ranges of what is not stored are fetched (as ranges, until the whole is known to be small).
    pub ranges: Misses,
    /// Requests that are stored by what they carry (none, 64 KiB).
    pub by_content: ByContent,
    /// Targeted fields, in their order.
    pub targets: Vec<HeaderName>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Redirect {
    /// `${host}`-free plain target: absolute URL or absolute path. `{path}`, `{query}` (with its `?`), `{host}` and
    /// `{uri}` are replaced by the request's.
    pub to: String,
    /// 301, 302, 303, 307 or 308.
    pub status: StatusCode,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Respond {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

#[derive(Debug, Clone)]
pub struct Upstream {
    pub name: Arc<str>,
    pub balance: balance::Spec,
    /// The algorithm was chosen by who uses the upstream.
    pub auto: bool,
    pub spread: balance::spread::Spread,
    /// One pick in so many is put to the other algorithms too (100; `None`: none).
    pub shadow_sample: Option<u32>,
    /// The fixed ones.
    pub endpoints: Vec<Listed>,
    /// Where more come from.
    pub discovery: Option<discovery::Spec>,
    pub health: Option<health::Spec>,
    /// `None`: live traffic takes nobody out.
    pub outlier: Option<health::outlier::Spec>,
    pub protocol: Protocol,
    pub tls: Option<tls::ClientSpec>,
    /// Name, connection and TLS handshake together (3 s).
    pub connect_timeout: Duration,
    /// From the request sent to the response head, per attempt (60 s).
    pub response_timeout: Duration,
    /// Longest pause within a response body (5 min).
    pub read_timeout: Duration,
    /// For connections of Layer 4 and tunnels after their endpoint began to drain (`None`: no limit).
    pub drain_timeout: Option<Duration>,
    /// How long an unused connection is kept (15 s), how many per endpoint and worker at most (512) and at least (0).
    pub pool_idle_timeout: Duration,
    pub pool_max_idle: usize,
    pub pool_min_idle: usize,
    /// Attempts beyond the first.
    pub retry: policy::retry::Spec,
    /// How much may be under way; `None`: any number.
    pub limits: Option<Limits>,
    /// Clients are bound to endpoints (no).
    pub sticky: Option<sticky::Spec>,
    /// How often host names are resolved again, at the latest (30 s).
    pub resolve_interval: Duration,
    /// Who is asked for host names. Empty: the name servers of this machine.
    pub name_servers: Vec<SocketAddr>,
    /// All addresses of a host name are one endpoint.
    pub one_per_name: bool,
    /// Which addresses of host names count.
    pub address_family: Families,
}

/// At least one of the first four is set.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Requests (Layer 4: connections) under way in all.
    pub max_active: Option<u32>,
    /// The same at each endpoint.
    pub max_active_per_endpoint: Option<u32>,
    /// Connections to each endpoint, of all workers.
    pub max_connections_per_endpoint: Option<u32>,
    /// Each endpoint's limit is found out, below the fixed one.
    pub adaptive: Option<policy::adaptive::Spec>,
    /// Who may wait for room (1024 for 3 s).
    pub queue: policy::queue::Spec,
}

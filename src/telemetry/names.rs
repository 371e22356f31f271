//! Every metric's name and help text, in one place: a contract with dashboards and alerts.

/// One metric.
#[derive(Debug, Clone, Copy)]
pub struct Name {
    pub name: &'static str,
    pub help: &'static str,
}

const fn name(name: &'static str, help: &'static str) -> Name {
    Name { name, help }
}

pub const BUILD_INFO: Name = name("evenkeel_build_info", "Always 1; the version stands in the label.");
pub const WORKERS: Name = name("evenkeel_workers", "Data-plane threads.");
pub const CONFIG_GENERATION: Name = name(
    "evenkeel_config_generation",
    "How many configurations have been published since the start.",
);
pub const CONFIG_RELOADS: Name = name("evenkeel_config_reloads_total", "Reloads by their result.");
pub const CONFIG_LAST_RELOAD_SUCCESSFUL: Name = name(
    "evenkeel_config_last_reload_successful",
    "1 unless the last reload was rejected.",
);
pub const DRAINING: Name = name(
    "evenkeel_draining",
    "1 while the process lets its connections finish to end.",
);
pub const ACCESS_LOG_DROPPED: Name = name(
    "evenkeel_access_log_dropped_total",
    "Access log lines that could not be written.",
);

pub const CONNECTIONS: Name = name("evenkeel_connections_total", "Connections accepted.");
pub const CONNECTIONS_ACTIVE: Name = name("evenkeel_connections_active", "Connections open now.");
pub const CONNECTIONS_REFUSED: Name = name(
    "evenkeel_connections_refused_total",
    "Connections closed at once because of a limit.",
);
pub const ACCEPT_ERRORS: Name = name(
    "evenkeel_accept_errors_total",
    "Failures to accept, most often for want of file descriptors.",
);
pub const TLS_HANDSHAKE_FAILURES: Name = name(
    "evenkeel_tls_handshake_failures_total",
    "TLS handshakes with clients that failed or timed out.",
);
pub const BYTES: Name = name(
    "evenkeel_bytes_total",
    "Bytes read from clients (in) and written to them (out), without TLS.",
);

pub const REQUESTS: Name = name(
    "evenkeel_requests_total",
    "Requests by their final status; 499: the client went away first.",
);
pub const DESYNC_REQUESTS: Name = name(
    "evenkeel_desync_requests_total",
    "HTTP/1 requests by whether others might read them differently: compliant, acceptable, ambiguous, severe.",
);
pub const REQUEST_DURATION: Name = name(
    "evenkeel_request_duration_seconds",
    "From a request's head to the last byte of its response.",
);

pub const CACHE_REQUESTS: Name = name(
    "evenkeel_cache_requests_total",
    "Requests by what the cache did: hit, miss, stale, revalidated, bypass, collapsed, error.",
);
pub const CACHE_OPERATIONS: Name = name(
    "evenkeel_cache_operations_total",
    "GraphQL queries by operation (those that are configured) and by what the cache did.",
);
pub const CACHE_FILLS: Name = name(
    "evenkeel_cache_fills_total",
    "Requests to endpoints for what the cache has not, or has to validate.",
);
pub const CACHE_FILLS_ACTIVE: Name = name("evenkeel_cache_fills_active", "Fetches that others may join now.");
pub const CACHE_ENTRIES: Name = name("evenkeel_cache_entries", "Responses stored now.");
pub const CACHE_BYTES: Name = name(
    "evenkeel_cache_bytes",
    "Bytes of what is stored or being fetched: bodies, fields, keys and bookkeeping.",
);
pub const CACHE_EVICTIONS: Name = name(
    "evenkeel_cache_evictions_total",
    "Responses that had to make room for others.",
);
pub const CACHE_DISK_UP: Name = name(
    "evenkeel_cache_disk_up",
    "0 while reading or writing fails so often that the cache goes on without its disk.",
);
pub const CACHE_DISK_ENTRIES: Name = name("evenkeel_cache_disk_entries", "Responses on disk now.");
pub const CACHE_DISK_BYTES: Name = name("evenkeel_cache_disk_bytes", "Bytes of the files they are in.");
pub const CACHE_DISK_HITS: Name = name(
    "evenkeel_cache_disk_hits_total",
    "Records read from disk because memory did not have them.",
);
pub const CACHE_DISK_EVICTIONS: Name = name(
    "evenkeel_cache_disk_evictions_total",
    "Files that had to make room for others.",
);
pub const CACHE_DISK_DROPPED: Name = name(
    "evenkeel_cache_disk_dropped_writes_total",
    "Fills that were not written: too many were in line, or the disk fails.",
);
pub const CACHE_DISK_ERRORS: Name = name(
    "evenkeel_cache_disk_errors_total",
    "What failed: read, write, purge; corrupt: a file was not what had been written.",
);
pub const RESPONSES_CUT: Name = name(
    "evenkeel_responses_cut_total",
    "Responses that ended early after their head was passed on, by what ended them.",
);

pub const ENDPOINT_UP: Name = name(
    "evenkeel_endpoint_up",
    "1 while the endpoint's health checks pass, or it has none, whether it is to take work or not.",
);
pub const ENDPOINT_PROBES: Name = name(
    "evenkeel_endpoint_probes_total",
    "Health checks of the endpoint by how they ended.",
);
pub const ENDPOINT_EJECTED: Name = name(
    "evenkeel_endpoint_ejected",
    "1 while outlier detection keeps new work away from the endpoint.",
);
pub const EJECTIONS: Name = name(
    "evenkeel_ejections_total",
    "Ejections of the endpoint by outlier detection, by their reason.",
);
pub const ENDPOINT_ACTIVE: Name = name(
    "evenkeel_endpoint_active",
    "Requests (Layer 4: connections) under way at the endpoint.",
);
pub const ENDPOINT_ATTEMPTS: Name = name("evenkeel_endpoint_attempts_total", "Attempts by how they ended.");
pub const ENDPOINT_LATENCY: Name = name(
    "evenkeel_endpoint_latency_seconds",
    "From an attempt's begin to the response's head (Layer 4: until connected).",
);
pub const ENDPOINT_DRAINING: Name = name(
    "evenkeel_endpoint_draining",
    "1 when the endpoint is to take no new work: draining, disabled, or removed with work left.",
);
pub const ENDPOINT_WEIGHT: Name = name("evenkeel_endpoint_weight", "The endpoint's weight as it is picked now.");
pub const ENDPOINT_IDLE: Name = name(
    "evenkeel_endpoint_idle_connections",
    "HTTP/1 connections to the endpoint at rest.",
);
pub const ENDPOINT_CONNECTIONS: Name = name(
    "evenkeel_endpoint_connections",
    "Connections to the endpoint: at rest, at work and being made.",
);
pub const ENDPOINT_REPLAYS: Name = name(
    "evenkeel_endpoint_replays_total",
    "Requests sent again because the endpoint closed a connection at rest as it was used.",
);
pub const UPSTREAM_PANIC: Name = name(
    "evenkeel_upstream_panic",
    "1 while too few endpoints are up, so that all of them are used.",
);
pub const RETRIES: Name = name("evenkeel_retries_total", "Attempts beyond the first.");
pub const RETRIES_DENIED: Name = name(
    "evenkeel_retries_denied_total",
    "Failed attempts that were not followed by another, by what forbade it.",
);
pub const STICKY: Name = name(
    "evenkeel_sticky_requests_total",
    "Requests answered by endpoints of an upstream with sticky sessions, by what became of the client's cookie.",
);
pub const HEDGES: Name = name(
    "evenkeel_hedges_total",
    "Second attempts beside first ones that took long, by how they ended.",
);
pub const UPSTREAM_WAITING: Name = name(
    "evenkeel_upstream_waiting",
    "Requests and connections that wait for an endpoint with room.",
);
pub const UPSTREAM_SHED: Name = name(
    "evenkeel_upstream_shed_total",
    "Requests and connections sent away because no endpoint had room, by when.",
);
pub const ENDPOINT_LIMIT: Name = name(
    "evenkeel_endpoint_limit",
    "How many requests or connections may be under way at the endpoint.",
);
pub const SHADOW_PICKS: Name = name(
    "evenkeel_shadow_picks_total",
    "Picks that were put to the algorithm too, and could be charged.",
);
pub const SHADOW_LATENCY: Name = name(
    "evenkeel_shadow_latency_seconds",
    "What answers would probably take by the algorithm's choices among sampled picks.",
);
pub const SHADOW_FAILURES: Name = name(
    "evenkeel_shadow_failures_total",
    "Attempts that would probably fail by the algorithm's choices among sampled picks.",
);
pub const SHADOW_IMBALANCE: Name = name(
    "evenkeel_shadow_imbalance",
    "What would be under way at the busiest endpoint over the mean of all, were all choices the algorithm's.",
);
pub const UPSTREAM_UNAVAILABLE: Name = name(
    "evenkeel_upstream_unavailable_total",
    "Requests and connections refused because no endpoint was available.",
);

pub const DISCOVERY_UPDATES: Name = name(
    "evenkeel_discovery_updates_total",
    "Answers of the sources of an upstream's endpoints: changed, unchanged, failed.",
);
pub const DISCOVERY_ENDPOINTS: Name = name(
    "evenkeel_discovery_endpoints",
    "Endpoints of an upstream that has sources, whether they are up or not.",
);

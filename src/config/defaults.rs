//! Every default there is, with its reason. `config/reference.toml` tells users the same.

use std::time::Duration;

use http::HeaderName;

use crate::cache::ahead::{Ahead, Thousandths};
use crate::h1::desync;
use crate::health::outlier;
use crate::sticky::SameSite;

/// Long enough for ordinary requests, short enough for an orchestrator's patience.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
pub const LOG_LEVEL: &str = "info";

/// A request with two readings is an attack or a broken client: neither is helped by guessing.
pub const DESYNC: desync::Mode = desync::Mode::Strict;
/// Request head in bytes: twice what browsers with many cookies send.
pub const MAX_HEAD: usize = 32 << 10;
/// Request-target in bytes (RFC 9112 section 3 recommends at least 8000).
pub const MAX_TARGET: usize = 8 << 10;
/// Fields of a request: more is an attack or a loop.
pub const MAX_HEADERS: usize = 100;
/// A head fits in one packet or two: only a slow attacker needs longer.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(15);
/// Browsers come back within a minute or not at all.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A pause, not the whole body: uploads of any length pass.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing for so long is gone.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes per second: the slowest modems moved more, and one byte a second is an attack.
pub const MIN_RATE: u64 = 500;
/// WebSockets are silent for long, but not for ever.
pub const TUNNEL_TIMEOUT: Duration = Duration::from_secs(3600);
/// HTTP/2 streams at once on a connection (RFC 9113 section 6.5.2 recommends at least 100).
pub const MAX_STREAMS: u32 = 100;

/// Database connections are silent for minutes.
pub const TCP_IDLE_TIMEOUT: Duration = Duration::from_secs(600);
/// After one side has said all it has to say.
pub const HALF_CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

pub const REDIRECT_STATUS: u16 = 308;
/// A route's share in a `split`, an endpoint's share in an upstream.
pub const WEIGHT: u16 = 1;
/// Off. What is known to be down gets nothing: at half (Envoy's default) half the requests would go to the dead.
pub const PANIC_THRESHOLD: f64 = 0.0;

/// One lost SYN is sent again after a second, a second one after three.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// A pause within a response: event streams send something more often.
pub const READ_TIMEOUT: Duration = Duration::from_secs(300);
/// Shorter than the idle time-out of nearly every HTTP server, so that a connection is not reused as it closes.
pub const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(15);
pub const POOL_MAX_IDLE: usize = 512;
/// One more endpoint is tried; more would multiply the load when all of them suffer.
pub const RETRIES: u32 = 1;
/// Share of the requests under way that may be repetitions: Envoy's and linkerd's; a weakness that stays costs a fifth more.
pub const RETRY_BUDGET: f64 = 0.2;
/// A share of few requests would be none.
pub const RETRY_MIN_CONCURRENCY: u32 = 3;
/// Finagle's and linkerd's: nobody is hurt by so many, and saved up they let no request fail with an endpoint that dies.
pub const RETRY_MIN_PER_SECOND: u32 = 10;
/// Long enough for a restarting process to listen again after a few, short enough not to be felt after one.
pub const RETRY_BACKOFF_BASE: Duration = Duration::from_millis(25);
pub const RETRY_BACKOFF_MAX: Duration = Duration::from_millis(250);
/// Forms and API calls fit; uploads are streamed and not repeated once they were begun.
pub const RETRY_BUFFER: usize = 64 << 10;
/// Of a cookie's secrets, in bytes: as strong as the tag. `openssl rand -hex 32` makes 64.
pub const STICKY_SECRET: usize = 32;
/// Sent when people come from other sites, not when these embed something (browsers' own default).
pub const STICKY_SAME_SITE: SameSite = SameSite::Lax;
/// Where an adaptive limit begins: what a small endpoint bears; a large one gets more within seconds.
pub const ADAPTIVE_INITIAL: u32 = 20;
pub const ADAPTIVE_MIN: u32 = 4;
pub const ADAPTIVE_MAX: u32 = 1_000;
/// Half as slow again as with room: less, and ordinary scatter would cost capacity.
pub const ADAPTIVE_TOLERANCE: f64 = 1.5;
/// HAProxy's usual setting; a longer line would be served too late to matter.
pub const QUEUE_SIZE: usize = 1024;
/// As long as a connection may take: people wait no longer.
pub const QUEUE_TIMEOUT: Duration = Duration::from_secs(3);
pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
/// Where name servers listen (RFC 1035 section 4.2).
pub const DNS_PORT: u16 = 53;

/// Asking costs as much as a few picks: of a hundred requests nobody notices.
pub const SHADOW_SAMPLE: u32 = 100;

pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
/// What `outlier = true` means; without the key, `consecutive_gateway` alone.
///
/// Five failures in a row are no chance, a base of 10 s is as long as a restart takes (and grows where it is not), and half
/// of the endpoints must be left: below that the rest is crushed. Comparisons are Envoy's; latency differs for good
/// reasons (zones, generations of hardware), so it is off.
pub const OUTLIER: outlier::Spec = outlier::Spec {
    consecutive_5xx: 5,
    consecutive_gateway: 5,
    success_rate: 1.9,
    failure_rate: 0.85,
    latency: 0.0,
    minimum_hosts: 5,
    minimum_requests: 100,
    window: Duration::from_secs(10),
    base_ejection: Duration::from_secs(10),
    max_ejection: Duration::from_secs(300),
    max_ejected: 0.5,
};
/// While results speak against what an endpoint is taken for, at most the interval: it is soon known, at little cost.
pub const HEALTH_INTERVAL_CHANGING: Duration = Duration::from_secs(1);
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
pub const HEALTH_RISE: u32 = 2;
pub const HEALTH_FALL: u32 = 3;
/// Keeps the probes of many proxies from falling together.
pub const HEALTH_JITTER: f64 = 0.2;
pub const HEALTH_STATUS: (u16, u16) = (200, 399);

/// Longest lifetime that is guessed from Last-Modified: a day is what nobody regrets (RFC 9111 section 4.2.2).
pub const CACHE_HEURISTIC: Duration = Duration::from_secs(86_400);
/// Something old is better than an error, for as long as most outages last.
pub const CACHE_STALE_IF_ERROR: Duration = Duration::from_secs(600);
/// A tenth of a lifetime is time enough for an endpoint, and costs it a tenth more; who comes a third time comes again.
pub const CACHE_AHEAD: Ahead = Ahead {
    last: Thousandths(100),
    hits: 3,
};
/// What a request carries that is stored by it: queries are short, and each is held while it is looked up.
pub const CACHE_MAX_CONTENT: u64 = 64 << 10;
/// Bytes of a stored response's fields.
pub const CACHE_MAX_HEAD: usize = 16 << 10;

/// Our own targeted field before everybody's (RFC 9213).
pub fn cache_targets() -> Vec<HeaderName> {
    vec![
        HeaderName::from_static("evenkeel-cache-control"),
        HeaderName::from_static("cdn-cache-control"),
    ]
}

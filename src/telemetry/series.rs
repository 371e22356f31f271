//! The counters themselves, grouped by what they describe. Resolved once when a snapshot is built;
//! the data path only adds.

use std::time::Duration;

use super::reasons::{CutBy, Denied, Hedged, ShedBy, Stuck};
use super::shard::{LocalCounter, Sharded};
use crate::base::tail::Tail;

/// Counters of one listener.
#[derive(Debug, Default)]
pub struct ListenerShard {
    pub accepted: LocalCounter,
    pub closed: LocalCounter,
    /// Refused because a connection limit was reached.
    pub refused: LocalCounter,
    /// TLS handshakes that failed or timed out.
    pub handshake_failures: LocalCounter,
    /// `accept(2)` failed, most often for want of file descriptors.
    pub accept_errors: LocalCounter,
    /// HTTP/1 requests by what `h1::desync` says of them: in the order of its classes.
    pub desync: [LocalCounter; 4],
    /// Bytes read from clients.
    pub bytes_in: LocalCounter,
    /// Bytes written to clients.
    pub bytes_out: LocalCounter,
}
pub type ListenerSeries = Sharded<ListenerShard>;

/// Counters of one (listener, route, upstream).
#[derive(Debug, Default)]
pub struct RequestShard {
    codes: Codes,
    pub duration: Histogram,
    cut: [LocalCounter; CutBy::ALL.len()],
}
pub type RequestSeries = Sharded<RequestShard>;

impl RequestShard {
    /// Counts one finished request.
    pub fn record(&self, code: u16, took: Duration) {
        self.codes.count(code);
        self.duration.observe(took);
    }

    /// The counter of responses that ended early for this reason.
    pub fn cut(&self, by: CutBy) -> &LocalCounter {
        &self.cut[by as usize]
    }

    /// `(code, count)` of every status seen; 0 stands for codes outside 100 to 599.
    pub fn codes(&self) -> impl Iterator<Item = (u16, u64)> {
        self.codes.iter()
    }
}

/// One counter per status code, in rows of a hundred that are made when first used.
#[derive(Debug, Default)]
struct Codes {
    rows: [std::sync::OnceLock<Box<[LocalCounter; 100]>>; 5],
    other: LocalCounter,
}

impl Codes {
    fn count(&self, code: u16) {
        let (row, column) = (usize::from(code) / 100, usize::from(code) % 100);
        match row.checked_sub(1).and_then(|r| self.rows.get(r)) {
            Some(row) => row.get_or_init(|| Box::new(std::array::from_fn(|_| LocalCounter::default())))[column].add(1),
            None => self.other.add(1),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        let known = self.rows.iter().enumerate().flat_map(|(r, row)| {
            row.get().into_iter().flat_map(move |cells| {
                cells
                    .iter()
                    .enumerate()
                    .map(move |(c, n)| ((r as u16 + 1) * 100 + c as u16, n.get()))
            })
        });
        known.chain([(0, self.other.get())]).filter(|(_, n)| *n > 0)
    }
}

/// Upper bounds of the duration histogram, in microseconds.
pub const DURATION_BOUNDS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000,
    10_000_000, 30_000_000, 60_000_000,
];

/// A histogram of durations with fixed bounds.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [LocalCounter; DURATION_BOUNDS_US.len() + 1],
    sum_us: LocalCounter,
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, took: Duration) {
        let us = took.as_micros() as u64;
        let bucket = DURATION_BOUNDS_US
            .iter()
            .position(|b| us <= *b)
            .unwrap_or(DURATION_BOUNDS_US.len());
        self.buckets[bucket].add(1);
        self.sum_us.add(us);
    }

    /// Adds this shard's counts (not cumulative; the last is above every bound) and microseconds to `into`.
    pub fn add_to(&self, into: &mut HistogramSum) {
        for (total, n) in into.buckets.iter_mut().zip(&self.buckets) {
            *total += n.get();
        }
        into.sum_us += self.sum_us.get();
    }
}

/// A histogram summed over writers.
#[derive(Debug, Default, Clone)]
pub struct HistogramSum {
    pub buckets: [u64; DURATION_BOUNDS_US.len() + 1],
    pub sum_us: u64,
}

impl HistogramSum {
    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The duration below which a share `q` of all lies, by linear interpolation inside its bucket.
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let total = self.count();
        if total == 0 {
            return None;
        }
        let rank = (q.clamp(0.0, 1.0) * total as f64).max(1.0);
        let (mut below, mut lower) = (0.0, 0u64);
        for (n, upper) in self.buckets.iter().zip(DURATION_BOUNDS_US) {
            let here = below + *n as f64;
            if here >= rank {
                let share = (rank - below) / *n as f64;
                return Some(Duration::from_micros(lower + (share * (upper - lower) as f64) as u64));
            }
            (below, lower) = (here, upper);
        }
        Some(Duration::from_micros(lower))
    }
}

/// How one attempt at an endpoint ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A response head came back, whatever its status below 500; at Layer 4: the connection was made.
    Success,
    /// A response with a 5xx status.
    ServerError,
    /// Refused or unreachable.
    ConnectFailed,
    ConnectTimeout,
    /// The TLS handshake failed, or did not end in time.
    TlsFailed,
    TlsTimeout,
    /// The connection broke before a whole response head.
    Reset,
    /// No response head in time.
    ResponseTimeout,
    /// No response head within `per_try_timeout`.
    TryTimeout,
    /// The endpoint refused the stream: it did nothing with the request.
    Refused,
    /// The endpoint's response broke the protocol.
    BadResponse,
    /// The time for the whole request was over first.
    Deadline,
    /// A second attempt beside it answered first, or it was that one and the first did.
    HedgeLost,
    /// The client went away first.
    Cancelled,
    /// This process lacked descriptors or memory: no fault of the endpoint.
    Exhausted,
    /// It has as many connections as it may, and none was closed in time: no fault of the endpoint.
    Full,
}

impl Outcome {
    pub const ALL: [Self; 16] = [
        Self::Success,
        Self::ServerError,
        Self::ConnectFailed,
        Self::ConnectTimeout,
        Self::TlsFailed,
        Self::TlsTimeout,
        Self::Reset,
        Self::ResponseTimeout,
        Self::TryTimeout,
        Self::Refused,
        Self::BadResponse,
        Self::Deadline,
        Self::HedgeLost,
        Self::Cancelled,
        Self::Exhausted,
        Self::Full,
    ];

    /// The value of the metric label `outcome`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::ServerError => "server_error",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsFailed => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::Reset => "reset",
            Self::ResponseTimeout => "response_timeout",
            Self::TryTimeout => "try_timeout",
            Self::Refused => "refused_stream",
            Self::BadResponse => "bad_response",
            Self::Deadline => "deadline",
            Self::HedgeLost => "hedge_lost",
            Self::Cancelled => "cancelled",
            Self::Exhausted => "exhausted",
            Self::Full => "connections_full",
        }
    }
}

impl Outcome {
    /// Whether it says nothing about the endpoint, which was not even asked.
    pub fn is_ours(self) -> bool {
        matches!(self, Self::Exhausted | Self::Full)
    }

    /// Whether the endpoint gave no answer, for a reason of its own.
    pub fn is_gateway_failure(self) -> bool {
        matches!(
            self,
            Self::ConnectFailed
                | Self::ConnectTimeout
                | Self::TlsFailed
                | Self::TlsTimeout
                | Self::Reset
                | Self::ResponseTimeout
                | Self::TryTimeout
                | Self::BadResponse
        )
    }
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EjectReason {
    Consecutive5xx,
    ConsecutiveGateway,
    SuccessRate,
    FailureRate,
    Latency,
}

impl EjectReason {
    pub const ALL: [Self; 5] = [
        Self::Consecutive5xx,
        Self::ConsecutiveGateway,
        Self::SuccessRate,
        Self::FailureRate,
        Self::Latency,
    ];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Consecutive5xx => "consecutive_5xx",
            Self::ConsecutiveGateway => "consecutive_gateway",
            Self::SuccessRate => "success_rate",
            Self::FailureRate => "failure_rate",
            Self::Latency => "latency",
        }
    }
}

/// How one probe of a health check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    Passed,
    ConnectFailed,
    TlsFailed,
    /// An answer, or an end of the connection, that is not what a healthy endpoint gives.
    WrongAnswer,
    Timeout,
}

impl ProbeResult {
    pub const ALL: [Self; 5] = [
        Self::Passed,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::WrongAnswer,
        Self::Timeout,
    ];

    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::WrongAnswer => "wrong_answer",
            Self::Timeout => "timeout",
        }
    }
}

/// Counters of one endpoint.
#[derive(Debug, Default)]
pub struct EndpointShard {
    outcomes: [LocalCounter; Outcome::ALL.len()],
    /// From the attempt's begin to the response's head; at Layer 4 until the connection was made. Only of attempts
    /// that came so far.
    pub latency: Histogram,
    /// HTTP/1 connections at rest, as of the last second.
    pub idle: LocalCounter,
    /// Requests sent again because the endpoint closed the connection at rest that they were sent on.
    pub replays: LocalCounter,
}
pub type EndpointSeries = Sharded<EndpointShard>;

impl EndpointShard {
    /// The counter of one outcome.
    pub fn outcome(&self, outcome: Outcome) -> &LocalCounter {
        &self.outcomes[outcome as usize]
    }
}

/// Counters of one upstream.
#[derive(Debug, Default)]
pub struct UpstreamShard {
    pub retries: LocalCounter,
    retries_denied: [LocalCounter; Denied::ALL.len()],
    shed: [LocalCounter; ShedBy::ALL.len()],
    hedged: [LocalCounter; Hedged::ALL.len()],
    stuck: [LocalCounter; Stuck::ALL.len()],
    /// Requests or connections refused because no endpoint was available.
    pub unavailable: LocalCounter,
    /// What answered attempts took; kept only where the balancing asks for it.
    pub tail: Tail,
    /// Picks until one is put to the other algorithms too.
    pub until_sampled: LocalCounter,
}
pub type UpstreamSeries = Sharded<UpstreamShard>;

impl UpstreamShard {
    /// The counter of attempts that were not made for this reason.
    pub fn denied(&self, reason: Denied) -> &LocalCounter {
        &self.retries_denied[reason as usize]
    }

    /// The counter of second attempts that ended so.
    pub fn hedged(&self, end: Hedged) -> &LocalCounter {
        &self.hedged[end as usize]
    }

    /// The counter of requests of bound clients of which this became.
    pub fn stuck(&self, result: Stuck) -> &LocalCounter {
        &self.stuck[result as usize]
    }

    /// The counter of those who were sent away for this reason.
    pub fn shed(&self, by: ShedBy) -> &LocalCounter {
        &self.shed[by as usize]
    }
}

/// What a cache did with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheResult {
    /// Answered from the store.
    Hit,
    Miss,
    /// Answered from the store although it was stale.
    Stale,
    /// The endpoint said that what is stored is current.
    Revalidated,
    /// The cache had no part in it.
    Bypass,
    /// Answered by what was fetched for another.
    Collapsed,
    /// Nothing was stored, and no endpoint answered.
    Error,
}

impl CacheResult {
    pub const ALL: [Self; 7] = [
        Self::Hit,
        Self::Miss,
        Self::Stale,
        Self::Revalidated,
        Self::Bypass,
        Self::Collapsed,
        Self::Error,
    ];

    /// The value of the metric label `result`, and of `cache` in the access log.
    pub fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Bypass => "bypass",
            Self::Collapsed => "collapsed",
            Self::Error => "error",
        }
    }
}

/// Counters of one cache.
#[derive(Debug, Default)]
pub struct CacheShard {
    /// In the order of [`CacheResult::ALL`].
    pub results: [LocalCounter; CacheResult::ALL.len()],
    /// Requests to endpoints for what is to be stored.
    pub fills: LocalCounter,
}
pub type CacheSeries = Sharded<CacheShard>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_counted_exactly_and_strange_ones_together() {
        let shard = RequestShard::default();
        for code in [200, 200, 404, 999, 0, 599] {
            shard.record(code, Duration::from_millis(1));
        }
        assert_eq!(
            shard.codes().collect::<Vec<_>>(),
            [(200, 2), (404, 1), (599, 1), (0, 2)]
        );
    }

    #[test]
    fn quantiles_interpolate() {
        let h = Histogram::default();
        for _ in 0..100 {
            h.observe(Duration::from_micros(700));
        }
        let mut sum = HistogramSum::default();
        h.add_to(&mut sum);
        assert_eq!(sum.count(), 100);
        assert_eq!(sum.quantile(0.5), Some(Duration::from_micros(750)));
        assert_eq!(HistogramSum::default().quantile(0.5), None);
    }
}

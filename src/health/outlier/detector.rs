//! Decides who is ejected, for how long, and who returns.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::Spec;
use super::statistics::{median, spread};
use crate::base::rng::Rng;
use crate::telemetry::series::EjectReason;

/// Buckets of a window.
const BUCKETS: u32 = 10;
/// A success rate so little below the mean is no reason, however equal the others are.
const LEAST_GAP: f64 = 0.05;
/// Nor one that lies within so many standard errors of what chance makes of so few requests.
const NOISE: f64 = 4.0;
/// A latency must be so many times the median, however equal the others are.
const LEAST_RATIO: f64 = 3.0;
/// Ejections are shortened at random by up to this share: many proxies do not let an endpoint back in one instant.
const JITTER: f64 = 0.1;

/// What has been counted of an endpoint since it exists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Answers other than 5xx.
    pub successes: u64,
    /// Answers with 5xx.
    pub server_errors: u64,
    /// Connect failures, resets, time-outs, broken answers.
    pub gateway: u64,
    /// Microseconds until the heads of all answers.
    pub latency_us: u64,
}

/// An endpoint as it is now.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// `State::id`.
    pub id: u32,
    /// It would be picked if it were not ejected.
    pub usable: bool,
    pub totals: Totals,
    /// Failures in a row have reached a limit.
    pub tripped: Option<EjectReason>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Eject {
        id: u32,
        reason: EjectReason,
        /// In words, with figures.
        detail: String,
        time: Duration,
        /// The how-manieth ejection in a row.
        times: u32,
    },
    Return {
        id: u32,
    },
}

/// One upstream's.
#[derive(Debug)]
pub struct Detector {
    spec: Spec,
    hosts: HashMap<u32, Host>,
    /// When the current bucket is full. `None`: none was begun.
    bucket_ends: Option<Duration>,
}

#[derive(Debug, Default)]
struct Host {
    last: Option<Totals>,
    /// What was counted in each of the last buckets, the newest last.
    buckets: VecDeque<Totals>,
    /// Until when it is ejected.
    until: Option<Duration>,
    times: u32,
    returned: Duration,
}

impl Detector {
    pub fn new(spec: Spec) -> Self {
        Self {
            spec,
            hosts: HashMap::new(),
            bucket_ends: None,
        }
    }

    pub fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Goes on with other settings.
    pub fn set_spec(&mut self, spec: Spec) {
        self.spec = spec;
        self.bucket_ends = None;
        self.hosts.values_mut().for_each(|host| host.buckets.clear());
    }

    /// When [`Detector::judge`] is to be called at the latest, alarms aside.
    pub fn next(&self) -> Option<Duration> {
        let returns = self.hosts.values().filter_map(|host| host.until);
        let bucket = self.bucket_ends.unwrap_or_default();
        returns.chain(self.spec.compares().then_some(bucket)).min()
    }

    /// What is to be done now. Times are counted from any fixed point.
    pub fn judge(&mut self, now: Duration, all: &[Seen], rng: &mut Rng) -> Vec<Decision> {
        let mut decisions = Vec::new();
        for seen in all {
            let host = self.hosts.entry(seen.id).or_default();
            if host.until.is_some_and(|until| until <= now) {
                (host.until, host.returned) = (None, now);
                decisions.push(Decision::Return { id: seen.id });
            }
        }
        if self.hosts.len() > all.len() {
            let present: HashSet<u32> = all.iter().map(|seen| seen.id).collect();
            self.hosts.retain(|id, _| present.contains(id));
        }
        // The worst first: not all may go.
        let mut suspects: Vec<_> = all
            .iter()
            .filter_map(|seen| Some((f64::INFINITY, seen.id, seen.tripped?, String::new())))
            .collect();
        if self.spec.compares() && self.bucket_ends.is_none_or(|ends| ends <= now) {
            self.bucket_ends = Some(now + self.spec.window / BUCKETS);
            self.close_buckets(all);
            suspects.extend(self.compare(all));
        }
        if suspects.is_empty() {
            return decisions;
        }
        suspects.sort_by(|a, b| b.0.total_cmp(&a.0));
        let usable = all.iter().filter(|seen| seen.usable);
        let (out, left): (Vec<&Seen>, Vec<&Seen>) = usable.partition(|seen| self.is_ejected(seen.id));
        let allowed = (self.spec.max_ejected * (out.len() + left.len()) as f64)
            .floor()
            .max(1.0) as usize;
        let left: HashSet<u32> = left.iter().map(|seen| seen.id).collect();
        let mut room = allowed.saturating_sub(out.len());
        let mut gone = 0;
        for (_, id, reason, detail) in suspects {
            // The last one stays; one that is down is out already.
            if room == 0 || !left.contains(&id) || self.is_ejected(id) || left.len() == gone + 1 {
                continue;
            }
            (room, gone) = (room - 1, gone + 1);
            decisions.extend(self.eject(now, id, reason, detail, rng));
        }
        decisions
    }

    fn is_ejected(&self, id: u32) -> bool {
        self.hosts.get(&id).is_some_and(|host| host.until.is_some())
    }

    fn close_buckets(&mut self, all: &[Seen]) {
        for seen in all {
            let Some(host) = self.hosts.get_mut(&seen.id) else {
                continue;
            };
            // What was counted before it was first seen tells nothing of now.
            let last = host.last.replace(seen.totals).unwrap_or(seen.totals);
            host.buckets.push_back(seen.totals.since(&last));
            if host.buckets.len() > BUCKETS as usize {
                host.buckets.pop_front();
            }
        }
    }

    /// Those that lie apart from the others in the window, with how far.
    fn compare(&self, all: &[Seen]) -> Vec<(f64, u32, EjectReason, String)> {
        let spec = &self.spec;
        let windows: Vec<(u32, Totals)> = all
            .iter()
            .filter(|seen| seen.usable)
            .filter_map(|seen| Some((seen.id, self.hosts.get(&seen.id)?)))
            .filter(|(_, host)| host.until.is_none())
            .map(|(id, host)| (id, host.buckets.iter().fold(Totals::default(), Totals::plus)))
            .filter(|(_, window)| window.attempts() >= spec.minimum_requests.max(1))
            .collect();
        let mut found = Vec::new();
        if windows.len() < spec.minimum_hosts.max(2) {
            return found;
        }
        let rates: Vec<f64> = windows.iter().map(|(_, w)| w.success_rate()).collect();
        let (mean, deviation) = spread(&rates);
        // What fails everywhere has one cause: fewer endpoints would not help.
        let most_fail = 1.0 - median(&rates) >= spec.failure_rate;
        for ((id, window), rate) in windows.iter().zip(&rates) {
            let failed = 1.0 - rate;
            let chance = (mean * (1.0 - mean) / window.attempts() as f64).sqrt();
            let gap = (spec.success_rate * deviation).max(NOISE * chance).max(LEAST_GAP);
            if spec.failure_rate > 0.0 && failed >= spec.failure_rate && !most_fail {
                let detail = format!("{:.1} % failed", 100.0 * failed);
                found.push((failed, *id, EjectReason::FailureRate, detail));
            } else if spec.success_rate > 0.0 && *rate < mean - gap {
                let detail = format!("{:.1} % succeeded, of all {:.1} %", 100.0 * rate, 100.0 * mean);
                found.push((failed, *id, EjectReason::SuccessRate, detail));
            }
        }
        if spec.latency > 0.0 {
            let answered: Vec<_> = windows
                .iter()
                .filter_map(|(id, w)| Some((*id, w.latency_ms()?)))
                .collect();
            let latencies: Vec<f64> = answered.iter().map(|(_, ms)| *ms).collect();
            let ((mean, deviation), middle) = (spread(&latencies), median(&latencies));
            for (id, ms) in answered {
                if ms > mean + spec.latency * deviation && ms > LEAST_RATIO * middle {
                    let detail = format!("{ms:.1} ms on average, the median endpoint {middle:.1} ms");
                    // Behind those that fail.
                    found.push((-1.0 / ms, id, EjectReason::Latency, detail));
                }
            }
        }
        found
    }

    fn eject(
        &mut self,
        now: Duration,
        id: u32,
        reason: EjectReason,
        detail: String,
        rng: &mut Rng,
    ) -> Option<Decision> {
        let spec = &self.spec;
        let host = self.hosts.get_mut(&id)?;
        // One is forgiven for every base time it has done well.
        let quiet = now.saturating_sub(host.returned).as_secs_f64() / spec.base_ejection.as_secs_f64().max(0.001);
        host.times = host.times.saturating_sub(quiet as u32) + 1;
        let time = spec.base_ejection.saturating_mul(host.times).min(spec.max_ejection);
        let time = rng.shortened(time, JITTER);
        host.until = Some(now + time);
        // What led here counts once.
        host.buckets.clear();
        Some(Decision::Eject {
            id,
            reason,
            detail,
            time,
            times: host.times,
        })
    }
}

impl Totals {
    fn since(&self, last: &Self) -> Self {
        Self {
            successes: self.successes.saturating_sub(last.successes),
            server_errors: self.server_errors.saturating_sub(last.server_errors),
            gateway: self.gateway.saturating_sub(last.gateway),
            latency_us: self.latency_us.saturating_sub(last.latency_us),
        }
    }

    fn plus(self, other: &Self) -> Self {
        Self {
            successes: self.successes + other.successes,
            server_errors: self.server_errors + other.server_errors,
            gateway: self.gateway + other.gateway,
            latency_us: self.latency_us + other.latency_us,
        }
    }

    fn attempts(&self) -> u64 {
        self.successes + self.server_errors + self.gateway
    }

    fn success_rate(&self) -> f64 {
        self.successes as f64 / self.attempts().max(1) as f64
    }

    /// Of those that were answered.
    fn latency_ms(&self) -> Option<f64> {
        let answered = self.successes + self.server_errors;
        (answered > 0).then(|| self.latency_us as f64 / 1e3 / answered as f64)
    }
}

#[cfg(test)]
mod tests;

//! Shadow scoring: what the algorithms that are not in use would have done to latency, failures and imbalance.
//!
//! A sample of first picks is put to all of them (`balance/shadow.rs`), and counted at the endpoints that each would have
//! taken. Once a second control looks at what was counted and at what these endpoints did in the meantime, and charges each
//! algorithm for its choices: a pick of an endpoint is expected to take what this endpoint's answers take these seconds,
//! and to fail as often as its attempts do. So also the one in use is charged what is expected, and all are measured alike.
//!
//! Where an algorithm would have sent every request, endpoints would be loaded otherwise than they are. That is told by
//! the imbalance: what would be under way at each, if all went on taking the time they take (Little's law), at
//! the busiest over the mean.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Member, UNKNOWN_P99, Upstream};
use crate::balance::{Memory, PickContext};
use crate::endpoint::latency::Sample;
use crate::endpoint::tally::ALGORITHMS;
use crate::endpoint::{Health, State};
use crate::telemetry::series::{DURATION_BOUNDS_US, HistogramSum, Outcome};

/// What an endpoint did counts so much less with every second in which it did more: by a third after 10 s.
const KEEP_SEEN: f64 = 0.9;
/// What an algorithm would have done, likewise: by a third after a quarter of an hour.
const KEEP_RECENT: f64 = 0.999;
/// Sampled picks for each endpoint from which the busiest is told: of fewer, chance would make one.
const ENOUGH: f64 = 20.0;

/// Which picks are sampled, and what becomes of them.
#[derive(Debug, Clone)]
pub struct Sampling {
    /// One in so many, on average.
    pub one_in: u32,
    /// Survives reloads with the upstream.
    pub ledger: Arc<Ledger>,
}

/// All that was found.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The others' own: only what is under way is everybody's.
    memory: Memory,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By id.
    endpoints: HashMap<u32, Seen>,
    accounts: [Account; ALGORITHMS],
}

/// What is known of one endpoint.
#[derive(Debug, Default)]
struct Seen {
    /// All there was until the last look.
    before: Totals,
    lately: Expected,
    /// Microseconds that each algorithm would have kept it busy with lately.
    busy: [f64; ALGORITHMS],
}

#[derive(Debug, Default, Clone)]
struct Totals {
    answers: HistogramSum,
    failed: u64,
    attempts: u64,
}

/// How attempts end, in parts of attempts.
#[derive(Debug, Default, Clone)]
pub struct Expected {
    buckets: [f64; DURATION_BOUNDS_US.len() + 1],
    sum_us: f64,
    failed: f64,
    attempts: f64,
}

/// One algorithm's.
#[derive(Debug, Default, Clone)]
pub struct Account {
    /// What was put to it and could be charged, since the upstream is there.
    pub picks: u64,
    pub total: Expected,
    /// Of about the last quarter of an hour.
    pub recent: Expected,
    /// Under way at the busiest endpoint over the mean of all, of about the last quarter of an hour. `None`: not enough is known.
    pub imbalance: Option<f64>,
}

impl Upstream {
    /// The number of the algorithm in use, when this pick is to be put to the others too.
    pub(super) fn sampled(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let sampling = self.settings.shadow.as_ref()?;
        let left = &self.series.local(cx.worker).until_sampled;
        match left.get() {
            // A second attempt is another question: somebody has failed.
            0 if cx.tried.is_empty() => {
                // By chance: what comes in turns is not always met at the same turn.
                left.set(cx.rng.below(2 * u64::from(sampling.one_in) - 1));
                Some(self.settings.balance.number())
            }
            0 => None,
            n => {
                left.set(n - 1);
                None
            }
        }
    }

    /// Charges the algorithms for what was sampled since the last call, and makes those for the next samples. Control calls
    /// this once a second.
    pub fn score(&self, now: Instant) {
        let Some(Sampling { ledger, .. }) = &self.settings.shadow else {
            return;
        };
        let how = How {
            timed: self.settings.timed,
            feeds: !self.settings.balance.wants_latency(),
        };
        ledger.lock().look(&self.members(), now, how);
        let memory = Memory {
            active: self.memory.active.clone(),
            ..ledger.memory.clone()
        };
        self.group.load().add_shadows(&self.settings.balance, &memory);
    }

    /// What was found of each algorithm that was asked, by its number.
    pub fn accounts(&self) -> Vec<(usize, Account)> {
        let Some(Sampling { ledger, .. }) = &self.settings.shadow else {
            return Vec::new();
        };
        let accounts = ledger.lock().accounts.clone();
        let all = accounts.into_iter().enumerate();
        all.filter(|(_, account)| account.picks > 0).collect()
    }
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while it was held left sums behind that are a little off.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
struct How {
    /// Else all work is taken to last alike.
    timed: bool,
    /// What endpoints take is not reported, as the algorithm in use does not ask, and told here for the one that does.
    feeds: bool,
}

impl Inner {
    fn look(&mut self, members: &[Member], now: Instant, how: How) {
        let picks: Vec<_> = members.iter().map(|member| member.endpoint.tally.take()).collect();
        // Nobody was asked: what endpoints do meanwhile is seen when somebody is.
        if picks.iter().flatten().all(|n| *n == 0) {
            return;
        }
        let p99 = self.recent_p99();
        for endpoint in members.iter().map(|member| &member.endpoint) {
            let news = self.endpoints.entry(endpoint.id).or_default().look(endpoint);
            if how.feeds
                && let Some(sample) = news.sample(p99)
            {
                endpoint.latency.observe(now, sample);
            }
        }
        if self.endpoints.len() > members.len() {
            let here: HashSet<u32> = members.iter().map(|member| member.endpoint.id).collect();
            self.endpoints.retain(|id, _| here.contains(id));
        }
        // Of whom nothing is known yet is expected what the others do.
        let mut usual = Expected::default();
        for seen in self.endpoints.values().filter(|seen| seen.lately.attempts > 0.0) {
            usual.add(&seen.lately, 1.0 / seen.lately.attempts);
        }
        if usual.attempts == 0.0 {
            return;
        }
        self.accounts
            .iter_mut()
            .for_each(|account| account.recent.scale(KEEP_RECENT));
        for (member, picks) in members.iter().zip(picks) {
            let Some(seen) = self.endpoints.get_mut(&member.endpoint.id) else {
                continue;
            };
            let expected = if seen.lately.attempts > 0.0 {
                &seen.lately
            } else {
                &usual
            };
            let each_us = if how.timed { expected.mean_us() } else { 1.0 };
            for ((account, busy), picks) in self.accounts.iter_mut().zip(&mut seen.busy).zip(picks) {
                *busy *= KEEP_RECENT;
                if picks > 0 {
                    let part = f64::from(picks) / expected.attempts;
                    account.picks += u64::from(picks);
                    account.total.add(expected, part);
                    account.recent.add(expected, part);
                    *busy += f64::from(picks) * each_us;
                }
            }
        }
        for number in 0..ALGORITHMS {
            self.accounts[number].imbalance = self.imbalance(number, members);
        }
    }

    /// What endpoints that fail before anybody knows more are charged.
    fn recent_p99(&self) -> Duration {
        let all = self
            .accounts
            .iter()
            .max_by(|a, b| a.recent.attempts.total_cmp(&b.recent.attempts));
        all.and_then(|account| account.recent.quantile(0.99))
            .unwrap_or(UNKNOWN_P99)
    }

    fn imbalance(&self, number: usize, members: &[Member]) -> Option<f64> {
        let able = members
            .iter()
            .filter(|m| m.takes_work() && m.endpoint.standing() == Health::Up);
        let (mut greatest, mut busy, mut weights, mut count) = (0.0f64, 0.0, 0.0, 0.0);
        for member in able {
            let seen = self.endpoints.get(&member.endpoint.id)?;
            let weight = f64::from(member.endpoint.orders.weight(member.weight));
            greatest = greatest.max(seen.busy[number] / weight);
            busy += seen.busy[number];
            weights += weight;
            count += 1.0;
        }
        let enough = self.accounts[number].recent.attempts >= ENOUGH * count;
        (enough && busy > 0.0).then(|| greatest * weights / busy)
    }
}

impl Seen {
    /// Takes in what the endpoint did since the last look, and tells it.
    fn look(&mut self, endpoint: &State) -> Expected {
        let totals = totals(endpoint);
        let news = Expected::between(&self.before, &totals);
        self.before = totals;
        if news.attempts > 0.0 {
            self.lately.scale(KEEP_SEEN);
            self.lately.add(&news, 1.0);
        }
        news
    }
}

fn totals(endpoint: &State) -> Totals {
    let mut totals = Totals::default();
    for part in endpoint.series.parts() {
        part.latency.add_to(&mut totals.answers);
        for outcome in Outcome::ALL {
            let n = part.outcome(outcome).get();
            if outcome == Outcome::ServerError || outcome.is_gateway_failure() {
                totals.failed += n;
                totals.attempts += n;
            } else if outcome == Outcome::Success {
                totals.attempts += n;
            }
        }
    }
    totals
}

impl Expected {
    fn between(before: &Totals, after: &Totals) -> Self {
        let (old, new) = (&before.answers, &after.answers);
        let mut buckets = [0.0; DURATION_BOUNDS_US.len() + 1];
        for (n, (old, new)) in buckets.iter_mut().zip(old.buckets.iter().zip(&new.buckets)) {
            *n = new.saturating_sub(*old) as f64;
        }
        Self {
            buckets,
            sum_us: new.sum_us.saturating_sub(old.sum_us) as f64,
            failed: after.failed.saturating_sub(before.failed) as f64,
            attempts: after.attempts.saturating_sub(before.attempts) as f64,
        }
    }

    fn scale(&mut self, by: f64) {
        self.buckets.iter_mut().for_each(|n| *n *= by);
        self.sum_us *= by;
        self.failed *= by;
        self.attempts *= by;
    }

    fn add(&mut self, other: &Self, part: f64) {
        for (n, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *n += more * part;
        }
        self.sum_us += other.sum_us * part;
        self.failed += other.failed * part;
        self.attempts += other.attempts * part;
    }

    /// What an answer takes; 0 where there is none.
    fn mean_us(&self) -> f64 {
        let answers: f64 = self.buckets.iter().sum();
        if answers > 0.0 { self.sum_us / answers } else { 0.0 }
    }

    /// What these attempts say to the algorithm that goes by latency.
    fn sample(&self, p99: Duration) -> Option<Sample> {
        let mean = Duration::from_micros(self.mean_us() as u64);
        match self.attempts {
            0.0 => None,
            attempts if self.failed * 2.0 >= attempts => Some(Sample::Failed(p99.max(mean))),
            _ => Some(Sample::Answered(mean)),
        }
    }

    /// Of all attempts, 0 to 1.
    pub fn failure_share(&self) -> f64 {
        if self.attempts > 0.0 {
            self.failed / self.attempts
        } else {
            0.0
        }
    }

    pub fn failed(&self) -> f64 {
        self.failed
    }

    /// `None`: nobody answered.
    pub fn mean(&self) -> Option<Duration> {
        let mean = self.mean_us();
        (mean > 0.0).then(|| Duration::from_secs_f64(mean / 1e6))
    }

    pub fn quantile(&self, q: f64) -> Option<Duration> {
        // In thousandths: what is recent is not whole.
        self.counted(1e3).quantile(q)
    }

    /// Whole answers, as of a histogram that only grows.
    pub fn histogram(&self) -> HistogramSum {
        self.counted(1.0)
    }

    fn counted(&self, scale: f64) -> HistogramSum {
        HistogramSum {
            buckets: self.buckets.map(|n| (n * scale) as u64),
            sum_us: (self.sum_us * scale) as u64,
        }
    }
}

#[cfg(test)]
mod tests;

//! `peak_ewma`: of two endpoints drawn by chance the one that will probably answer first.
//!
//! Expected is what an endpoint's answers take now (`endpoint/latency.rs`) times the requests it has to
//! answer, this one included (Finagle's load metric). An endpoint of which nothing is known gets one
//! request, and no more before that is answered. One that fails is charged as if it had been
//! slower than 99 in 100 requests of the upstream (`upstream/mod.rs`), so failing fast attracts nobody.
//!
//! Two choices alone meet two bad endpoints now and then: with two of eight, one pick in 28. So what
//! picked endpoints take in the median is kept, and where both of a pair are far above it, another pair
//! is drawn.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Instant;

use super::random::Random;
use super::{Balancer, Candidate, PickContext, weights};
use crate::base::rng::Rng;
use crate::endpoint::State;

/// What an endpoint is expected to take that has been asked and has never answered: longer than any other.
const UNKNOWN: f64 = 1e12;

/// Who is not better by so much is as good: what is left to chance then is shared by weight, not by noise.
const BETTER: f64 = 1.25;
/// Pairs that are drawn until one is not bad.
const PAIRS: usize = 4;
/// So many times the median is bad.
const BAD: f32 = 3.0;
/// One pick in so many moves the median: it is shared between workers, and need not be exact.
const MOVES: u64 = 8;
/// By so much.
const STEP: f32 = 1.06;

/// The smaller `latency * (active + 1)` of two.
#[derive(Debug)]
pub struct PeakEwma {
    random: Random,
    /// Each with the mean weight over its own: endpoints are drawn by weight, and what they have under way counts
    /// by weight too.
    endpoints: Box<[(Arc<State>, f64)]>,
    /// What picked endpoints take, in microseconds, as a float; 0 while no such endpoint is known.
    median: AtomicU32,
}

/// One of a pair.
#[derive(Clone, Copy)]
struct Choice {
    position: usize,
    expected: f64,
    latency: Option<f32>,
}

impl PeakEwma {
    pub fn new(candidates: &[Candidate]) -> Self {
        let weights = weights(candidates);
        let mean = weights.iter().map(|weight| f64::from(*weight)).sum::<f64>() / weights.len() as f64;
        let endpoints = candidates.iter().map(|candidate| candidate.endpoint.clone());
        let per_request = weights.iter().map(|weight| mean / f64::from(*weight));
        Self {
            random: Random::new(candidates),
            endpoints: endpoints.zip(per_request).collect(),
            median: AtomicU32::new(0),
        }
    }

    fn choice(&self, position: usize, now: Instant) -> Option<Choice> {
        let (endpoint, per_request) = self.endpoints.get(position)?;
        let load = f64::from(endpoint.active()) * per_request;
        let latency = endpoint.latency.at(now);
        let expected = match latency {
            Some(latency) => f64::from(latency) * (load + 1.0),
            None if load > 0.0 => UNKNOWN * (load + 1.0),
            None => 0.0,
        };
        Some(Choice {
            position,
            expected,
            latency,
        })
    }

    /// The better of two; the first of those that are as good, which was drawn by weight alone.
    fn pair(&self, cx: &mut PickContext<'_>) -> Option<Choice> {
        let first = self.random.draw(cx, None)?;
        let second = self.random.draw(cx, Some(first));
        let first = self.choice(first, cx.now)?;
        let second = second.and_then(|second| self.choice(second, cx.now));
        Some(match second {
            Some(second) if second.expected * BETTER < first.expected => second,
            _ => first,
        })
    }

    /// Moves the median towards what the picked endpoint takes: by a step now and then, at once where it is far off.
    fn learn(&self, median: f32, picked: &Choice, rng: &mut Rng) {
        let Some(latency) = picked.latency else { return };
        let next = if median == 0.0 {
            latency
        } else if latency * BAD < median {
            (median * latency).sqrt()
        } else if latency > median * BAD {
            median * STEP
        } else if rng.below(MOVES) > 0 {
            return;
        } else if latency > median {
            median * STEP
        } else {
            median / STEP
        };
        self.median.store(next.to_bits(), Relaxed);
    }
}

impl Balancer for PeakEwma {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let median = f32::from_bits(self.median.load(Relaxed));
        let is_bad = |choice: &Choice| median > 0.0 && choice.latency.is_some_and(|latency| latency > BAD * median);
        let mut best = self.pair(cx)?;
        for _ in 1..PAIRS {
            if !is_bad(&best) {
                break;
            }
            let other = self.pair(cx)?;
            if other.expected < best.expected {
                best = other;
            }
        }
        self.learn(median, &best, cx.rng);
        Some(best.position)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::contract::{candidates, pick, share};
    use super::*;
    use crate::base::rng::Rng;
    use crate::endpoint::latency::Sample;

    fn answered(candidate: &Candidate, ms: u64) {
        let sample = Sample::Answered(Duration::from_millis(ms));
        candidate.endpoint.latency.observe(Instant::now(), sample);
    }

    #[test]
    fn the_slowest_gets_nothing_while_another_is_left() {
        let candidates = candidates(&[1, 1, 1]);
        for (candidate, ms) in candidates.iter().zip([10, 200, 11]) {
            answered(candidate, ms);
        }
        let balancer = PeakEwma::new(&candidates);
        let mut rng = Rng::new(1);
        let seen = share(3, 300, || pick(&balancer, None, &mut rng, &[]));
        // A tenth slower is as good.
        assert!(seen[1] == 0 && seen[0] > 120 && seen[2] > 120, "{seen:?}");
        assert_eq!(pick(&balancer, None, &mut rng, &[0, 2]), Some(1));
    }

    #[test]
    fn two_bad_ones_hardly_ever_meet() {
        let candidates = candidates(&[1; 8]);
        for (candidate, ms) in candidates.iter().zip([10, 12, 200, 11, 300, 10, 13, 12]) {
            answered(candidate, ms);
        }
        let balancer = PeakEwma::new(&candidates);
        let mut rng = Rng::new(1);
        let seen = share(8, 10_000, || pick(&balancer, None, &mut rng, &[]));
        // Two choices alone would take 357.
        assert!(seen[2] + seen[4] < 10, "{seen:?}");
    }

    #[test]
    fn the_unknown_is_asked_once() {
        let candidates = candidates(&[1, 1]);
        answered(&candidates[0], 10);
        let balancer = PeakEwma::new(&candidates);
        let mut rng = Rng::new(1);
        assert_eq!(pick(&balancer, None, &mut rng, &[]), Some(1));
        let _asked = candidates[1].endpoint.begin();
        let _busy: Vec<_> = (0..1000).map(|_| candidates[0].endpoint.begin()).collect();
        assert_eq!(pick(&balancer, None, &mut rng, &[]), Some(0));
    }

    #[test]
    fn load_counts_by_weight() {
        let candidates = candidates(&[1, 3]);
        candidates.iter().for_each(|candidate| answered(candidate, 10));
        let balancer = PeakEwma::new(&candidates);
        let mut rng = Rng::new(4);
        let begin = || {
            candidates[pick(&balancer, None, &mut rng, &[]).unwrap()]
                .endpoint
                .begin()
        };
        let _busy: Vec<_> = std::iter::repeat_with(begin).take(400).collect();
        let light = candidates[0].endpoint.active();
        assert!((95..105).contains(&light), "{light}");
    }
}

//! What all hashing algorithms do with a key's sequence of endpoints: the first that was not tried
//! and, where loads are bounded, is not full.
//!
//! Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, 2018): no endpoint has more
//! requests under way than `max_load` times its share of all, rounded up. A key whose endpoint is
//! full overflows to the next of its sequence, always the same one, so a hot key is spread over
//! as few endpoints as can bear it. Fewer than `1 / max_load` of all can be full, so the next that is
//! not is found after a few steps, however many there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use super::{Candidate, Hashing, Ids, Memory, PickContext, weights};
use crate::endpoint::State;

/// How much more than its share an endpoint may have, in percent: more than 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxLoad(pub u32);

/// Steps until the bound is given up. At 1.25 one in 10^24 keys would get so far.
const STEPS: usize = 256;

#[derive(Debug)]
pub struct Walk {
    ids: Ids,
    bound: Option<Bound>,
}

#[derive(Debug)]
struct Bound {
    /// Each endpoint with `max_load` times its share of all weight.
    endpoints: Box<[(Arc<State>, f64)]>,
    total: Arc<AtomicU32>,
}

impl Walk {
    pub fn new(candidates: &[Candidate], hashing: &Hashing, memory: &Memory) -> Self {
        Self {
            ids: Ids::of(candidates),
            bound: hashing.max_load.map(|max| Bound::new(candidates, max, memory)),
        }
    }

    /// `sequence`: positions in the order in which the key would have them, the same one more than once or not.
    pub fn pick(&self, cx: &PickContext<'_>, sequence: impl Iterator<Item = usize> + Clone) -> Option<usize> {
        let untried = |position: &usize| self.ids.untried(*position, cx.tried);
        if let Some(bound) = &self.bound {
            let total = f64::from(bound.total.load(Relaxed)) + 1.0;
            let mut steps = sequence.clone().take(STEPS);
            if let found @ Some(_) = steps.find(|position| untried(position) && bound.admits(*position, total)) {
                return found;
            }
        } else if cx.tried.is_empty() {
            return sequence.into_iter().next();
        }
        // Some may have no place in the sequence, where there are more of them than places.
        sequence
            .into_iter()
            .find(untried)
            .or_else(|| (0..self.ids.len()).find(untried))
    }
}

impl Bound {
    fn new(candidates: &[Candidate], max: MaxLoad, memory: &Memory) -> Self {
        let weights = weights(candidates);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let shares = weights
            .iter()
            .map(|weight| f64::from(max.0) / 100.0 * f64::from(*weight) / sum);
        let endpoints = candidates.iter().map(|candidate| candidate.endpoint.clone());
        Self {
            endpoints: endpoints.zip(shares).collect(),
            total: memory.active.clone(),
        }
    }

    /// Whether one more fits, where then `total` are under way at all together.
    fn admits(&self, position: usize, total: f64) -> bool {
        let endpoint = self.endpoints.get(position);
        endpoint.is_some_and(|(endpoint, share)| f64::from(endpoint.active()) < (share * total).ceil())
    }
}

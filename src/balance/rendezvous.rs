//! `rendezvous`: each key to the endpoint that scores highest for it; nothing moves but what must.
//!
//! Weighted rendezvous (highest random weight) hashing: Thaler and Ravishankar, 1998. When an endpoint goes,
//! its keys alone move, spread over all others by weight; when one comes, it takes from each its part.
//!
//! Scoring every endpoint for every request would cost more with every endpoint. So keys are hashed to
//! 65,536 slots, and each slot's winner is found when the balancer is built; a pick is one look
//! into the table. Nor is every endpoint scored for every slot. The winner by weight is the first
//! of exponentially distributed times (rate: the weight), one for each endpoint and slot; an endpoint's
//! times over all slots together are a Poisson process. So each endpoint's process is run, from a seed
//! that is its label's hash, until all slots have been hit: about 14 hits a slot in all, however many
//! endpoints there are. A share is exact in the mean and off by `1 / sqrt(slots per endpoint)`:
//! 1 % for 8 endpoints, 4 % for 100.

use super::bounded::Walk;
use super::{Balancer, Candidate, Hashing, Memory, PickContext, labels, weights};
use crate::base::hash;
use crate::base::rng::Rng;

/// Slots in the table.
const SLOTS: usize = 1 << 16;
/// Hits a slot in the first stretch of time: with fewer, some slot of all would be missed nearly always.
const HITS: f64 = 12.0;

/// A table from key to endpoint.
#[derive(Debug)]
pub struct Rendezvous {
    walk: Walk,
    /// The position of the candidate that owns each slot. Empty without candidates.
    table: Box<[u32]>,
}

impl Rendezvous {
    /// The order of `candidates` does not matter, only their labels and weights.
    pub fn new(candidates: &[Candidate], hashing: &Hashing, memory: &Memory) -> Self {
        Self {
            walk: Walk::new(candidates, hashing, memory),
            table: fill(&labels(candidates), &weights(candidates)),
        }
    }
}

impl Balancer for Rendezvous {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let key = cx.key.unwrap_or_else(|| cx.rng.next_u64());
        let (before, from) = self.table.split_at_checked((key % SLOTS as u64) as usize)?;
        // Neighbours in the table know nothing of each other: the slots after a key's own are a sequence of that key.
        self.walk
            .pick(cx, from.iter().chain(before).map(|position| *position as usize))
    }
}

/// One endpoint's hits on the table, in the order of time.
struct Process {
    position: u32,
    rng: Rng,
    /// Hits per time.
    rate: f64,
    /// When the next one comes.
    next: f64,
}

impl Process {
    fn step(&mut self) {
        // `unit` is below 1, so the logarithm is finite.
        self.next -= (1.0 - self.rng.unit()).ln() / self.rate;
    }
}

fn fill(labels: &[&str], weights: &[u32]) -> Box<[u32]> {
    let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    if labels.is_empty() {
        return Box::default();
    }
    let mut processes: Vec<Process> = (0u32..)
        .zip(labels.iter().zip(weights))
        .map(|(position, (label, weight))| {
            let rng = Rng::new(hash::stable_seeded(label.as_bytes(), 3));
            let rate = f64::from(*weight);
            let mut process = Process {
                position,
                rng,
                rate,
                next: 0.0,
            };
            process.step();
            process
        })
        .collect();
    // Each slot's first hit: when, and whose. Hits come endpoint by endpoint, not in the order of time.
    let mut first = vec![(f64::INFINITY, 0u32); SLOTS];
    let mut until = HITS * SLOTS as f64 / sum;
    loop {
        for process in &mut processes {
            while process.next <= until {
                let slot = process.rng.below(SLOTS as u64) as usize;
                // `below` is less than SLOTS, the length of the table.
                if process.next < first[slot].0 {
                    first[slot] = (process.next, process.position);
                }
                process.step();
            }
        }
        if first.iter().all(|(at, _)| at.is_finite()) {
            return first.into_iter().map(|(_, position)| position).collect();
        }
        until *= 1.25;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("10.0.{}.{}:80", i / 250, i % 250)).collect()
    }

    fn owners<'a>(labels: &'a [String], weights: &[u32]) -> Vec<&'a str> {
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let table = fill(&labels, weights);
        table.iter().map(|position| labels[*position as usize]).collect()
    }

    #[test]
    fn shares_follow_the_weights() {
        let (labels, weights) = (labels(5), [1, 2, 3, 64, 128]);
        let owners = owners(&labels, &weights);
        for (label, weight) in labels.iter().zip(weights) {
            let exact = f64::from(weight) / 198.0 * SLOTS as f64;
            let slots = owners.iter().filter(|owner| *owner == label).count() as f64;
            assert!(
                (slots - exact).abs() < 4.0 * exact.sqrt(),
                "{label}: {slots} for {exact}"
            );
        }
    }

    #[test]
    fn nothing_moves_but_what_must() {
        let labels = labels(20);
        let before = owners(&labels, &[64; 20]);
        let gone = labels[7].as_str();
        let mut left = labels.clone();
        left.remove(7);
        for (was, is) in before.iter().zip(owners(&left, &[64; 19])) {
            assert!(*was == is || *was == gone, "{was} lost a slot to {is}");
        }
        // Half the weight: it loses some of its own, and nobody else loses any.
        let mut weights = [64; 20];
        weights[7] = 32;
        let lighter = owners(&labels, &weights);
        assert!(before.iter().zip(&lighter).all(|(was, is)| was == is || *was == gone));
        let kept = lighter.iter().filter(|owner| **owner == gone).count() as f64;
        assert!((kept / (SLOTS as f64 / 39.0) - 1.0).abs() < 0.1, "{kept}");
    }

    #[test]
    fn the_table_is_the_same_for_ever_and_in_any_order() {
        let labels = labels(3);
        let digest = hash::stable(owners(&labels, &[64, 128, 192]).concat().as_bytes());
        // A change here moves the keys of everyone who upgrades.
        assert_eq!(digest, 17_057_133_281_595_626_442);
        let turned: Vec<_> = labels.iter().rev().cloned().collect();
        assert_eq!(owners(&labels, &[64, 128, 192]), owners(&turned, &[192, 128, 64]));
    }
}

//! `maglev`: the same key goes to the same endpoint, in every worker, every proxy and after every restart.
//!
//! Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer",
//! NSDI 2016, section 3.4). Every endpoint has a permutation of the table's slots that follows from
//! its label alone; in turns, each takes the next slot of its permutation that is still free. A pick
//! is one look into the table.
//!
//! The table has 65,537 slots (the paper's smaller size, prime so that every skip is a permutation).
//! The paper asks for more than 100 slots per endpoint to keep shares within 1 %: that holds up to
//! 655 endpoints; 10,000 get 6 or 7 slots each. The size does not follow the number of endpoints: if
//! it did, one endpoint going down could change it, and with it the place of nearly every key.
//! Weights work as in Envoy: an endpoint with half the greatest weight takes its turn half as often.

use super::bounded::Walk;
use super::{Balancer, Candidate, Hashing, Memory, PickContext, labels, weights};
use crate::base::hash;

/// Slots in the table: a prime.
const SLOTS: usize = 65_537;

/// A lookup table from key to endpoint.
#[derive(Debug)]
pub struct Maglev {
    walk: Walk,
    /// The position of the candidate that owns each slot. Empty without candidates.
    table: Box<[u32]>,
}

impl Maglev {
    /// The order of `candidates` does not matter, only their labels and weights.
    pub fn new(candidates: &[Candidate], hashing: &Hashing, memory: &Memory) -> Self {
        Self {
            walk: Walk::new(candidates, hashing, memory),
            table: fill(&labels(candidates), &weights(candidates)),
        }
    }
}

impl Balancer for Maglev {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let key = cx.key.unwrap_or_else(|| cx.rng.next_u64());
        let (before, from) = self.table.split_at_checked((key % SLOTS as u64) as usize)?;
        // The table is as good as shuffled, so the owners of the slots after a key's own are a sequence of that key.
        self.walk
            .pick(cx, from.iter().chain(before).map(|position| *position as usize))
    }
}

/// Where an endpoint is in its permutation, and when its next turn is.
struct Turn {
    position: u32,
    slot: usize,
    skip: usize,
    weight: u64,
    /// Its next turn is in the first round in which `round * weight` reaches this.
    due: u64,
}

fn fill(labels: &[&str], weights: &[u32]) -> Box<[u32]> {
    let greatest = weights.iter().copied().max().map_or(0, u64::from);
    let mut turns: Vec<Turn> = (0u32..)
        .zip(labels.iter().zip(weights))
        .map(|(position, (label, weight))| Turn {
            position,
            slot: (hash::stable_seeded(label.as_bytes(), 1) % SLOTS as u64) as usize,
            skip: (hash::stable_seeded(label.as_bytes(), 2) % (SLOTS as u64 - 1)) as usize + 1,
            weight: u64::from(*weight),
            due: greatest,
        })
        .collect();
    if turns.is_empty() {
        return Box::default();
    }
    // Proxies that list the same endpoints in another order must come to the same table.
    turns.sort_by_key(|turn| labels.get(turn.position as usize));

    const FREE: u32 = u32::MAX;
    let mut table = vec![FREE; SLOTS];
    let mut left = SLOTS;
    for round in 1.. {
        for turn in &mut turns {
            if round * turn.weight < turn.due {
                continue;
            }
            turn.due += greatest;
            // `slot < SLOTS` always. While a slot is free this ends: a skip coprime to SLOTS visits every one.
            while table[turn.slot] != FREE {
                turn.slot += turn.skip;
                if turn.slot >= SLOTS {
                    turn.slot -= SLOTS;
                }
            }
            table[turn.slot] = turn.position;
            left -= 1;
            if left == 0 {
                return table.into();
            }
        }
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::contract::{candidates, hashing};
    use super::*;
    use crate::base::rng::Rng;

    fn labels(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("10.0.{}.{}:80", i / 250, i % 250)).collect()
    }

    /// The label that owns each slot.
    fn owners(endpoints: &[(String, u16)]) -> Vec<&str> {
        let labels: Vec<&str> = endpoints.iter().map(|(label, _)| label.as_str()).collect();
        let weights: Vec<u32> = endpoints.iter().map(|(_, weight)| u32::from(*weight)).collect();
        fill(&labels, &weights)
            .iter()
            .map(|position| labels[*position as usize])
            .collect()
    }

    fn endpoints() -> impl Strategy<Value = Vec<(String, u16)>> {
        prop::collection::vec(1u16..=256, 2..40)
            .prop_map(|weights| labels(weights.len()).into_iter().zip(weights).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_follow_the_weights(endpoints in endpoints()) {
            let owners = owners(&endpoints);
            let sum: f64 = endpoints.iter().map(|(_, weight)| f64::from(*weight)).sum();
            for (label, weight) in &endpoints {
                let slots = owners.iter().filter(|owner| *owner == label).count() as f64;
                let exact = f64::from(*weight) / sum * SLOTS as f64;
                // Turns are whole: each may be short of a part of one, and what all are short of is shared out by weight.
                let off = 1.0 + exact / SLOTS as f64 * endpoints.len() as f64;
                prop_assert!((slots - exact).abs() <= off, "{label}: {slots} for {exact}");
            }
        }

        #[test]
        fn the_order_of_the_endpoints_does_not_matter(
            (endpoints, shuffled) in endpoints().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        ) {
            prop_assert_eq!(owners(&endpoints), owners(&shuffled));
        }

        #[test]
        fn few_keys_move_when_one_endpoint_goes(count in 3usize..60, gone: prop::sample::Index) {
            let mut endpoints: Vec<_> = labels(count).into_iter().map(|label| (label, 1)).collect();
            let all = endpoints.clone();
            let (gone, _) = endpoints.remove(gone.index(count));
            let (before, after) = (owners(&all), owners(&endpoints));
            let stay = before.iter().filter(|owner| **owner != gone).count();
            let moved = before.iter().zip(&after).filter(|(old, new)| **old != gone && old != new).count();
            // The paper's figure 12 has some per cent; a modulo would move `1 - 1/count`, half and more.
            prop_assert!(moved * 100 <= stay * 15, "{moved} of {stay}");
        }
    }

    #[test]
    fn the_table_is_the_same_for_ever() {
        let endpoints: Vec<_> = labels(3).into_iter().zip([1, 2, 3]).collect();
        let digest = hash::stable(owners(&endpoints).concat().as_bytes());
        // A change here moves the keys of everyone who upgrades.
        assert_eq!(digest, 5_177_200_596_252_536_107);
    }

    #[test]
    fn a_key_stays_and_its_second_choice_too() {
        let balancer = Maglev::new(&candidates(&[1; 5]), &hashing(None), &Memory::default());
        let mut rng = Rng::new(1);
        let mut pick = |key, tried: &[u32]| {
            let (key, rng) = (Some(key), &mut rng);
            let now = std::time::Instant::now();
            balancer
                .pick(&mut PickContext {
                    key,
                    rng,
                    tried,
                    now,
                    worker: crate::telemetry::shard::WorkerId(1),
                })
                .unwrap()
        };
        for key in 0..200 {
            let first = pick(key, &[]);
            let second = pick(key, &[first as u32]);
            assert_eq!((pick(key, &[]), pick(key, &[first as u32])), (first, second));
            assert_ne!(first, second);
        }
        // The keys of one endpoint do not all fall to one other.
        let mut fallen = [0; 5];
        for key in 0..5000 {
            if pick(key, &[]) == 0 {
                fallen[pick(key, &[0])] += 1;
            }
        }
        assert!(fallen[1..].iter().all(|keys| *keys > 100), "{fallen:?}");
    }

    #[test]
    fn more_endpoints_than_slots_still_work() {
        let many = labels(SLOTS + 10);
        let table = fill(
            &many.iter().map(String::as_str).collect::<Vec<_>>(),
            &vec![1; many.len()],
        );
        let mut owners = table.to_vec();
        owners.sort_unstable();
        owners.dedup();
        assert_eq!(owners.len(), SLOTS);
    }
}

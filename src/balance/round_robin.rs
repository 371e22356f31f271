//! `round_robin`: each in turn, weighted ones more often and spread out, in the order NGINX uses.
//!
//! Smooth weighted round robin: in every turn each endpoint gains its weight, the one with the most
//! is picked (the first of equals) and pays the sum of all weights. With weights 5, 1, 1 that is
//! `a a b a c a a`. The order repeats after the sum of the weights (divided by their greatest common
//! divisor), so it is worked out when the balancer is built, and a pick is one step of a shared
//! turn: with any number of threads, each turn of the order is given out exactly once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::{Balancer, Candidate, Ids, PickContext, weights};

/// The longest order, in turns. Weights whose sum is greater (more than 256 endpoints with large weights) are
/// scaled down to fit and rounded, so that a share is then off by up to half a turn in 65,536; nobody gets less than
/// one turn, so only more than 65,536 endpoints can make the order longer.
const TURNS: u64 = 65_536;

/// Smooth weighted round robin.
#[derive(Debug)]
pub struct RoundRobin {
    ids: Ids,
    /// Positions of candidates in the order of their turns.
    order: Box<[u32]>,
    turn: Arc<AtomicUsize>,
}

impl RoundRobin {
    /// Goes on at `turn`.
    pub fn new(candidates: &[Candidate], turn: Arc<AtomicUsize>) -> Self {
        Self {
            ids: Ids::of(candidates),
            order: smooth_order(&reduced(&weights(candidates))),
            turn,
        }
    }
}

impl Balancer for RoundRobin {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let turn = match cx.tried {
            [] => self.turn.fetch_add(1, Relaxed).checked_rem(self.order.len())?,
            // A second attempt takes nobody's turn: of two endpoints the one that fails would get every first one.
            _ => cx.rng.below(self.order.len() as u64) as usize,
        };
        let (before, from) = self.order.split_at_checked(turn)?;
        let mut turns = from.iter().chain(before).map(|position| *position as usize);
        turns.find(|position| self.ids.untried(*position, cx.tried))
    }
}

/// The same proportions in the smallest whole numbers, their sum within [`TURNS`].
fn reduced(weights: &[u32]) -> Vec<u64> {
    let divisor = weights
        .iter()
        .fold(0, |so_far, weight| gcd(so_far, u64::from(*weight)))
        .max(1);
    let weights: Vec<u64> = weights.iter().map(|weight| u64::from(*weight) / divisor).collect();
    let sum: u64 = weights.iter().sum();
    if sum <= TURNS {
        return weights;
    }
    let scaled = |weight: u64| ((weight * TURNS + sum / 2) / sum).max(1);
    weights.into_iter().map(scaled).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// Candidates of one weight: among themselves they take turns in file order.
struct Peers {
    weight: u64,
    members: Vec<u32>,
    next: usize,
    /// What the next of them has gained less what it has paid.
    credit: i64,
}

/// One period of smooth weighted round robin. Steps over the distinct weights (at most 256) rather than over the
/// candidates: those of one weight gain alike, so the one among them with the most is always the next in line.
fn smooth_order(weights: &[u64]) -> Box<[u32]> {
    let sum: u64 = weights.iter().sum();
    let mut groups: Vec<Peers> = Vec::new();
    for (position, weight) in (0u32..).zip(weights) {
        match groups.iter_mut().find(|peers| peers.weight == *weight) {
            Some(peers) => peers.members.push(position),
            None => groups.push(Peers {
                weight: *weight,
                members: vec![position],
                next: 0,
                credit: 0,
            }),
        }
    }
    let mut order = Vec::with_capacity(sum as usize);
    for _ in 0..sum {
        for peers in &mut groups {
            peers.credit += peers.weight as i64;
        }
        // No two groups share a member, so there is one greatest.
        let first = |peers: &Peers| peers.members.get(peers.next).copied();
        let Some(peers) = groups
            .iter_mut()
            .max_by_key(|peers| (peers.credit, std::cmp::Reverse(first(peers))))
        else {
            break;
        };
        order.extend(first(peers));
        peers.next += 1;
        if peers.next == peers.members.len() {
            // All have paid once since the first of them did: the first is in line again, that much poorer.
            peers.next = 0;
            peers.credit -= sum as i64;
        }
    }
    order.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::contract::{candidates, share};
    use super::*;
    use crate::base::rng::Rng;

    /// The algorithm as NGINX has it (ngx_http_upstream_get_peer), turn by turn over all endpoints.
    fn as_nginx(weights: &[u64]) -> Vec<u32> {
        let sum: u64 = weights.iter().sum();
        let mut current = vec![0i64; weights.len()];
        (0..sum)
            .map(|_| {
                let mut best = 0;
                for i in 0..weights.len() {
                    current[i] += weights[i] as i64;
                    if current[i] > current[best] {
                        best = i;
                    }
                }
                current[best] -= sum as i64;
                best as u32
            })
            .collect()
    }

    fn pick(balancer: &RoundRobin, tried: &[u32]) -> Option<usize> {
        balancer.pick(&mut PickContext {
            key: None,
            rng: &mut Rng::new(0),
            tried,
            now: std::time::Instant::now(),
            worker: crate::telemetry::shard::WorkerId(1),
        })
    }

    proptest! {
        #[test]
        fn the_order_is_that_of_nginx(weights in prop::collection::vec(1u64..20, 0..40)) {
            prop_assert_eq!(&*smooth_order(&weights), as_nginx(&weights));
        }

        #[test]
        fn weights_are_reduced_without_changing_their_proportions(
            weights in prop::collection::vec(1u32..=256, 1..100), factor in 1u32..=10,
        ) {
            let times: Vec<u32> = weights.iter().map(|weight| weight * factor).collect();
            prop_assert_eq!(reduced(&times), reduced(&weights));
        }
    }

    #[test]
    fn the_example_of_the_documentation() {
        assert_eq!(*smooth_order(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(reduced(&[200, 100, 50]), [4, 2, 1]);
    }

    #[test]
    fn a_tried_candidate_is_passed_over() {
        let balancer = RoundRobin::new(&candidates(&[1, 1, 1]), Arc::default());
        let mut rng = Rng::new(5);
        let mut again = || {
            balancer.pick(&mut PickContext {
                key: None,
                rng: &mut rng,
                tried: &[1],
                now: std::time::Instant::now(),
                worker: crate::telemetry::shard::WorkerId(1),
            })
        };
        let seen = share(3, 600, &mut again);
        assert!(seen[0] > 100 && seen[1] == 0 && seen[2] > 100, "{seen:?}");
        assert_eq!(pick(&balancer, &[]), Some(0), "nobody's turn was taken");
    }

    #[test]
    fn the_rotation_goes_on_after_a_rebuild_and_over_the_end_of_its_number() {
        let cursor = Arc::new(AtomicUsize::new(usize::MAX - 1));
        let three = candidates(&[1, 1, 1]);
        let first = RoundRobin::new(&three, cursor.clone());
        assert_eq!((pick(&first, &[]), pick(&first, &[])), (Some(2), Some(0)));
        let second = RoundRobin::new(&three, cursor);
        assert_eq!((pick(&second, &[]), pick(&second, &[])), (Some(0), Some(1)));
    }

    #[test]
    fn too_many_turns_are_scaled_down() {
        let weights: Vec<u16> = (0..2000).map(|i| if i == 0 { 255 } else { 256 - i % 200 }).collect();
        let order = RoundRobin::new(&candidates(&weights), Arc::default()).order;
        assert!(order.len() as u64 <= TURNS + 2000, "{}", order.len());
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let mut turns = order.iter();
        let seen = share(2000, order.len(), || turns.next().map(|position| *position as usize));
        for (turns, weight) in seen.into_iter().zip(weights) {
            let exact = f64::from(weight) / sum * TURNS as f64;
            assert!((turns as f64 - exact).abs() <= 0.51, "{turns} for {exact}");
        }
    }
}

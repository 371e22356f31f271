//! `least_connections`: the endpoint with the fewest requests under way in proportion to its weight.
//!
//! Up to 64 endpoints it is really the fewest, not the fewer of two: every endpoint is looked at,
//! unless an idle one is found first (nobody has fewer than none). Of more, the fewest among 32 drawn
//! by weight, which is among the least loaded 3 % on average and costs the same for 100
//! endpoints as for 10,000. Equals are chosen among by chance, in proportion to their weights, so an idle
//! upstream is shared as `random` would share it.
//!
//! Workers pick without a lock. Each count is exact when it is read, and a pick is the smallest of
//! what was read; but between the reading of a count and the counting of the pick itself
//! (`State::begin`) others may pick too. A worker does not pick again before it has counted its
//! last pick, so an endpoint can end up ahead of the fewest looked at by at most the number of workers.

use std::sync::Arc;

use super::alias::Alias;
use super::{Balancer, Candidate, PickContext, weights};
use crate::base::rng::Rng;
use crate::endpoint::State;

/// Draws in search of an idle endpoint before all are looked at.
const DRAWS: usize = 4;
/// Up to so many endpoints all are looked at.
const ALL: usize = 64;
/// Of more, so many.
const SAMPLE: usize = 32;

/// The smallest `active / weight`.
#[derive(Debug)]
pub struct LeastConnections {
    endpoints: Box<[(Arc<State>, u32)]>,
    alias: Alias,
}

impl LeastConnections {
    pub fn new(candidates: &[Candidate]) -> Self {
        let weights = weights(candidates);
        let endpoints = candidates.iter().map(|candidate| candidate.endpoint.clone());
        Self {
            alias: Alias::new(&weights),
            endpoints: endpoints.zip(weights).collect(),
        }
    }

    /// The least loaded of these positions.
    fn least(&self, positions: impl Iterator<Item = usize>, tried: &[u32], rng: &mut Rng) -> Option<usize> {
        let mut best: Option<Best> = None;
        for position in positions {
            let Some((endpoint, weight)) = self.endpoints.get(position) else {
                continue;
            };
            if tried.contains(&endpoint.id) {
                continue;
            }
            let (active, weight) = (u64::from(endpoint.active()), u64::from(*weight));
            // active / weight against best.active / best.weight, exactly: 32 bits multiplied by 32 fit in 64.
            let order = match &best {
                Some(best) => (active * best.weight).cmp(&(best.active * weight)),
                None => std::cmp::Ordering::Less,
            };
            match (order, &mut best) {
                (std::cmp::Ordering::Greater, _) => {}
                (std::cmp::Ordering::Equal, Some(best)) => {
                    // Reservoir sampling: each of the equals ends up chosen in proportion to its weight.
                    best.equals += weight;
                    if rng.below(best.equals) < weight {
                        (best.position, best.active, best.weight) = (position, active, weight);
                    }
                }
                (_, best) => {
                    *best = Some(Best {
                        position,
                        active,
                        weight,
                        equals: weight,
                    });
                }
            }
        }
        best.map(|best| best.position)
    }

    /// The least loaded of some that are drawn by weight.
    fn least_of_some(&self, tried: &[u32], rng: &mut Rng) -> Option<usize> {
        let mut drawn = [usize::MAX; SAMPLE];
        for place in &mut drawn {
            *place = self.alias.draw(rng)?;
        }
        self.least(drawn.into_iter(), tried, rng)
    }
}

struct Best {
    position: usize,
    active: u64,
    weight: u64,
    /// The weights of all seen so far that are as little loaded as this one, itself included.
    equals: u64,
}

impl Balancer for LeastConnections {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        for _ in 0..DRAWS {
            let position = self.alias.draw(cx.rng)?;
            let (endpoint, _) = self.endpoints.get(position)?;
            if endpoint.active() == 0 && !cx.tried.contains(&endpoint.id) {
                return Some(position);
            }
        }
        let some = match self.endpoints.len() {
            0..=ALL => None,
            _ => self.least_of_some(cx.tried, cx.rng),
        };
        some.or_else(|| self.least(0..self.endpoints.len(), cx.tried, cx.rng))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::contract::{candidates, share};
    use super::*;
    use crate::base::rng::Rng;

    fn pick(balancer: &LeastConnections, rng: &mut Rng, tried: &[u32]) -> Option<usize> {
        balancer.pick(&mut PickContext {
            key: None,
            rng,
            tried,
            now: std::time::Instant::now(),
            worker: crate::telemetry::shard::WorkerId(1),
        })
    }

    proptest! {
        #[test]
        fn the_pick_is_a_smallest(
            loads in prop::collection::vec((1u16..=256, 0usize..6), 1..30), seed: u64, tried: prop::sample::Index,
        ) {
            let weights: Vec<u16> = loads.iter().map(|(weight, _)| *weight).collect();
            let candidates = candidates(&weights);
            let _busy: Vec<_> = candidates.iter().zip(&loads)
                .flat_map(|(candidate, (_, active))| (0..*active).map(|_| candidate.endpoint.begin())).collect();
            let tried = tried.index(loads.len() + 1) as u32;
            let picked = pick(&LeastConnections::new(&candidates), &mut Rng::new(seed), &[tried]);
            let load = |position: usize| loads[position].1 as f64 / f64::from(loads[position].0);
            let left = (0..loads.len()).filter(|position| *position as u32 != tried);
            let least = left.map(load).fold(f64::INFINITY, f64::min);
            prop_assert_eq!(picked.map_or(f64::INFINITY, load), least);
        }
    }

    #[test]
    fn requests_that_stay_fill_up_by_weight() {
        let candidates = candidates(&[1, 2, 5]);
        let balancer = LeastConnections::new(&candidates);
        let mut rng = Rng::new(3);
        let _busy: Vec<_> = (0..80)
            .map(|_| candidates[pick(&balancer, &mut rng, &[]).unwrap()].endpoint.begin())
            .collect();
        let active: Vec<_> = candidates.iter().map(|candidate| candidate.endpoint.active()).collect();
        assert_eq!(active, [10, 20, 50]);
    }

    #[test]
    fn equals_share_evenly_though_another_is_busy() {
        for idle in [0, 1] {
            let candidates = candidates(&[1, 1, 1, 1]);
            let balancer = LeastConnections::new(&candidates);
            // With `idle == 1` the equals are not idle either.
            let _busy: Vec<_> = (0..5 * idle).map(|i| candidates[i % 4].endpoint.begin()).collect();
            let _busier = [candidates[0].endpoint.begin(), candidates[0].endpoint.begin()];
            let mut rng = Rng::new(4);
            let seen = share(4, 6_000, || pick(&balancer, &mut rng, &[]));
            assert_eq!(seen[0], 0);
            assert!(seen[1..].iter().all(|n| (1880..2120).contains(n)), "{seen:?}");
        }
    }

    #[test]
    fn of_many_the_pick_is_among_the_least_loaded() {
        let candidates = candidates(&[1; 1000]);
        let balancer = LeastConnections::new(&candidates);
        // Nobody is idle; the load of each is its position.
        let _busy: Vec<_> = (0..1000)
            .flat_map(|i| vec![i; i + 1])
            .map(|i| candidates[i].endpoint.begin())
            .collect();
        let mut rng = Rng::new(6);
        let picks = (0..2_000).map(|_| pick(&balancer, &mut rng, &[]).unwrap());
        let mean = picks.sum::<usize>() / 2_000;
        assert!(mean < 35, "{mean}");
    }

    #[test]
    fn no_endpoint_runs_ahead_by_more_than_the_number_of_workers() {
        const WORKERS: usize = 4;
        let candidates = candidates(&[1; 8]);
        let balancer = LeastConnections::new(&candidates);
        std::thread::scope(|scope| {
            let work = |seed| {
                let mut rng = Rng::new(seed);
                let begin = || candidates[pick(&balancer, &mut rng, &[]).unwrap()].endpoint.begin();
                std::iter::repeat_with(begin).take(2_000).collect::<Vec<_>>()
            };
            let threads: Vec<_> = (0..WORKERS as u64)
                .map(|seed| scope.spawn(move || work(seed)))
                .collect();
            let _held: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
            let active: Vec<_> = candidates.iter().map(|candidate| candidate.endpoint.active()).collect();
            let (least, most) = (*active.iter().min().unwrap(), *active.iter().max().unwrap());
            assert_eq!(active.iter().sum::<u32>(), 8_000);
            assert!(most - least <= WORKERS as u32, "{active:?}");
        });
    }
}

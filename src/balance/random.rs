//! `random`: every pick by chance, proportional to weight, in constant time.

use super::alias::Alias;
use super::{Balancer, Candidate, Ids, PickContext, weights};

/// Draws before what is left is counted one by one.
const DRAWS: usize = 4;

/// Weighted random choice. No memory between picks, nothing shared between workers.
#[derive(Debug)]
pub struct Random {
    ids: Ids,
    weights: Box<[u32]>,
    alias: Alias,
}

impl Random {
    pub fn new(candidates: &[Candidate]) -> Self {
        let weights = weights(candidates);
        Self {
            ids: Ids::of(candidates),
            alias: Alias::new(&weights),
            weights,
        }
    }

    /// An untried candidate that is not `other`.
    pub fn draw(&self, cx: &mut PickContext<'_>, other: Option<usize>) -> Option<usize> {
        // A draw that is thrown away leaves the proportions among the rest as they are.
        for _ in 0..DRAWS {
            let position = self.alias.draw(cx.rng)?;
            if Some(position) != other && self.ids.untried(position, cx.tried) {
                return Some(position);
            }
        }
        self.among_the_rest(cx, other)
    }

    /// As `DRAWS` more draws would, but certain to end. Needed where few are left or one has nearly all the weight.
    fn among_the_rest(&self, cx: &mut PickContext<'_>, other: Option<usize>) -> Option<usize> {
        let (ids, tried) = (&self.ids, cx.tried);
        let left = || {
            let weights = self.weights.iter().map(|weight| u64::from(*weight)).enumerate();
            weights.filter(|(position, _)| Some(*position) != other && ids.untried(*position, tried))
        };
        let mut place = cx.rng.below(left().map(|(_, weight)| weight).sum());
        for (position, weight) in left() {
            if place < weight {
                return Some(position);
            }
            place -= weight;
        }
        None
    }
}

impl Balancer for Random {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        self.draw(cx, None)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{candidates, share};
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn follows_the_weights() {
        let random = Random::new(&candidates(&[1, 2, 5]));
        let mut rng = Rng::new(11);
        let seen = share(3, 8_000, || {
            random.pick(&mut PickContext {
                key: None,
                rng: &mut rng,
                tried: &[],
                now: std::time::Instant::now(),
                worker: crate::telemetry::shard::WorkerId(1),
            })
        });
        // Three standard deviations are about 100, 120 and 130.
        assert!(
            (900..1100).contains(&seen[0]) && (1870..2130).contains(&seen[1]),
            "{seen:?}"
        );
    }

    #[test]
    fn keeps_the_proportions_of_what_is_left() {
        // The one that was tried is nearly all the weight, so most retries have to count what is left.
        let random = Random::new(&candidates(&[256, 1, 3]));
        let mut rng = Rng::new(12);
        let seen = share(3, 4_000, || {
            random.pick(&mut PickContext {
                key: None,
                rng: &mut rng,
                tried: &[0],
                now: std::time::Instant::now(),
                worker: crate::telemetry::shard::WorkerId(1),
            })
        });
        assert!(seen[0] == 0 && (910..1090).contains(&seen[1]), "{seen:?}");
    }
}

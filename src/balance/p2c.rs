//! `p2c`: the less loaded of two endpoints drawn by chance, in constant time.
//!
//! Two choices (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001): enough to
//! keep the greatest load a little above the mean, and, unlike the true minimum, no magnet: many
//! proxies that see the same idle endpoint do not all run for it.

use std::sync::Arc;

use super::random::Random;
use super::{Balancer, Candidate, PickContext, weights};
use crate::endpoint::State;

/// The smaller `active / weight` of two.
#[derive(Debug)]
pub struct P2c {
    random: Random,
    endpoints: Box<[(Arc<State>, u32)]>,
}

impl P2c {
    pub fn new(candidates: &[Candidate]) -> Self {
        let endpoints = candidates.iter().map(|candidate| candidate.endpoint.clone());
        Self {
            random: Random::new(candidates),
            endpoints: endpoints.zip(weights(candidates)).collect(),
        }
    }
}

impl Balancer for P2c {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let first = self.random.draw(cx, None)?;
        let Some(second) = self.random.draw(cx, Some(first)) else {
            return Some(first);
        };
        let ((a, a_weight), (b, b_weight)) = (self.endpoints.get(first)?, self.endpoints.get(second)?);
        // Exact in 64 bits. The first of equals: it was drawn by weight alone, so an idle upstream is shared by weight.
        let (a, b) = (u64::from(a.active()), u64::from(b.active()));
        let first_is_less = a * u64::from(*b_weight) <= b * u64::from(*a_weight);
        Some(if first_is_less { first } else { second })
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{candidates, pick, share};
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn the_most_loaded_is_never_picked_while_another_is_left() {
        let candidates = candidates(&[1, 1, 1]);
        let balancer = P2c::new(&candidates);
        let _busy = candidates[2].endpoint.begin();
        let mut rng = Rng::new(1);
        let seen = share(3, 600, || pick(&balancer, None, &mut rng, &[]));
        assert!(seen[2] == 0 && seen[0] > 240 && seen[1] > 240, "{seen:?}");
        assert_eq!(pick(&balancer, None, &mut rng, &[0, 1]), Some(2));
    }

    #[test]
    fn requests_that_stay_fill_up_by_weight() {
        let candidates = candidates(&[1, 2, 5]);
        let balancer = P2c::new(&candidates);
        let mut rng = Rng::new(3);
        let begin = || {
            candidates[pick(&balancer, None, &mut rng, &[]).unwrap()]
                .endpoint
                .begin()
        };
        let _busy: Vec<_> = std::iter::repeat_with(begin).take(800).collect();
        let active: Vec<_> = candidates.iter().map(|candidate| candidate.endpoint.active()).collect();
        assert!(
            active[0].abs_diff(100) <= 5 && active[1].abs_diff(200) <= 5,
            "{active:?}"
        );
    }
}

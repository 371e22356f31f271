//! The algorithms that are not in use, asked about a sample of picks beside the one that is.
//!
//! They see what it sees, and have what they keep between picks (rotations, medians) to themselves: asking them
//! changes nothing for anybody. What is under way at an endpoint is what the algorithm in use has sent there.

use super::{Balancer, Candidate, Memory, PickContext, Spec, build};

/// The others, each with its number.
#[derive(Debug)]
pub struct Shadows(Vec<(usize, Box<dyn Balancer>)>);

impl Shadows {
    /// Those beside `live`, over the same candidates; `memory` is theirs alone but for what it counts.
    pub fn new(live: &Spec, candidates: &[Candidate], memory: &Memory) -> Self {
        let others = live.others().into_iter();
        Self(
            others
                .map(|spec| (spec.number(), build(&spec, candidates, memory)))
                .collect(),
        )
    }

    /// The number and the choice of each.
    pub fn ask(&self, cx: &mut PickContext<'_>, mut chose: impl FnMut(usize, usize)) {
        for (number, balancer) in &self.0 {
            if let Some(position) = balancer.pick(cx) {
                chose(*number, position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{candidates, hashing};
    use super::*;
    use crate::base::rng::Rng;

    #[test]
    fn all_others_choose_and_turns_are_their_own() {
        let candidates = candidates(&[1, 1, 1]);
        let memory = Memory::default();
        for (live, count) in [(Spec::RoundRobin, 4), (Spec::RingHash(hashing(None)), 7)] {
            let shadows = Shadows::new(&live, &candidates, &Memory::default());
            let rng = &mut Rng::new(1);
            let cx = &mut PickContext {
                key: Some(7),
                rng,
                tried: &[],
                now: std::time::Instant::now(),
                worker: crate::telemetry::shard::WorkerId(1),
            };
            let mut chosen = Vec::new();
            shadows.ask(cx, |number, position| chosen.push((number, position)));
            assert_eq!(chosen.len(), count);
            assert!(chosen.iter().all(|(number, at)| *number != live.number() && *at < 3));
        }
        assert_eq!(memory.turn.load(std::sync::atomic::Ordering::Relaxed), 0);
        assert!(candidates.iter().all(|candidate| candidate.endpoint.active() == 0));
    }
}

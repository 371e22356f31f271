//! The one candidate there is: nothing to weigh, whatever the algorithm.

use super::{Balancer, Candidate, PickContext};

#[derive(Debug)]
pub struct Only {
    id: u32,
}

impl Only {
    pub fn new(candidate: &Candidate) -> Self {
        Self {
            id: candidate.endpoint.id,
        }
    }
}

impl Balancer for Only {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        (!cx.tried.contains(&self.id)).then_some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract::{candidates, pick};
    use super::super::{Memory, Spec, build};
    use crate::base::rng::Rng;

    #[test]
    fn it_is_picked_until_it_was_tried() {
        let candidates = candidates(&[3]);
        let only = build(&Spec::PeakEwma, &candidates, &Memory::default());
        let mut rng = Rng::new(1);
        assert_eq!(pick(&*only, None, &mut rng, &[]), Some(0));
        assert_eq!(pick(&*only, Some(7), &mut rng, &[]), Some(0));
        assert_eq!(pick(&*only, None, &mut rng, &[candidates[0].endpoint.id]), None);
    }
}

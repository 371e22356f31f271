//! Who may be picked now, and by what: built whole when health or membership changes, never edited.

use std::sync::{Arc, OnceLock};

use super::shares::{Part, Shares, subset};
use crate::balance::shadow::Shadows;
use crate::balance::{self, Balancer, Candidate, Memory, PickContext, Spec};
use crate::base::rng::Rng;
use crate::endpoint::State;

/// The parts of an upstream that requests fall to, each with its balancers.
#[derive(Debug, Default)]
pub struct Group {
    /// Each with the sum of all shares up to its own.
    parts: Vec<(u64, Sets)>,
    pub panics: bool,
    pub ramps: bool,
}

/// One part: the same balancer for all workers, or one for each.
#[derive(Debug)]
struct Sets {
    candidates: Vec<Candidate>,
    sets: Vec<Set>,
}

#[derive(Debug)]
struct Set {
    /// `None`: all of the part.
    candidates: Option<Vec<Candidate>>,
    balancer: Box<dyn Balancer>,
    /// Control makes them when it has time, where there is a choice: a change of health need not wait for them.
    shadows: OnceLock<Shadows>,
}

/// Subsets for workers: how large, for how many, on which host.
#[derive(Debug, Clone, Copy)]
pub struct Subsets {
    pub size: usize,
    pub workers: usize,
    pub host: u64,
}

impl Group {
    pub fn new(shares: Shares, spec: &Spec, subsets: Option<Subsets>, memory: &Memory) -> Self {
        let mut up_to = 0;
        let parts = shares.parts.into_iter().map(|part| {
            up_to += part.share;
            (up_to, Sets::new(part, spec, subsets, memory))
        });
        Self {
            parts: parts.collect(),
            panics: shares.panics,
            ramps: shares.ramps,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// All who may be picked.
    pub fn candidates(&self) -> impl Iterator<Item = &Candidate> {
        self.parts.iter().flat_map(|(_, part)| &part.candidates)
    }

    /// Makes what the picks of a sample are put to as well.
    pub fn add_shadows(&self, spec: &Spec, memory: &Memory) {
        for (_, part) in &self.parts {
            for set in &part.sets {
                let candidates = set.candidates.as_ref().unwrap_or(&part.candidates);
                if candidates.len() > 1 {
                    set.shadows.get_or_init(|| Shadows::new(spec, candidates, memory));
                }
            }
        }
    }

    /// One of the part that the request falls to; of any other where all of it were tried. `sampled`: the number of the
    /// algorithm in use, where the others are to be asked too.
    pub fn pick(&self, cx: &mut PickContext<'_>, sampled: Option<usize>) -> Option<&Arc<State>> {
        let chosen = match self.parts.as_slice() {
            [(_, only)] => return only.pick(cx, sampled),
            parts => {
                let (total, _) = parts.last()?;
                // The same key falls to the same part.
                let roll = match cx.key {
                    Some(key) => Rng::new(key).below(*total),
                    None => cx.rng.below(*total),
                };
                parts.iter().position(|(up_to, _)| roll < *up_to)?
            }
        };
        let (before, from) = self.parts.split_at_checked(chosen)?;
        from.iter().chain(before).find_map(|(_, part)| part.pick(cx, sampled))
    }
}

impl Sets {
    fn new(part: Part, spec: &Spec, subsets: Option<Subsets>, memory: &Memory) -> Self {
        let candidates = part.candidates;
        let sets = match subsets.filter(|subsets| subsets.size < candidates.len()) {
            None => vec![Set {
                balancer: balance::build(spec, &candidates, memory),
                candidates: None,
                shadows: OnceLock::new(),
            }],
            Some(Subsets { size, workers, host }) => (0..workers)
                .map(|worker| {
                    let own = subset(&candidates, size, worker, host);
                    Set {
                        balancer: balance::build(spec, &own, memory),
                        candidates: Some(own),
                        shadows: OnceLock::new(),
                    }
                })
                .collect(),
        };
        Self { candidates, sets }
    }

    fn pick(&self, cx: &mut PickContext<'_>, sampled: Option<usize>) -> Option<&Arc<State>> {
        // Workers count from 1.
        let set = self.sets.get(cx.worker.0.saturating_sub(1) % self.sets.len().max(1))?;
        let position = set.balancer.pick(cx)?;
        let candidates = set.candidates.as_ref().unwrap_or(&self.candidates);
        if let (Some(live), Some(shadows)) = (sampled, set.shadows.get()) {
            let chose = |algorithm, position: usize| {
                if let Some(candidate) = candidates.get(position) {
                    candidate.endpoint.tally.count(algorithm);
                }
            };
            chose(live, position);
            shadows.ask(cx, chose);
        }
        candidates.get(position).map(|candidate| &candidate.endpoint)
    }
}

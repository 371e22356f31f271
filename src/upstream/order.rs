//! Whom a request would be sent to, one after the other, told without sending anything.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::group::Group;
use super::shares::Shares;
use super::{Member, Upstream};
use crate::balance::{Memory, PickContext};
use crate::endpoint::State;
use crate::sticky::Bound;

/// How one upstream's endpoints stand to a request.
#[derive(Debug)]
pub struct Order {
    /// All that belong to it.
    pub members: Arc<[Member]>,
    /// Positions among `members`, the first to be asked first.
    pub asked: Vec<usize>,
    /// For each member the share of requests that its weight gives it, from 0 to 1. 0: it is not picked now.
    pub shares: Vec<f64>,
    /// Too few are up, so that those that are down are used too.
    pub panics: bool,
}

impl Upstream {
    /// Whom [`Upstream::pick`] would give, at most `most` times in a row, each time without those it gave before.
    ///
    /// Counts nothing and takes nobody's turn: who may be picked is worked out anew, which costs as much as a change of
    /// health.
    pub fn order(&self, cx: &mut PickContext<'_>, bound: Option<Bound>, most: usize) -> Order {
        let members = self.members();
        let shares = Shares::of(&members, &self.settings.spread, cx.now);
        let panics = shares.panics;
        let places: HashMap<u32, usize> = members.iter().map(|member| member.endpoint.id).zip(0..).collect();
        let place = |endpoint: &Arc<State>| places.get(&endpoint.id).copied();
        let mut parts = vec![0.0; members.len()];
        let whole: u64 = shares.parts.iter().map(|part| part.share).sum();
        for part in &shares.parts {
            let weights: u64 = part.candidates.iter().map(|one| u64::from(one.weight)).sum();
            for candidate in &part.candidates {
                if let Some(slot) = place(&candidate.endpoint).and_then(|n| parts.get_mut(n)) {
                    *slot += part.share as f64 / whole as f64 * f64::from(candidate.weight) / weights as f64;
                }
            }
        }
        let memory = Memory {
            turn: Arc::new(AtomicUsize::new(self.memory.turn.load(Relaxed))),
            active: self.memory.active.clone(),
        };
        let group = Group::new(shares, &self.settings.balance, self.subsets(), &memory);
        let mut tried: Vec<u32> = cx.tried.to_vec();
        let mut asked = Vec::new();
        while asked.len() < most.min(members.len()) {
            let own = bound.and_then(|bound| self.sticky.as_ref()?.endpoint(bound, &tried));
            let cx = &mut PickContext {
                key: cx.key,
                rng: cx.rng,
                tried: &tried,
                now: cx.now,
                worker: cx.worker,
            };
            let picked = own.or_else(|| group.pick(cx, None).cloned());
            let Some(endpoint) = picked.filter(|endpoint| !tried.contains(&endpoint.id)) else {
                break;
            };
            tried.push(endpoint.id);
            asked.extend(place(&endpoint));
        }
        Order {
            members,
            asked,
            shares: parts,
            panics,
        }
    }
}

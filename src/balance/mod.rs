//! Picking an endpoint: the trait, the closed list of algorithms, one file per algorithm.
//!
//! A balancer is built once from an unchanging list of available endpoints and never edited: when
//! health or membership changes, the upstream builds another. So a pick takes no lock.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use http::HeaderName;

pub use self::key::KeyParts;
use self::least_connections::LeastConnections;
use self::maglev::Maglev;
use self::random::Random;
use self::round_robin::RoundRobin;
use crate::base::rng::Rng;
use crate::endpoint::State;

mod alias;
#[cfg(test)]
mod contract;
mod key;
mod least_connections;
mod maglev;
mod random;
mod round_robin;

/// `balance = …` as validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    RoundRobin,
    Random,
    LeastConnections,
    Maglev { hash: HashKey },
}

impl Spec {
    /// The name in the configuration.
    pub fn label(&self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::Random => "random",
            Self::LeastConnections => "least_connections",
            Self::Maglev { .. } => "maglev",
        }
    }
}

/// What of a request or connection is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    SourceIp,
    /// The path without the query.
    Path,
    /// Path and query.
    Uri,
    Host,
    Header(HeaderName),
    Cookie(String),
    Query(String),
}

/// One available endpoint.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub endpoint: Arc<State>,
    /// 1 to 256.
    pub weight: u16,
}

/// What a pick may look at.
pub struct PickContext<'a> {
    /// The hash of the request's key; `None` when it has none (then a hashing balancer picks at random).
    pub key: Option<u64>,
    pub rng: &'a mut Rng,
    /// Ids (`State::id`) of endpoints already tried for this request: avoided while another is left.
    pub tried: &'a [u32],
}

/// An algorithm at work over a fixed list of candidates.
pub trait Balancer: Send + Sync + std::fmt::Debug {
    /// The position of the chosen candidate. `None` only when every candidate was tried.
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize>;
}

/// What must continue when a balancer is rebuilt: the position of the rotation.
pub type Cursor = Arc<AtomicUsize>;

/// The balancer for `candidates` (of none, one that never picks).
pub fn build(spec: &Spec, candidates: &[Candidate], cursor: Cursor) -> Box<dyn Balancer> {
    match spec {
        Spec::RoundRobin => Box::new(RoundRobin::new(candidates, cursor)),
        Spec::Random => Box::new(Random::new(candidates)),
        Spec::LeastConnections => Box::new(LeastConnections::new(candidates)),
        Spec::Maglev { .. } => Box::new(Maglev::new(candidates)),
    }
}

/// The candidates' ids, by which those that were tried are told apart.
#[derive(Debug)]
struct Ids(Box<[u32]>);

impl Ids {
    fn of(candidates: &[Candidate]) -> Self {
        Self(candidates.iter().map(|candidate| candidate.endpoint.id).collect())
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn untried(&self, position: usize, tried: &[u32]) -> bool {
        self.0.get(position).is_some_and(|id| !tried.contains(id))
    }
}

/// The candidates' weights, none of them 0.
fn weights(candidates: &[Candidate]) -> Box<[u16]> {
    candidates.iter().map(|candidate| candidate.weight.max(1)).collect()
}

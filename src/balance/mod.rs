//! Picking an endpoint: the trait, the closed list of algorithms, one file per algorithm.
//!
//! A balancer is built once from an unchanging list of available endpoints and never edited: when
//! health or membership changes, the upstream builds another. So a pick takes no lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize};
use std::time::Instant;

use http::HeaderName;

pub use self::bounded::MaxLoad;
pub use self::key::KeyParts;
use self::least_connections::LeastConnections;
use self::maglev::Maglev;
use self::only::Only;
use self::p2c::P2c;
use self::peak_ewma::PeakEwma;
use self::random::Random;
use self::rendezvous::Rendezvous;
use self::ring_hash::RingHash;
use self::round_robin::RoundRobin;
use crate::base::rng::Rng;
use crate::endpoint::State;
use crate::endpoint::tally::ALGORITHMS;
use crate::telemetry::shard::WorkerId;

mod alias;
mod bounded;
#[cfg(test)]
mod consistency;
#[cfg(test)]
mod contract;
mod key;
mod least_connections;
mod maglev;
mod only;
mod p2c;
mod peak_ewma;
mod random;
mod rendezvous;
mod ring_hash;
mod round_robin;
pub mod shadow;
pub mod spread;

/// `balance = …` as validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    RoundRobin,
    Random,
    LeastConnections,
    P2c,
    PeakEwma,
    RingHash(Hashing),
    Maglev(Hashing),
    Rendezvous(Hashing),
}

/// The names of all algorithms.
pub const NAMES: [&str; ALGORITHMS] = [
    "round_robin",
    "random",
    "least_connections",
    "p2c",
    "peak_ewma",
    "ring_hash",
    "maglev",
    "rendezvous",
];

/// What a hashing algorithm needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hashing {
    pub key: HashKey,
    /// `None`: a key goes to its endpoint however busy that is.
    pub max_load: Option<MaxLoad>,
}

impl Spec {
    /// The name in the configuration.
    pub fn label(&self) -> &'static str {
        NAMES[self.number()]
    }

    /// Its place in [`NAMES`].
    pub fn number(&self) -> usize {
        match self {
            Self::RoundRobin => 0,
            Self::Random => 1,
            Self::LeastConnections => 2,
            Self::P2c => 3,
            Self::PeakEwma => 4,
            Self::RingHash(_) => 5,
            Self::Maglev(_) => 6,
            Self::Rendezvous(_) => 7,
        }
    }

    /// All others that could take its place as things are: those that hash only where there is something to hash.
    pub fn others(&self) -> Vec<Self> {
        let mut all = vec![
            Self::RoundRobin,
            Self::Random,
            Self::LeastConnections,
            Self::P2c,
            Self::PeakEwma,
        ];
        if let Some(hashing) = self.hashing() {
            all.push(Self::RingHash(hashing.clone()));
            all.push(Self::Maglev(hashing.clone()));
            all.push(Self::Rendezvous(hashing.clone()));
        }
        all.retain(|other| other.number() != self.number());
        all
    }

    /// What is hashed; `None` for algorithms that hash nothing.
    pub fn hashing(&self) -> Option<&Hashing> {
        match self {
            Self::RingHash(hashing) | Self::Maglev(hashing) | Self::Rendezvous(hashing) => Some(hashing),
            Self::RoundRobin | Self::Random | Self::LeastConnections | Self::P2c | Self::PeakEwma => None,
        }
    }

    /// Whether it looks at how long endpoints took, which then must be reported.
    pub fn wants_latency(&self) -> bool {
        matches!(self, Self::PeakEwma)
    }

    /// Whether it looks at `Memory::active`, in which every pick then must be counted.
    pub fn wants_total(&self) -> bool {
        self.hashing().is_some_and(|hashing| hashing.max_load.is_some())
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
    /// Its share, in [`UNIT`]s.
    pub weight: u32,
}

/// A weight of 1 in the configuration: fine enough to give an endpoint a part of its weight.
pub const UNIT: u32 = 64;

/// What a pick may look at.
pub struct PickContext<'a> {
    /// The hash of the request's key; `None` when it has none (then a hashing balancer picks at random).
    pub key: Option<u64>,
    pub rng: &'a mut Rng,
    /// Ids (`State::id`) of endpoints already tried for this request: avoided while another is left.
    pub tried: &'a [u32],
    /// Now, or so little before that it makes no difference.
    pub now: Instant,
    /// Who picks.
    pub worker: WorkerId,
}

/// An algorithm at work over a fixed list of candidates.
pub trait Balancer: Send + Sync + std::fmt::Debug {
    /// The position of the chosen candidate. `None` only when every candidate was tried.
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize>;
}

/// What must continue when a balancer is rebuilt.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// The position of the rotation.
    pub turn: Arc<AtomicUsize>,
    /// Picks under way at all candidates together, counted for those who want it ([`Spec::wants_total`]).
    pub active: Arc<AtomicU32>,
}

/// The balancer for `candidates` (of none, one that never picks).
pub fn build(spec: &Spec, candidates: &[Candidate], memory: &Memory) -> Box<dyn Balancer> {
    if let [candidate] = candidates {
        return Box::new(Only::new(candidate));
    }
    match spec {
        Spec::RoundRobin => Box::new(RoundRobin::new(candidates, memory.turn.clone())),
        Spec::Random => Box::new(Random::new(candidates)),
        Spec::LeastConnections => Box::new(LeastConnections::new(candidates)),
        Spec::P2c => Box::new(P2c::new(candidates)),
        Spec::PeakEwma => Box::new(PeakEwma::new(candidates)),
        Spec::RingHash(hashing) => Box::new(RingHash::new(candidates, hashing, memory)),
        Spec::Maglev(hashing) => Box::new(Maglev::new(candidates, hashing, memory)),
        Spec::Rendezvous(hashing) => Box::new(Rendezvous::new(candidates, hashing, memory)),
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
fn weights(candidates: &[Candidate]) -> Box<[u32]> {
    candidates.iter().map(|candidate| candidate.weight.max(1)).collect()
}

/// The candidates' labels: what makes their places in a table, the same in every process.
fn labels(candidates: &[Candidate]) -> Vec<&str> {
    candidates.iter().map(|candidate| &*candidate.endpoint.label).collect()
}

//! One endpoint's live state: is it up, how busy is it, what has it done. Survives reloads by identity.

pub mod duty;
pub mod idle;
pub mod links;
pub mod place;
pub mod record;
pub mod streak;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use tokio::sync::Notify;

use self::latency::PeakEwma;
use self::links::Links;
use self::place::Place;
use self::ramp::Ramp;
use self::record::Record;
use self::streak::Streak;
use self::tally::Tally;
use crate::net::addr::{DialAddr, EndpointAddr};
use crate::policy::limit::Limit;
use crate::policy::queue::Entered;
use crate::telemetry::series::EndpointSeries;

pub mod latency;
pub mod ramp;
pub mod tally;

/// What the health checker thinks of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Health {
    /// No probe has ended yet: used only while no endpoint is known to be up.
    Checking = 0,
    Up = 1,
    Down = 2,
}

impl Health {
    /// The word in logs and in the status API.
    pub fn label(self) -> &'static str {
        match self {
            Self::Checking => "checking",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// One address in one upstream. Shared by all workers and by every snapshot it appears in.
#[derive(Debug)]
pub struct State {
    /// Unique in the process.
    pub id: u32,
    /// Unique while it lives, and dense: indexes the workers' pools.
    pub place: Place,
    pub addr: DialAddr,
    /// As written in the configuration: the name TLS verifies, the Host of probes.
    pub configured: EndpointAddr,
    /// `addr` as text: the metric label and the log field.
    pub label: Arc<str>,
    health: AtomicU8,
    active: AtomicU32,
    /// Whether it is to take work.
    pub orders: duty::Orders,
    /// What it was seen to do with idle connections.
    pub idle: idle::Learned,
    /// Kept up to date only where the upstream balances by it.
    pub latency: PeakEwma,
    pub ramp: Ramp,
    /// Who would have picked it.
    pub tally: Tally,
    /// How many may be.
    pub limit: Limit,
    /// Its connections.
    pub links: Arc<Links>,
    /// What is told to people about its health.
    pub record: Record,
    /// Failures in a row, and whether they have taken it out.
    pub streak: Streak,
    pub series: EndpointSeries,
    /// Those who know where it is: told when that seems to be no longer true.
    sources: Vec<Arc<Notify>>,
}

impl State {
    /// A new endpoint, not yet checked (`Up` is for those without a health check).
    pub fn new(id: u32, addr: DialAddr, configured: EndpointAddr, health: Health, workers: usize) -> Self {
        Self {
            id,
            place: Place::default(),
            label: addr.to_string().into(),
            addr,
            configured,
            health: AtomicU8::new(health as u8),
            active: AtomicU32::new(0),
            orders: duty::Orders::default(),
            idle: idle::Learned::default(),
            latency: PeakEwma::default(),
            ramp: Ramp::default(),
            tally: Tally::default(),
            limit: Limit::default(),
            links: Arc::default(),
            record: Record::default(),
            streak: Streak::default(),
            series: EndpointSeries::new(workers),
            sources: Vec::new(),
        }
    }

    /// The same, found by `sources`, which should ask again when it cannot be reached.
    pub fn found_by(self, sources: Vec<Arc<Notify>>) -> Self {
        Self { sources, ..self }
    }

    /// The same, in one of the places of the process. Without, it is alone.
    pub fn at(self, place: Place) -> Self {
        Self { place, ..self }
    }

    /// The same, with connections that were made before it came.
    pub fn with_links(self, links: Arc<Links>) -> Self {
        Self { links, ..self }
    }

    /// It cannot be reached: perhaps it is elsewhere by now.
    pub fn doubt(&self) {
        self.sources.iter().for_each(|source| source.notify_one());
    }

    pub fn health(&self) -> Health {
        match self.health.load(Relaxed) {
            0 => Health::Checking,
            1 => Health::Up,
            _ => Health::Down,
        }
    }

    /// Its health as far as new work is concerned: what is ejected is down.
    pub fn standing(&self) -> Health {
        match self.streak.is_ejected() {
            true => Health::Down,
            false => self.health(),
        }
    }

    /// Only the health checker and the builder of snapshots call this.
    pub fn set_health(&self, health: Health) {
        self.health.store(health as u8, Relaxed);
        match health {
            Health::Down => self.doubt(),
            // What failed before is no longer held against it.
            Health::Up => self.streak.forget(),
            Health::Checking => {}
        }
    }

    /// Requests (Layer 4: connections) under way now.
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    /// Whether `active` may be under way, by its limit and by its connections.
    pub fn allows(&self, active: u32) -> bool {
        self.limit.allows(active) && self.links.allow(active)
    }

    /// Counts one request as under way until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Active {
        self.active.fetch_add(1, Relaxed);
        Active {
            endpoint: self.clone(),
            total: None,
            entered: None,
        }
    }
}

/// One request under way at an endpoint; counted from [`State::begin`] until dropped.
#[derive(Debug)]
pub struct Active {
    endpoint: Arc<State>,
    total: Option<Arc<AtomicU32>>,
    /// Where the upstream counts too. Dropped after the endpoint has been told: who waits then finds room.
    entered: Option<Entered>,
}

impl Active {
    pub fn endpoint(&self) -> &Arc<State> {
        &self.endpoint
    }

    /// Counts it in `total` too, for as long.
    pub fn also_in(mut self, total: &Arc<AtomicU32>) -> Self {
        total.fetch_add(1, Relaxed);
        self.total = Some(total.clone());
        self
    }

    /// Also counted in its upstream from now on.
    pub fn within(mut self, entered: Entered) -> Self {
        self.entered = Some(entered);
        self
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.endpoint.active.fetch_sub(1, Relaxed);
        if let Some(total) = &self.total {
            total.fetch_sub(1, Relaxed);
        }
    }
}

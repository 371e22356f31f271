//! A simulated world: clients, proxies with the real balancers, endpoints with queues. Virtual time, seeded chance.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use evenkeel::balance::{self, Balancer, Candidate, Memory, PickContext, Spec, UNIT};
use evenkeel::base::hash;
use evenkeel::base::rng::Rng;
use evenkeel::base::tail::Tail;
use evenkeel::endpoint::latency::Sample;
use evenkeel::endpoint::{Active, Health, State};
use evenkeel::net::addr::{DialAddr, EndpointAddr};
use evenkeel::telemetry::shard::WorkerId;

/// Requests an endpoint works on at once; more wait in its queue.
const SLOTS: usize = 8;
/// What an endpoint takes for a request on average.
const MEAN_US: f64 = 10_000.0;
/// A slow endpoint takes so many times as long.
const SLOW: f64 = 20.0;
/// For an answer that says that it failed, and for a connection that is refused.
const FAILS_US: u64 = 300;
/// A restart: how long an endpoint is gone, how long it is slow afterwards, how soon health checks see either.
const GONE_US: u64 = 1_000_000;
const COLD_US: u64 = 1_000_000;
const SEEN_US: u64 = 300_000;
const COLD: f64 = 4.0;
/// Keys, where there are some.
const KEYS: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Service {
    /// Half of it fixed, half exponential.
    Even,
    /// Pareto with exponent 1.3, up to 200 times the least.
    HeavyTailed,
    /// Connections rather than requests: heavy-tailed, as many at once as come, and all that is known of
    /// an endpoint is what connecting takes.
    Connections,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    None,
    /// The first endpoint is 20 times slower than the others.
    Slow,
    /// The first endpoint answers every request with an error, at once.
    FailsFast,
    /// One endpoint after the other restarts, and is slow for a second when it is back.
    Rolling,
}

#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub endpoints: usize,
    pub proxies: usize,
    pub requests: usize,
    /// Of what the endpoints can do together.
    pub load: f64,
    pub service: Service,
    pub fault: Fault,
    /// Keys by Zipf's law with exponent 1.1; else every key is as frequent as any other.
    pub zipf: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub p50_ms: f64,
    pub p99_ms: f64,
    #[allow(dead_code, reason = "only the tables tell it")]
    pub p999_ms: f64,
    /// Under way at the busiest endpoint, over the mean of all: on average.
    pub imbalance: f64,
    /// Attempts that failed, for a million requests: what clients see of requests that must not be repeated.
    pub failed: f64,
    /// Requests in a million that failed at two endpoints.
    pub errors: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Done {
        endpoint: usize,
        request: usize,
    },
    /// An answer that took no slot.
    Failed {
        request: usize,
    },
    Restart {
        endpoint: usize,
    },
    /// Health checks see that an endpoint has gone or come back.
    Seen,
}

struct Endpoint {
    busy: usize,
    queue: VecDeque<usize>,
    /// When it restarts, if it does: gone from then on, then back and slow.
    restarted: Option<u64>,
}

struct Request {
    proxy: usize,
    key: u64,
    began: u64,
    attempt: u64,
    active: Option<Active>,
    tried: Vec<u32>,
}

struct Proxy {
    states: Vec<Arc<State>>,
    balancer: Box<dyn Balancer>,
    /// Positions of the balancer's candidates among all endpoints.
    candidates: Vec<usize>,
    memory: Memory,
    tail: Tail,
}

/// Makes the balancer of one proxy.
type Make<'a> = &'a dyn Fn(&[Candidate], &Memory) -> Box<dyn Balancer>;

/// The fewest under way of all, however many there are: what drawing is compared with.
#[derive(Debug)]
struct FewestOfAll(Vec<Arc<State>>);

impl Balancer for FewestOfAll {
    fn pick(&self, cx: &mut PickContext<'_>) -> Option<usize> {
        let untried = |(_, endpoint): &(usize, &Arc<State>)| !cx.tried.contains(&endpoint.id);
        let all = || self.0.iter().enumerate().filter(untried);
        let fewest = all().map(|(_, endpoint)| endpoint.active()).min()?;
        let equals = || all().filter(|(_, endpoint)| endpoint.active() == fewest);
        let (count, nth) = (equals().count() as u64, cx.rng.next_u64());
        equals().nth((nth % count) as usize).map(|(position, _)| position)
    }
}

struct World<'a> {
    scenario: &'a Scenario,
    make: Make<'a>,
    rng: Rng,
    start: Instant,
    now: u64,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    order: u64,
    endpoints: Vec<Endpoint>,
    proxies: Vec<Proxy>,
    requests: Vec<Request>,
    took: Vec<u64>,
    failed: usize,
    errors: usize,
    imbalance: (f64, u32),
    zipf: Vec<f64>,
}

pub fn run(scenario: &Scenario, spec: &Spec, seed: u64) -> Outcome {
    run_with(
        scenario,
        &|candidates, memory| balance::build(spec, candidates, memory),
        seed,
    )
}

/// As `least_connections` would do if it always looked at all.
pub fn run_fewest_of_all(scenario: &Scenario, seed: u64) -> Outcome {
    let endpoint = |candidate: &Candidate| candidate.endpoint.clone();
    run_with(
        scenario,
        &|candidates, _| Box::new(FewestOfAll(candidates.iter().map(endpoint).collect())),
        seed,
    )
}

fn run_with(scenario: &Scenario, make: Make<'_>, seed: u64) -> Outcome {
    let mut world = World::new(scenario, make, seed);
    world.schedule(0, Event::Arrival);
    if scenario.fault == Fault::Rolling {
        let every = (scenario.requests as f64 * world.interval() / scenario.endpoints as f64) as u64;
        for endpoint in 0..scenario.endpoints {
            world.schedule(every * endpoint as u64 + every / 4, Event::Restart { endpoint });
        }
    }
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.now = at;
        world.happen(event);
    }
    world.outcome()
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, make: Make<'a>, seed: u64) -> Self {
        let proxies = (0..scenario.proxies)
            .map(|_| Proxy::new(scenario.endpoints, make))
            .collect();
        let endpoint = |_| Endpoint {
            busy: 0,
            queue: VecDeque::new(),
            restarted: None,
        };
        let zipf = (1..=KEYS).scan(0.0, |sum, key| {
            *sum += (key as f64).powf(-1.1);
            Some(*sum)
        });
        Self {
            scenario,
            make,
            rng: Rng::new(seed),
            start: Instant::now(),
            now: 0,
            events: BinaryHeap::new(),
            order: 0,
            endpoints: (0..scenario.endpoints).map(endpoint).collect(),
            proxies,
            requests: Vec::new(),
            took: Vec::new(),
            failed: 0,
            errors: 0,
            imbalance: (0.0, 0),
            zipf: zipf.collect(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrival => self.arrive(),
            Event::Done { endpoint, request } => {
                self.endpoints[endpoint].busy -= 1;
                if let Some(next) = self.endpoints[endpoint].queue.pop_front() {
                    self.work(endpoint, next);
                }
                self.end(request, false);
            }
            Event::Failed { request } => self.end(request, true),
            Event::Restart { endpoint } => {
                self.endpoints[endpoint].restarted = Some(self.now);
                self.schedule(SEEN_US, Event::Seen);
                self.schedule(GONE_US + SEEN_US, Event::Seen);
                // What it was doing is lost with it; its queue too.
                for request in std::mem::take(&mut self.endpoints[endpoint].queue) {
                    self.schedule(FAILS_US, Event::Failed { request });
                }
            }
            Event::Seen => {
                let up: Vec<usize> = (0..self.endpoints.len()).filter(|n| self.looks_up(*n)).collect();
                self.proxies.iter_mut().for_each(|proxy| proxy.rebuild(&up, self.make));
            }
        }
    }

    /// As health checks have it, which are a little late.
    fn looks_up(&self, endpoint: usize) -> bool {
        let gone = |at| (at + SEEN_US..at + GONE_US + SEEN_US).contains(&self.now);
        !self.endpoints[endpoint].restarted.is_some_and(gone)
    }

    fn arrive(&mut self) {
        if self.requests.len() + 1 < self.scenario.requests {
            let gap = -self.interval() * (1.0 - self.rng.unit()).ln();
            self.schedule(gap as u64, Event::Arrival);
        }
        let key = match self.scenario.zipf {
            true => {
                let place = self.rng.unit() * self.zipf[KEYS - 1];
                self.zipf.partition_point(|sum| *sum < place) as u64
            }
            false => self.rng.next_u64(),
        };
        let request = self.requests.len();
        self.requests.push(Request {
            proxy: self.rng.below(self.scenario.proxies as u64) as usize,
            key: hash::stable(&key.to_le_bytes()),
            began: self.now,
            attempt: self.now,
            active: None,
            tried: Vec::new(),
        });
        if request.is_multiple_of(32) {
            self.look();
        }
        self.attempt(request);
    }

    fn attempt(&mut self, n: usize) {
        let now = self.start + Duration::from_micros(self.now);
        let request = &mut self.requests[n];
        let proxy = &self.proxies[request.proxy];
        let picked = proxy.balancer.pick(&mut PickContext {
            key: Some(request.key),
            rng: &mut self.rng,
            tried: &request.tried,
            now,
            worker: WorkerId(1),
        });
        let Some(picked) = picked else {
            self.errors += 1;
            return;
        };
        let endpoint = proxy.candidates[picked];
        request.attempt = self.now;
        request.active = Some(proxy.states[endpoint].begin().also_in(&proxy.memory.active));
        let gone = |at| (at..at + GONE_US).contains(&self.now);
        let fails = self.scenario.fault == Fault::FailsFast && endpoint == 0;
        if fails || self.endpoints[endpoint].restarted.is_some_and(gone) {
            self.schedule(FAILS_US, Event::Failed { request: n });
        } else if self.endpoints[endpoint].busy < self.slots() {
            self.work(endpoint, n);
        } else {
            self.endpoints[endpoint].queue.push_back(n);
        }
    }

    fn work(&mut self, endpoint: usize, request: usize) {
        self.endpoints[endpoint].busy += 1;
        let unit = 1.0 - self.rng.unit();
        let service = match self.scenario.service {
            Service::Even => MEAN_US * (0.5 - 0.5 * unit.ln()),
            // The least is such that the mean is MEAN_US.
            Service::HeavyTailed | Service::Connections => MEAN_US / 3.46 * unit.powf(-1.0 / 1.3).min(200.0),
        };
        let cold = |at| (at + GONE_US..at + GONE_US + COLD_US).contains(&self.now);
        let slower = match self.scenario.fault {
            Fault::Slow if endpoint == 0 => SLOW,
            _ if self.endpoints[endpoint].restarted.is_some_and(cold) => COLD,
            _ => 1.0,
        };
        self.schedule((service * slower) as u64, Event::Done { endpoint, request });
    }

    fn end(&mut self, n: usize, failed: bool) {
        let now = self.start + Duration::from_micros(self.now);
        let request = &mut self.requests[n];
        let proxy = &self.proxies[request.proxy];
        let Some(active) = request.active.take() else { return };
        let took = match self.scenario.service {
            Service::Connections => Duration::from_micros(FAILS_US),
            _ => Duration::from_micros(self.now - request.attempt),
        };
        // As `Upstream::report` does.
        let sample = match failed {
            false => {
                proxy.tail.observe(took);
                Sample::Answered(took)
            }
            true => Sample::Failed(proxy.tail.p99().unwrap_or(Duration::from_secs(1)).max(took)),
        };
        active.endpoint().latency.observe(now, sample);
        self.failed += usize::from(failed);
        if !failed {
            self.took.push(self.now - request.began);
        } else if request.tried.is_empty() {
            request.tried.push(active.endpoint().id);
            drop(active);
            self.attempt(n);
        } else {
            self.errors += 1;
        }
    }

    fn look(&mut self) {
        let loads = self
            .endpoints
            .iter()
            .map(|endpoint| endpoint.busy + endpoint.queue.len());
        let (sum, most) = loads.fold((0, 0), |(sum, most), load| (sum + load, most.max(load)));
        // Few under way at all are never balanced.
        if sum > 2 * self.endpoints.len() {
            self.imbalance.0 += most as f64 * self.endpoints.len() as f64 / sum as f64;
            self.imbalance.1 += 1;
        }
    }

    fn slots(&self) -> usize {
        match self.scenario.service {
            Service::Connections => usize::MAX,
            _ => SLOTS,
        }
    }

    /// Between two requests on average.
    fn interval(&self) -> f64 {
        MEAN_US / (SLOTS * self.scenario.endpoints) as f64 / self.scenario.load
    }

    fn schedule(&mut self, after: u64, event: Event) {
        self.order += 1;
        self.events.push(Reverse((self.now + after, self.order, event)));
    }

    fn outcome(mut self) -> Outcome {
        self.took.sort_unstable();
        let at = |q: f64| self.took[((self.took.len() - 1) as f64 * q) as usize] as f64 / 1000.0;
        Outcome {
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            imbalance: self.imbalance.0 / f64::from(self.imbalance.1.max(1)),
            failed: self.failed as f64 / self.scenario.requests as f64 * 1e6,
            errors: self.errors as f64 / self.scenario.requests as f64 * 1e6,
        }
    }
}

impl Proxy {
    fn new(endpoints: usize, make: Make<'_>) -> Self {
        let state = |id: u32| {
            let addr = SocketAddr::from((Ipv4Addr::from(0x0A00_0000 + id), 80));
            Arc::new(State::new(
                id,
                DialAddr::Ip(addr),
                EndpointAddr::Ip(addr),
                Health::Up,
                1,
            ))
        };
        let memory = Memory::default();
        let mut proxy = Self {
            states: (0..endpoints as u32).map(state).collect(),
            balancer: make(&[], &memory),
            candidates: Vec::new(),
            memory,
            tail: Tail::default(),
        };
        proxy.rebuild(&(0..endpoints).collect::<Vec<_>>(), make);
        proxy
    }

    fn rebuild(&mut self, up: &[usize], make: Make<'_>) {
        let candidate = |n: &usize| Candidate {
            endpoint: self.states[*n].clone(),
            weight: UNIT,
        };
        let candidates: Vec<_> = up.iter().map(candidate).collect();
        self.balancer = make(&candidates, &self.memory);
        self.candidates = up.to_vec();
    }
}

//! What a change costs an upstream of many endpoints: `cargo bench --bench changes`. None of it runs on a worker.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use evenkeel::balance::spread::Spread;
use evenkeel::balance::{HashKey, Hashing, Memory, Spec};
use evenkeel::endpoint::{Health, State};
use evenkeel::net::addr::{DialAddr, EndpointAddr};
use evenkeel::policy::backoff::Backoff;
use evenkeel::policy::budget::Share;
use evenkeel::policy::retry::{self, Methods, On};
use evenkeel::pool::{Dialer, Protocol};
use evenkeel::telemetry::series::UpstreamSeries;
use evenkeel::upstream::{Member, Settings, Upstream};

const ENDPOINTS: [u32; 3] = [100, 1_000, 10_000];
const ALGORITHMS: [&str; 8] = [
    "round_robin",
    "random",
    "least_connections",
    "p2c",
    "peak_ewma",
    "ring_hash",
    "maglev",
    "rendezvous",
];

fn main() {
    divan::main();
}

fn spec(name: &str) -> Spec {
    let hashing = Hashing {
        key: HashKey::SourceIp,
        max_load: None,
    };
    match name {
        "round_robin" => Spec::RoundRobin,
        "random" => Spec::Random,
        "least_connections" => Spec::LeastConnections,
        "p2c" => Spec::P2c,
        "peak_ewma" => Spec::PeakEwma,
        "ring_hash" => Spec::RingHash(hashing),
        "maglev" => Spec::Maglev(hashing),
        "rendezvous" => Spec::Rendezvous(hashing),
        _ => panic!("no algorithm is called {name}"),
    }
}

fn member(id: u32) -> Member {
    let addr = SocketAddr::from(((0x0A00_0000 + id).to_be_bytes(), 80));
    let state = State::new(id, DialAddr::Ip(addr), EndpointAddr::Ip(addr), Health::Up, 1);
    Member {
        endpoint: Arc::new(state),
        weight: 1,
        backup: false,
        priority: 0,
        zone: None,
    }
}

fn upstream(name: &str, endpoints: u32) -> Upstream {
    let long = Duration::from_secs(1);
    let settings = Settings {
        balance: spec(name),
        auto: false,
        spread: Spread {
            slow_start: None,
            panic_threshold: 0.0,
            subset: None,
            zone: None,
        },
        workers: 2,
        host: 0,
        response_timeout: long,
        read_timeout: long,
        drain_timeout: None,
        pool_min_idle: 0,
        retry: retry::Spec {
            max: 1,
            on: On::FAILURES,
            methods: Methods::Idempotent,
            per_try_timeout: None,
            budget: Share {
                of_active: 0.2,
                at_least: 3,
                per_second: 10,
            },
            backoff: Backoff { base: long, max: long },
            buffer: 0,
            tell: false,
        },
        repeating: Arc::default(),
        p95: None,
        limits: None,
        sticky: None,
        shadow: None,
        timed: true,
    };
    Upstream::new(
        "u".into(),
        settings,
        Arc::new(Dialer::new(Protocol::Auto, None, long, long, 1)),
        Arc::new(UpstreamSeries::new(1)),
        Memory::default(),
        (0..endpoints).map(member).collect(),
    )
}

/// One endpoint goes down or comes back.
#[divan::bench(args = ALGORITHMS, consts = ENDPOINTS, sample_count = 20)]
fn health<const N: u32>(bencher: Bencher<'_, '_>, name: &str) {
    let upstream = upstream(name, N);
    let endpoint = upstream.members()[N as usize / 2].endpoint.clone();
    bencher.bench_local(|| {
        endpoint.set_health(match endpoint.health() {
            Health::Up => Health::Down,
            _ => Health::Up,
        });
        upstream.refresh();
    });
}

/// One endpoint's weight is changed.
#[divan::bench(args = ALGORITHMS, consts = ENDPOINTS, sample_count = 20)]
fn weight<const N: u32>(bencher: Bencher<'_, '_>, name: &str) {
    let upstream = upstream(name, N);
    let endpoint = upstream.members()[N as usize / 2].endpoint.clone();
    let mut weights = (1..=3).cycle();
    bencher.bench_local(|| {
        endpoint.orders.set_operators_weight(weights.next());
        upstream.refresh();
    });
}

/// A source has found another endpoint, or no longer one of those it had.
#[divan::bench(args = ALGORITHMS, consts = ENDPOINTS, sample_count = 20)]
fn membership<const N: u32>(bencher: Bencher<'_, '_>, name: &str) {
    let upstream = upstream(name, N);
    let more = member(N);
    bencher.bench_local(|| {
        let mut members = upstream.members().to_vec();
        match members.len() > N as usize {
            true => drop(members.pop()),
            false => members.push(more.clone()),
        }
        upstream.set_members(members);
    });
}

//! What picking an endpoint and building a balancer cost: `cargo bench --bench balance`.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use divan::Bencher;
use evenkeel::balance::{
    Candidate, HashKey, Hashing, KeyParts, MaxLoad, Memory, PickContext, Spec, UNIT, build as build_balancer,
};
use evenkeel::base::rng::Rng;
use evenkeel::endpoint::latency::Sample;
use evenkeel::endpoint::{Active, Health, State};
use evenkeel::fields::{Fields, Known};
use evenkeel::net::addr::{DialAddr, EndpointAddr};
use evenkeel::telemetry::shard::WorkerId;
use http::{HeaderName, HeaderValue};

const ENDPOINTS: [usize; 5] = [1, 10, 100, 1_000, 10_000];

fn main() {
    divan::main();
}

/// Weights from 1 to `heaviest` in turn.
fn candidates(count: usize, heaviest: u32) -> Vec<Candidate> {
    (0..count as u32)
        .map(|id| Candidate {
            endpoint: Arc::new(State::new(
                id,
                DialAddr::Ip((Ipv4Addr::from(0x0A00_0000 + id), 80).into()),
                EndpointAddr::Ip((Ipv4Addr::from(0x0A00_0000 + id), 80).into()),
                Health::Up,
                1,
            )),
            weight: (1 + id % heaviest) * UNIT,
        })
        .collect()
}

fn spec(name: &str) -> Spec {
    let hashing = |max_load| Hashing {
        key: HashKey::SourceIp,
        max_load,
    };
    match name {
        "round_robin" => Spec::RoundRobin,
        "random" => Spec::Random,
        "least_connections" => Spec::LeastConnections,
        "p2c" => Spec::P2c,
        "peak_ewma" => Spec::PeakEwma,
        "ring_hash" => Spec::RingHash(hashing(None)),
        "maglev" => Spec::Maglev(hashing(None)),
        "rendezvous" => Spec::Rendezvous(hashing(None)),
        "ring_hash bounded" => Spec::RingHash(hashing(Some(MaxLoad(125)))),
        "maglev bounded" => Spec::Maglev(hashing(Some(MaxLoad(125)))),
        "rendezvous bounded" => Spec::Rendezvous(hashing(Some(MaxLoad(125)))),
        _ => panic!("no algorithm is called {name}"),
    }
}

const ALGORITHMS: [&str; 11] = [
    "round_robin",
    "random",
    "least_connections",
    "p2c",
    "peak_ewma",
    "ring_hash",
    "maglev",
    "rendezvous",
    "ring_hash bounded",
    "maglev bounded",
    "rendezvous bounded",
];

/// One pick where every endpoint has two requests under way and has answered before.
#[divan::bench(args = ALGORITHMS, consts = ENDPOINTS)]
fn pick<const N: usize>(bencher: Bencher<'_, '_>, name: &str) {
    let candidates = candidates(N, 4);
    let memory = Memory::default();
    let busy = candidates.iter().chain(&candidates);
    let _busy: Vec<Active> = busy
        .map(|candidate| candidate.endpoint.begin().also_in(&memory.active))
        .collect();
    let now = Instant::now();
    for (ms, candidate) in (10..20).cycle().zip(&candidates) {
        candidate
            .endpoint
            .latency
            .observe(now, Sample::Answered(Duration::from_millis(ms)));
    }
    let balancer = build_balancer(&spec(name), &candidates, &memory);
    let mut rng = Rng::new(1);
    bencher.bench_local(|| {
        let key = Some(rng.next_u64());
        balancer.pick(&mut PickContext {
            key,
            rng: &mut rng,
            tried: &[],
            now,
            worker: WorkerId(1),
        })
    });
}

#[divan::bench(args = &ALGORITHMS[..8], consts = ENDPOINTS, sample_count = 10)]
fn build<const N: usize>(bencher: Bencher<'_, '_>, name: &str) {
    let candidates = candidates(N, 256);
    bencher.bench(|| build_balancer(&spec(name), &candidates, &Memory::default()));
}

/// What one report costs.
#[divan::bench]
fn observe(bencher: Bencher<'_, '_>) {
    let candidates = candidates(1, 1);
    let now = Instant::now();
    let mut ms = 0;
    bencher.bench_local(|| {
        ms = (ms + 1) % 20;
        let sample = Sample::Answered(Duration::from_millis(ms));
        candidates[0]
            .endpoint
            .latency
            .observe(now + Duration::from_millis(ms), sample);
    });
}

#[divan::bench(args = ["source_ip", "uri", "header:x-user", "cookie:sid", "query:user"])]
fn hash_key(bencher: Bencher<'_, '_>, key: &str) {
    let key: HashKey = key.parse().expect("a key");
    let mut headers = Fields::default();
    headers.append_named(&HeaderName::from_static("x-user"), &HeaderValue::from_static("ann"));
    headers.append(Known::Cookie, b"theme=dark; sid=0123456789abcdef");
    let parts = KeyParts {
        source: Ipv4Addr::LOCALHOST.into(),
        host: "shop.example",
        path: "/api/v1/users",
        query: Some("page=2&user=17"),
        headers: &headers,
    };
    bencher.bench(|| key.of(&parts));
}

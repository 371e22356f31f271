//! What picking an endpoint and building a balancer cost: `cargo bench --bench balance`.

use std::net::Ipv4Addr;
use std::sync::Arc;

use divan::Bencher;
use evenkeel::balance::{Candidate, Cursor, HashKey, KeyParts, PickContext, Spec, build as build_balancer};
use evenkeel::base::rng::Rng;
use evenkeel::endpoint::{Active, Health, State};
use evenkeel::fields::{Fields, Known};
use evenkeel::net::addr::{DialAddr, EndpointAddr};
use http::{HeaderName, HeaderValue};

const ENDPOINTS: [usize; 3] = [3, 100, 10_000];

fn main() {
    divan::main();
}

/// Weights from 1 to `heaviest` in turn.
fn candidates(count: usize, heaviest: u16) -> Vec<Candidate> {
    (0..count as u32)
        .map(|id| Candidate {
            endpoint: Arc::new(State::new(
                id,
                DialAddr::Ip((Ipv4Addr::from(0x0A00_0000 + id), 80).into()),
                EndpointAddr::Ip((Ipv4Addr::from(0x0A00_0000 + id), 80).into()),
                Health::Up,
                1,
            )),
            weight: 1 + (id % u32::from(heaviest)) as u16,
        })
        .collect()
}

fn maglev() -> Spec {
    Spec::Maglev {
        hash: HashKey::SourceIp,
    }
}

fn pick(bencher: Bencher<'_, '_>, spec: &Spec, count: usize, busy: usize) {
    let candidates = candidates(count, 4);
    let _busy: Vec<Active> = (0..busy)
        .flat_map(|_| &candidates)
        .map(|candidate| candidate.endpoint.begin())
        .collect();
    let balancer = build_balancer(spec, &candidates, Cursor::default());
    let mut rng = Rng::new(1);
    bencher.bench_local(|| {
        let key = Some(rng.next_u64());
        balancer.pick(&mut PickContext {
            key,
            rng: &mut rng,
            tried: &[],
        })
    });
}

#[divan::bench(args = ENDPOINTS)]
fn pick_round_robin(bencher: Bencher<'_, '_>, count: usize) {
    pick(bencher, &Spec::RoundRobin, count, 0);
}

#[divan::bench(args = ENDPOINTS)]
fn pick_random(bencher: Bencher<'_, '_>, count: usize) {
    pick(bencher, &Spec::Random, count, 0);
}

#[divan::bench(args = ENDPOINTS)]
fn pick_least_connections_idle(bencher: Bencher<'_, '_>, count: usize) {
    pick(bencher, &Spec::LeastConnections, count, 0);
}

#[divan::bench(args = ENDPOINTS)]
fn pick_least_connections_busy(bencher: Bencher<'_, '_>, count: usize) {
    pick(bencher, &Spec::LeastConnections, count, 2);
}

#[divan::bench(args = ENDPOINTS)]
fn pick_maglev(bencher: Bencher<'_, '_>, count: usize) {
    pick(bencher, &maglev(), count, 0);
}

fn build(bencher: Bencher<'_, '_>, spec: &Spec, count: usize) {
    let candidates = candidates(count, 256);
    bencher.bench(|| build_balancer(spec, &candidates, Cursor::default()));
}

#[divan::bench(args = ENDPOINTS, sample_count = 10)]
fn build_round_robin(bencher: Bencher<'_, '_>, count: usize) {
    build(bencher, &Spec::RoundRobin, count);
}

#[divan::bench(args = ENDPOINTS, sample_count = 10)]
fn build_random(bencher: Bencher<'_, '_>, count: usize) {
    build(bencher, &Spec::Random, count);
}

#[divan::bench(args = ENDPOINTS, sample_count = 10)]
fn build_least_connections(bencher: Bencher<'_, '_>, count: usize) {
    build(bencher, &Spec::LeastConnections, count);
}

#[divan::bench(args = ENDPOINTS, sample_count = 10)]
fn build_maglev(bencher: Bencher<'_, '_>, count: usize) {
    build(bencher, &maglev(), count);
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

//! What every algorithm must hold to, tested for each of them, and what their own tests are built from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use proptest::prelude::*;

use super::*;
use crate::base::rng::Rng;
use crate::endpoint::Health;
use crate::net::addr::{DialAddr, EndpointAddr};

/// Candidates with these weights; each one's id is its position.
pub fn candidates(weights: &[u16]) -> Vec<Candidate> {
    (0u32..)
        .zip(weights)
        .map(|(id, weight)| {
            let address = std::net::Ipv4Addr::from(0x0A00_0000 + id);
            let addr = std::net::SocketAddr::from((address, 8080));
            Candidate {
                endpoint: Arc::new(State::new(
                    id,
                    DialAddr::Ip(addr),
                    EndpointAddr::Ip(addr),
                    Health::Up,
                    1,
                )),
                weight: u32::from(*weight) * UNIT,
            }
        })
        .collect()
}

/// How often each of `count` positions comes out of `picks` picks.
pub fn share(count: usize, picks: usize, mut pick: impl FnMut() -> Option<usize>) -> Vec<usize> {
    let mut seen = vec![0; count];
    for _ in 0..picks {
        seen[pick().expect("a pick while a candidate is left")] += 1;
    }
    seen
}

/// By the client's address.
pub fn hashing(max_load: Option<MaxLoad>) -> Hashing {
    Hashing {
        key: HashKey::SourceIp,
        max_load,
    }
}

/// Every algorithm there is, hashing ones with and without a bound; the `match` fails to compile when one is missing.
fn specs() -> Vec<Spec> {
    let (free, bound) = (hashing(None), hashing(Some(MaxLoad(125))));
    let all = vec![
        Spec::RoundRobin,
        Spec::Random,
        Spec::LeastConnections,
        Spec::P2c,
        Spec::PeakEwma,
        Spec::RingHash(free.clone()),
        Spec::RingHash(bound.clone()),
        Spec::Maglev(free.clone()),
        Spec::Maglev(bound.clone()),
        Spec::Rendezvous(free),
        Spec::Rendezvous(bound),
    ];
    for spec in &all {
        match spec {
            Spec::RoundRobin | Spec::Random | Spec::LeastConnections | Spec::P2c | Spec::PeakEwma => {}
            Spec::RingHash(_) | Spec::Maglev(_) | Spec::Rendezvous(_) => {}
        }
    }
    all
}

pub fn pick(balancer: &dyn Balancer, key: Option<u64>, rng: &mut Rng, tried: &[u32]) -> Option<usize> {
    let now = Instant::now();
    balancer.pick(&mut PickContext {
        key,
        rng,
        tried,
        now,
        worker: WorkerId(1),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn each_is_tried_once_and_then_there_is_none(
        weights in prop::collection::vec(prop_oneof![4 => 1u16..=4, 1 => 5u16..=256], 1..20), busy in prop::collection::vec(0usize..20, 0..20),
        seed: u64, key: Option<u64>,
    ) {
        let candidates = candidates(&weights);
        let _busy: Vec<_> = busy.iter().filter_map(|i| candidates.get(*i)).map(|c| c.endpoint.begin()).collect();
        for spec in specs() {
            let balancer = build(&spec, &candidates, &Memory::default());
            let mut rng = Rng::new(seed);
            // Endpoints of other upstreams, or gone since, may be among the tried.
            let mut tried = vec![1_000_000];
            for _ in 0..weights.len() {
                let picked = pick(&*balancer, key, &mut rng, &tried);
                let position = picked.filter(|p| *p < weights.len());
                prop_assert!(position.is_some(), "{spec:?}: {picked:?} with {tried:?}");
                let id = candidates[position.unwrap_or(0)].endpoint.id;
                prop_assert!(!tried.contains(&id), "{spec:?}: {id} again");
                tried.push(id);
            }
            prop_assert_eq!(pick(&*balancer, key, &mut rng, &tried), None, "{:?}", spec);
        }
    }

    #[test]
    fn the_same_seed_picks_the_same(weights in prop::collection::vec(prop_oneof![4 => 1u16..=4, 1 => 5u16..=256], 1..20), seed: u64) {
        let candidates = candidates(&weights);
        for spec in specs() {
            let run = || {
                let balancer = build(&spec, &candidates, &Memory::default());
                let mut rng = Rng::new(seed);
                (0..50u64).map(|i| pick(&*balancer, (i % 3 == 0).then_some(i), &mut rng, &[])).collect::<Vec<_>>()
            };
            prop_assert_eq!(run(), run(), "{:?}", spec);
        }
    }

    #[test]
    fn shares_follow_the_weights(weights in prop::collection::vec(1u16..=16, 1..8), seed: u64) {
        let candidates = candidates(&weights);
        let sum: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        let picks = 200 * sum;
        for spec in specs() {
            let balancer = build(&spec, &candidates, &Memory::default());
            let mut rng = Rng::new(seed);
            // No request has a key and none lasts: every algorithm must then share by weight.
            let seen = share(weights.len(), picks, || pick(&*balancer, None, &mut rng, &[]));
            for (seen, weight) in seen.into_iter().zip(&weights) {
                let exact = 200 * usize::from(*weight);
                // By chance, within six standard deviations (of at most `sqrt(exact)`); in turns, exactly. The tables of
                // hashing algorithms have shares of their own, off by some per cent.
                let table = if spec.hashing().is_some() { 0.12 * exact as f64 } else { 0.0 };
                let off = if spec == Spec::RoundRobin { 0.0 } else { 6.0 * (exact as f64).sqrt() + table };
                prop_assert!(seen.abs_diff(exact) as f64 <= off, "{spec:?}: {seen} for {exact}");
            }
        }
    }
}

#[test]
fn one_candidate_gets_everything() {
    let candidates = candidates(&[7]);
    for spec in specs() {
        let balancer = build(&spec, &candidates, &Memory::default());
        let mut rng = Rng::new(1);
        assert!(
            (0..100).all(|i| pick(&*balancer, Some(i), &mut rng, &[]) == Some(0)),
            "{spec:?}"
        );
        assert_eq!(pick(&*balancer, None, &mut rng, &[0]), None, "{spec:?}");
    }
}

#[test]
fn none_has_none() {
    for spec in specs() {
        let balancer = build(&spec, &[], &Memory::default());
        assert_eq!(pick(&*balancer, None, &mut Rng::new(1), &[]), None, "{spec:?}");
    }
}

#[test]
fn a_weight_of_nothing_counts_as_one() {
    let candidates = candidates(&[0, 0]);
    for spec in specs() {
        let balancer = build(&spec, &candidates, &Memory::default());
        let mut rng = Rng::new(1);
        let seen = share(2, 100, || pick(&*balancer, None, &mut rng, &[]));
        assert!(seen.iter().all(|n| *n > 20), "{spec:?}: {seen:?}");
    }
}

#[test]
fn many_threads_may_pick_at_once() {
    const THREADS: usize = 4;
    const PICKS: usize = 3_000;
    let weights = [1, 2, 3];
    let candidates = candidates(&weights);
    for spec in specs() {
        let balancer = build(&spec, &candidates, &Memory::default());
        let seen: [AtomicUsize; 3] = Default::default();
        std::thread::scope(|scope| {
            for seed in 0..THREADS {
                let (balancer, candidates, seen) = (&*balancer, &candidates, &seen);
                scope.spawn(move || {
                    let mut rng = Rng::new(seed as u64);
                    for _ in 0..PICKS {
                        let key = rng.next_u64();
                        let first = pick(balancer, Some(key), &mut rng, &[]).expect("a first");
                        let _active = candidates[first].endpoint.begin();
                        let second = pick(balancer, Some(key), &mut rng, &[first as u32]).expect("a second");
                        assert_ne!(first, second);
                        seen[first].fetch_add(1, Relaxed);
                    }
                });
            }
        });
        let seen: Vec<usize> = seen.iter().map(|n| n.load(Relaxed)).collect();
        assert_eq!(seen.iter().sum::<usize>(), THREADS * PICKS, "{spec:?}");
        assert!(candidates.iter().all(|candidate| candidate.endpoint.active() == 0));
    }
}

#[test]
fn no_turn_is_lost_or_given_out_twice_between_threads() {
    let candidates = candidates(&[1, 2, 3]);
    let balancer = build(&Spec::RoundRobin, &candidates, &Memory::default());
    let work = |seed| {
        let mut rng = Rng::new(seed);
        share(3, 6_000, || pick(&*balancer, None, &mut rng, &[]))
    };
    let total = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|seed| scope.spawn(move || work(seed))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .fold([0; 3], |mut total, seen| {
                total.iter_mut().zip(seen).for_each(|(total, seen)| *total += seen);
                total
            })
    });
    assert_eq!(total, [4_000, 8_000, 12_000]);
}

//! What the hashing algorithms promise, measured for each: how few keys move, and that bounded loads are.

use super::contract::{candidates, hashing, pick};
use super::*;

fn all(max_load: Option<MaxLoad>) -> [Spec; 3] {
    let hashing = hashing(max_load);
    [
        Spec::RingHash(hashing.clone()),
        Spec::Maglev(hashing.clone()),
        Spec::Rendezvous(hashing),
    ]
}

/// The id of the endpoint each of `keys` keys goes to.
fn places(spec: &Spec, candidates: &[Candidate], keys: u64) -> Vec<u32> {
    let balancer = build(spec, candidates, &Memory::default());
    let mut rng = Rng::new(0);
    let mut of = |key: u64| {
        pick(
            &*balancer,
            Some(crate::base::hash::stable(&key.to_le_bytes())),
            &mut rng,
            &[],
        )
    };
    (0..keys).map(|key| candidates[of(key).unwrap()].endpoint.id).collect()
}

#[test]
fn few_keys_move_when_one_of_n_goes() {
    const KEYS: u64 = 20_000;
    for spec in all(None) {
        for n in [4usize, 10, 40, 100] {
            let mut all = candidates(&vec![1; n]);
            let before = places(&spec, &all, KEYS);
            let (mut moved, mut needless, mut worst) = (0, 0, 0);
            // Those that go are spread over the list, whatever its length.
            let gone = [0, n / 3, n / 2, n - 1];
            for gone in gone {
                let one = all.remove(gone);
                let after = places(&spec, &all, KEYS);
                let changes = before.iter().zip(&after).filter(|(was, is)| was != is);
                let here = changes.clone().count();
                moved += here;
                worst = worst.max(here);
                needless += changes.filter(|(was, _)| **was != one.endpoint.id).count();
                all.insert(gone, one);
            }
            let of_a_share = |keys: usize| keys as f64 / KEYS as f64 * n as f64;
            let mean = of_a_share(moved) / gone.len() as f64;
            // Maglev bounds shares, and so moves some keys of endpoints that stay.
            let needless = of_a_share(needless) / gone.len() as f64;
            let allowed = if matches!(spec, Spec::Maglev(_)) { 0.05 } else { 0.0 };
            assert!(needless <= allowed, "{}, {n}: {needless}", spec.label());
            let worst = of_a_share(worst);
            assert!(mean <= 1.1 && worst <= 1.1, "{}, {n}: {mean}, {worst}", spec.label());
        }
    }
}

/// A key from 1 up, of which the first is the most frequent: Zipf's law with exponent 1.1.
fn zipf(cumulated: &[f64], rng: &mut Rng) -> u64 {
    let place = rng.unit() * cumulated.last().unwrap();
    cumulated.partition_point(|sum| *sum < place) as u64
}

#[test]
fn hot_keys_overflow_and_no_endpoint_exceeds_the_bound() {
    let cumulated: Vec<f64> = (1..=10_000)
        .scan(0.0, |sum, key| {
            *sum += f64::from(key).powf(-1.1);
            Some(*sum)
        })
        .collect();
    for (weights, max) in [
        (vec![1u16; 10], 125),
        (vec![1, 2, 3, 4, 5, 6, 7, 8], 125),
        (vec![1; 100], 110),
    ] {
        let candidates = candidates(&weights);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for spec in all(Some(MaxLoad(max))) {
            let memory = Memory::default();
            let balancer = build(&spec, &candidates, &memory);
            let mut rng = Rng::new(7);
            let mut running = std::collections::VecDeque::new();
            for _ in 0..10_000 {
                let key = Some(crate::base::hash::stable(&zipf(&cumulated, &mut rng).to_le_bytes()));
                let position = pick(&*balancer, key, &mut rng, &[]).unwrap();
                running.push_back(candidates[position].endpoint.begin().also_in(&memory.active));
                let share = f64::from(weights[position]) / sum;
                let bound = (f64::from(max) / 100.0 * share * running.len() as f64).ceil();
                let active = candidates[position].endpoint.active();
                assert!(f64::from(active) <= bound, "{}: {active} of {bound}", spec.label());
                if running.len() > 1_000 {
                    running.pop_front();
                }
            }
        }
    }
}

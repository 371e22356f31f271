//! Who may be picked, and which share of requests goes where.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::group::{Group, Subsets};
use super::shares::{Shares, subset};
use super::*;
use crate::balance::{Candidate, Spec, UNIT};
use crate::base::rng::Rng;
use crate::net::addr::{DialAddr, EndpointAddr};
use Health::{Checking, Down, Up};

const PLAIN: Spread = Spread {
    slow_start: None,
    panic_threshold: 0.0,
    subset: None,
    zone: None,
};

fn member(id: u32, health: Health) -> Member {
    let addr = std::net::SocketAddr::from(([127, 0, (id >> 8) as u8, id as u8], 80));
    let state = State::new(id, DialAddr::Ip(addr), EndpointAddr::Ip(addr), health, 1);
    Member {
        endpoint: Arc::new(state),
        weight: 1,
        backup: false,
        priority: 0,
        zone: None,
    }
}

fn backup(id: u32, health: Health) -> Member {
    Member {
        backup: true,
        ..member(id, health)
    }
}

fn zoned(id: u32, zone: &str) -> Member {
    Member {
        zone: Some(zone.into()),
        ..member(id, Up)
    }
}

/// `count` members of a priority, of which the first `up` are up.
fn level(priority: u8, count: u32, up: u32) -> Vec<Member> {
    let of = |n| Member {
        priority,
        ..member(u32::from(priority) * 100 + n, if n < up { Up } else { Down })
    };
    (0..count).map(of).collect()
}

/// Percent of requests by what `by` says of an endpoint's id.
fn percent(members: &[Member], spread: &Spread, by: impl Fn(u32) -> u32) -> BTreeMap<u32, u32> {
    let mut percent = BTreeMap::new();
    let shares = Shares::of(members, spread, Instant::now());
    let all: u64 = shares.parts.iter().map(|part| part.share).sum();
    for part in shares.parts {
        let sum: u32 = part.candidates.iter().map(|c| c.weight).sum();
        for candidate in part.candidates {
            let share = part.share as f64 / all as f64 * f64::from(candidate.weight) / f64::from(sum);
            *percent.entry(by(candidate.endpoint.id)).or_insert(0.0) += share * 100.0;
        }
    }
    percent
        .into_iter()
        .map(|(key, share)| (key, f64::round(share) as u32))
        .collect()
}

#[test]
fn up_before_unknown_before_backups_and_never_down() {
    let ids = |members: &[Member]| percent(members, &PLAIN, |id| id).into_keys().collect::<Vec<_>>();
    let all = [member(0, Up), member(1, Checking), member(2, Down), backup(3, Up)];
    assert_eq!(ids(&all), [0]);
    assert_eq!(ids(&all[1..]), [1]);
    assert_eq!(ids(&all[2..]), [3]);
    assert_eq!(ids(&all[2..3]), [0u32; 0]);
}

#[test]
fn priorities_spill_over_as_envoy_s_do() {
    // Of envoyproxy.io, "Priority levels": how many of 10 are up in the first, and the percentages of both.
    for (up, first, second) in [
        (10, 100, 0),
        (8, 100, 0),
        (7, 98, 2),
        (5, 70, 30),
        (2, 28, 72),
        (0, 0, 100),
    ] {
        let mut members = level(0, 10, up);
        members.extend(level(1, 10, 10));
        let shares = percent(&members, &PLAIN, |id| id / 100);
        let of = |priority| shares.get(&priority).copied().unwrap_or(0);
        assert_eq!((of(0), of(1)), (first, second), "{up} up");
    }
    // Both are ill: what they cannot take together is shared in proportion.
    let mut members = level(0, 10, 3);
    members.extend(level(1, 10, 2));
    assert_eq!(
        percent(&members, &PLAIN, |id| id / 100),
        BTreeMap::from([(0, 60), (1, 40)])
    );
    // A start sends nothing elsewhere while endpoints are not yet known.
    let mut members = vec![member(0, Up), member(1, Checking), member(2, Checking)];
    members.extend(level(1, 3, 3));
    assert_eq!(percent(&members, &PLAIN, |id| id / 100), BTreeMap::from([(0, 100)]));
}

#[test]
fn panic_uses_all_but_only_while_one_is_up() {
    let spread = Spread {
        panic_threshold: 0.5,
        ..PLAIN
    };
    for (up, picked) in [(4, 4), (2, 2), (1, 4), (0, 0)] {
        let shares = Shares::of(&level(0, 4, up), &spread, Instant::now());
        let candidates: usize = shares.parts.iter().map(|part| part.candidates.len()).sum();
        assert_eq!((candidates, shares.panics), (picked, picked > up as usize), "{up} up");
    }
    // Another priority can take it all: nobody has to use what is down.
    let mut members = level(0, 4, 1);
    members.extend(level(1, 4, 4));
    assert!(!Shares::of(&members, &spread, Instant::now()).panics);
}

#[test]
fn requests_stay_in_their_zone_as_far_as_its_endpoints_reach() {
    let of = |sizes: &[(char, u32)], here: Option<&str>| {
        let mut members = Vec::new();
        for (zone, size) in sizes {
            let zone_id = *zone as u32 * 100;
            members.extend((0..*size).map(|n| zoned(zone_id + n, &zone.to_string())));
        }
        let spread = Spread {
            zone: here.map(Into::into),
            ..PLAIN
        };
        let shares = percent(&members, &spread, |id| id / 100);
        sizes
            .iter()
            .map(|(zone, _)| shares.get(&(*zone as u32)).copied().unwrap_or(0))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(&[('a', 4), ('b', 4)], Some("a")), [100, 0]);
    assert_eq!(of(&[('a', 8), ('b', 4)], Some("a")), [100, 0]);
    // A quarter of the endpoints for half of the requests: half of those go over.
    assert_eq!(of(&[('a', 2), ('b', 6)], Some("a")), [50, 50]);
    // What goes over goes to who has to spare.
    assert_eq!(of(&[('a', 2), ('b', 6), ('c', 4)], Some("a")), [50, 50, 0]);
    assert_eq!(of(&[('a', 2), ('b', 6)], None), [25, 75]);
    assert_eq!(of(&[('a', 2), ('b', 6)], Some("z")), [25, 75]);
}

#[test]
fn a_zone_that_is_lost_is_served_by_the_others() {
    let mut members: Vec<_> = (0..4).map(|n| zoned(n, "a")).collect();
    members.extend((100..104).map(|n| zoned(n, "b")));
    let spread = Spread {
        zone: Some("a".into()),
        ..PLAIN
    };
    members[..4].iter().for_each(|member| member.endpoint.set_health(Down));
    assert_eq!(percent(&members, &spread, |id| id / 100), BTreeMap::from([(1, 100)]));
    // One of four is back: it gets its part of the zone's requests, a quarter of what is up for half of all.
    members[0].endpoint.set_health(Up);
    assert_eq!(
        percent(&members, &spread, |id| id / 100),
        BTreeMap::from([(0, 40), (1, 60)])
    );
}

#[test]
fn a_slow_start_gives_a_part_of_the_weight() {
    let members = [member(0, Up), member(1, Up)];
    let spread = Spread {
        slow_start: Some(Duration::from_secs(10)),
        ..PLAIN
    };
    let start = Instant::now();
    members[1].endpoint.ramp.cool();
    members[1].endpoint.ramp.warm(start);
    for (seconds, weight, ramps) in [(0, 6, true), (5, 32, true), (10, 64, false)] {
        let shares = Shares::of(&members, &spread, start + Duration::from_secs(seconds));
        let weights: Vec<_> = shares.parts[0].candidates.iter().map(|c| c.weight).collect();
        assert_eq!((weights, shares.ramps), (vec![UNIT, weight], ramps));
    }
}

fn candidates(count: u32) -> Vec<Candidate> {
    let shares = Shares::of(
        &(0..count).map(|n| member(n, Up)).collect::<Vec<_>>(),
        &PLAIN,
        Instant::now(),
    );
    shares.parts.into_iter().next().unwrap().candidates
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn subsets_cover_all_evenly(count in 1u32..200, size in 1usize..50, workers in 1usize..40, host: u64) {
        let candidates = candidates(count);
        let mut seen = vec![0usize; count as usize];
        for worker in 0..workers {
            let own = subset(&candidates, size, worker, host);
            prop_assert_eq!(own.len(), size.min(count as usize));
            own.iter().for_each(|candidate| seen[candidate.endpoint.id as usize] += 1);
        }
        let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
        prop_assert!(most - least <= 1, "{seen:?}");
    }
}

#[test]
fn subsets_are_the_same_after_a_restart_and_others_on_another_host() {
    let candidates = candidates(100);
    let ids = |host| {
        subset(&candidates, 10, 3, host)
            .iter()
            .map(|c| c.endpoint.id)
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(1), ids(1));
    let common = ids(1).iter().filter(|id| ids(2).contains(id)).count();
    assert!(common < 6, "{common} of 10");
}

#[test]
fn workers_pick_from_their_subsets_alone() {
    let members: Vec<_> = (0..20).map(|n| member(n, Up)).collect();
    let shares = Shares::of(&members, &PLAIN, Instant::now());
    let subsets = Subsets {
        size: 5,
        workers: 4,
        host: 1,
    };
    let group = Group::new(shares, &Spec::Random, Some(subsets), &Memory::default());
    let mut rng = Rng::new(1);
    let mut picked = |worker| {
        let mut ids: Vec<u32> = (0..200)
            .map(|_| {
                let (rng, tried, now) = (&mut rng, &[][..], Instant::now());
                let mut cx = PickContext {
                    key: None,
                    rng,
                    tried,
                    now,
                    worker: WorkerId(worker),
                };
                group.pick(&mut cx, None).unwrap().id
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    };
    let mut all: Vec<u32> = (1..=4).flat_map(&mut picked).collect();
    assert_eq!(all.len(), 20);
    all.sort_unstable();
    assert!(all.into_iter().eq(0..20));
}

#[test]
fn a_key_stays_in_its_part_and_a_retry_may_leave_it() {
    let mut members = level(0, 10, 5);
    members.extend(level(1, 10, 10));
    let hashing = crate::balance::Hashing {
        key: crate::balance::HashKey::SourceIp,
        max_load: None,
    };
    let shares = Shares::of(&members, &PLAIN, Instant::now());
    let group = Group::new(shares, &Spec::RingHash(hashing), None, &Memory::default());
    let mut rng = Rng::new(1);
    let mut pick = |key, tried: &[u32]| {
        let (key, rng, now) = (
            Some(crate::base::rng::Rng::new(key).next_u64()),
            &mut rng,
            Instant::now(),
        );
        let mut cx = PickContext {
            key,
            rng,
            tried,
            now,
            worker: WorkerId(1),
        };
        group.pick(&mut cx, None).map(|endpoint| endpoint.id)
    };
    let first: Vec<_> = (0..400).map(|key| pick(key, &[]).unwrap()).collect();
    assert!((0..400).all(|key| pick(key, &[]) == Some(first[key as usize])));
    let spilled = first.iter().filter(|id| **id >= 100).count();
    assert!((80..160).contains(&spilled), "{spilled} of 400, 30 % were due");
    let tried: Vec<u32> = (0..5).collect();
    assert!((0..400).all(|key| pick(key, &tried).is_some_and(|id| id >= 100)));
}

//! Who of an upstream's members may be picked now, and which share of requests goes to whom: pure rules.
//!
//! Of the members that take work those that are up are used before those not yet known, those before backups, and what
//! is known to be down gets nothing, but for panic. Within that, requests are spread over priorities and zones, part by part; a
//! balancer then picks within the part a request falls to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Member;
use crate::balance::spread::Spread;
use crate::balance::{Candidate, UNIT};
use crate::base::hash;
use crate::endpoint::{Health, State};

/// A priority takes all its requests while it is up but for so much: 1.4 times what is up counts, as in Envoy, so
/// that the next priority gets nothing before two in seven are down.
const OVERPROVISIONED: f64 = 1.4;
/// Shares are counted in these.
const WHOLE: f64 = (1u64 << 32) as f64;

/// Those among whom a balancer picks, and their share of requests.
#[derive(Debug)]
pub struct Part {
    pub share: u64,
    pub candidates: Vec<Candidate>,
}

/// What there is to pick from.
#[derive(Debug, Default)]
pub struct Shares {
    /// None has a share of 0.
    pub parts: Vec<Part>,
    /// Some priority uses all its endpoints, because too few are up.
    pub panics: bool,
    /// Some endpoint has not come to its whole weight yet.
    pub ramps: bool,
}

/// What counts as an endpoint's health.
type Standing = fn(&State) -> Health;

impl Shares {
    /// Those that are ejected have their turn where there is nobody else: an ejection never takes the last one.
    pub fn of(members: &[Member], spread: &Spread, now: Instant) -> Self {
        let shares = Self::by(State::standing, members, spread, now);
        match shares.parts.is_empty() {
            true => Self::by(State::health, members, spread, now),
            false => shares,
        }
    }

    fn by(standing: Standing, members: &[Member], spread: &Spread, now: Instant) -> Self {
        for backup in [false, true] {
            let class: Vec<&Member> = members.iter().filter(|member| member.backup == backup).collect();
            for health in [Health::Up, Health::Checking] {
                if class
                    .iter()
                    .any(|member| standing(&member.endpoint) == health && member.takes_work())
                {
                    return by_priority(&class, standing, health, spread, now);
                }
            }
        }
        Self::default()
    }
}

/// The sum of configured weights.
fn weigh<'a>(members: impl Iterator<Item = &'a &'a Member>) -> f64 {
    members.map(|member| f64::from(member.weight)).sum()
}

/// As Envoy does: each priority takes what its health allows of what those before it have left.
fn by_priority(class: &[&Member], standing: Standing, usable: Health, spread: &Spread, now: Instant) -> Shares {
    let mut levels: BTreeMap<u8, Vec<&Member>> = BTreeMap::new();
    for member in class {
        levels.entry(member.priority).or_default().push(member);
    }
    // Not yet known counts as well: a start sends nothing elsewhere.
    let is = |member: &&&Member, health| standing(&member.endpoint) == health;
    let working = |level: &[&Member]| weigh(level.iter().filter(|m| is(m, usable) && m.takes_work()));
    let is_well = |member: &&&Member| !is(member, Health::Down) && member.takes_work();
    let well = |level: &[&Member]| weigh(level.iter().filter(is_well)) / weigh(level.iter());
    let able: Vec<f64> = levels
        .values()
        .map(|level| match working(level) {
            0.0 => 0.0,
            _ => (well(level) * OVERPROVISIONED).min(1.0),
        })
        .collect();
    let together = able.iter().sum::<f64>().min(1.0);
    let (mut left, mut shares) = (1.0, Shares::default());
    for (level, able) in levels.values().zip(able) {
        let share = (able / together).min(left);
        if share <= 0.0 {
            continue;
        }
        left -= share;
        // While all priorities together can take everything, nobody has to use what is down.
        let panics = together < 1.0 && well(level) < spread.panic_threshold;
        shares.panics |= panics;
        let works = |m: &&&Member| m.takes_work() && (panics || is(m, usable));
        let chosen: Vec<&Member> = level.iter().filter(works).copied().collect();
        shares.ramps |= chosen.iter().any(|member| part_of_weight(member, spread, now) < 1.0);
        for (part, members) in by_zone(&chosen, level, if panics { None } else { spread.zone.as_deref() }) {
            shares.parts.push(Part {
                share: (share * part * WHOLE) as u64,
                candidates: members.iter().map(|member| candidate(member, spread, now)).collect(),
            });
        }
    }
    shares.parts.retain(|part| part.share > 0);
    shares
}

/// Requests stay in their zone as far as its endpoints reach, if every zone's proxies have as many of them; the rest is
/// shared among the zones that have more endpoints than their own proxies need.
fn by_zone<'a>(chosen: &[&'a Member], level: &[&Member], here: Option<&str>) -> Vec<(f64, Vec<&'a Member>)> {
    let is_here = |member: &&Member| here.is_some() && member.zone.as_deref() == here;
    let zones: BTreeSet<_> = level.iter().map(|member| member.zone.as_deref()).collect();
    if zones.len() < 2 || !zones.contains(&here) || here.is_none() {
        return vec![(1.0, chosen.to_vec())];
    }
    let fair = 1.0 / zones.len() as f64;
    let all = weigh(chosen.iter());
    let own: Vec<&Member> = chosen.iter().copied().filter(is_here).collect();
    let stays = (weigh(own.iter()) / all / fair).min(1.0);
    let mut others: BTreeMap<Option<&str>, Vec<&Member>> = BTreeMap::new();
    for member in chosen.iter().copied().filter(|member| !is_here(member)) {
        others.entry(member.zone.as_deref()).or_default().push(member);
    }
    let spare = |members: &[&Member]| (weigh(members.iter()) / all - fair).max(0.0);
    let spares: f64 = others.values().map(|members| spare(members)).sum();
    let mut parts = vec![(stays, own)];
    for members in others.into_values() {
        // What leaves is what the others have to spare: where something leaves, that is more than nothing.
        parts.push(((1.0 - stays) * spare(&members) / spares.max(f64::MIN_POSITIVE), members));
    }
    parts
}

fn candidate(member: &Member, spread: &Spread, now: Instant) -> Candidate {
    let whole = f64::from(u32::from(member.endpoint.orders.weight(member.weight)) * UNIT);
    Candidate {
        endpoint: member.endpoint.clone(),
        weight: (whole * part_of_weight(member, spread, now)).round().max(1.0) as u32,
    }
}

fn part_of_weight(member: &Member, spread: &Spread, now: Instant) -> f64 {
    let slow_start = spread.slow_start;
    slow_start.map_or(1.0, |whole| member.endpoint.ramp.part(now, whole))
}

/// `size` of the candidates for one of several pickers (workers), counted from 0: the same after a restart on the same
/// host, others on another, and each candidate in as many pickers' subsets as any other, or one more.
pub fn subset(candidates: &[Candidate], size: usize, picker: usize, host: u64) -> Vec<Candidate> {
    if size >= candidates.len() {
        return candidates.to_vec();
    }
    let mut order: Vec<&Candidate> = candidates.iter().collect();
    order.sort_by_cached_key(|candidate| hash::stable_seeded(candidate.endpoint.label.as_bytes(), host));
    order
        .into_iter()
        .cycle()
        .skip(picker * size % candidates.len())
        .take(size)
        .cloned()
        .collect()
}

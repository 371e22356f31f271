//! Which endpoints of an upstream are asked, in which order, and why the others are not.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::answer::{Endpoint, Hashed, Upstream};
use super::cookies;
use crate::balance::{KeyParts, PickContext, Spec};
use crate::base::rng::Rng;
use crate::endpoint::Health;
use crate::endpoint::duty::{By, Duty};
use crate::h1::request::RequestHead;
use crate::policy::retry::Failure;
use crate::proxy::http::Downstream;
use crate::sticky::{Bound, Place, Shown};
use crate::telemetry::shard::WorkerId;
use crate::upstream::{self, Member, Order};

/// Endpoints told of one upstream: those that are asked, and as many of the others.
const MOST: usize = 20;

/// An upstream as a request meets it.
pub fn told(
    down: &Downstream,
    upstream: &upstream::Upstream,
    share: f64,
    read: &RequestHead,
    place: &KeyParts<'_>,
) -> Upstream {
    let (bound, sticky) = bound(upstream, read);
    let retry = &upstream.settings.retry;
    let attempts = match retry.methods.has(&read.method) {
        true => retry.max + 1,
        // What reached no endpoint is sent again all the same.
        false => 1 + u32::from(retry.max > 0 && retry.on.has(Failure::Connect)) * retry.max,
    };
    let rng = &mut down.worker.rng.borrow_mut();
    Upstream {
        share,
        sticky,
        attempts,
        ..picked(upstream, place, rng, down.worker.id, bound)
    }
}

/// An upstream as a connection at Layer 4 meets it.
pub fn of_connection(upstream: &upstream::Upstream, place: &KeyParts<'_>) -> Upstream {
    let retry = &upstream.settings.retry;
    let repeats = retry.on.has(Failure::Connect);
    Upstream {
        attempts: 1 + u32::from(repeats) * retry.max,
        ..picked(upstream, place, &mut Rng::from_entropy(), WorkerId(1), None)
    }
}

/// What the client's cookie says.
fn bound(upstream: &upstream::Upstream, read: &RequestHead) -> (Option<Bound>, Option<String>) {
    let Some(sticky) = &upstream.sticky else {
        return (None, None);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let shown = sticky.look(cookies(&read.fields), u32::try_from(now.as_secs()).unwrap_or(u32::MAX));
    let (bound, text) = match shown {
        Shown::Nothing => (None, "has no cookie yet and is bound to whoever answers"),
        Shown::Invalid => (None, "has a cookie that was not written here: it counts for nothing"),
        Shown::Expired => (None, "has a cookie that has expired"),
        Shown::Bound(bound) => match sticky.place(bound) {
            Place::Open => (Some(bound), "is bound to the first endpoint"),
            Place::Closed => (None, "is bound to an endpoint that takes no requests now"),
            Place::Gone => (None, "is bound to an endpoint that is gone"),
        },
    };
    (bound, Some(format!("cookie {}: the client {text}", sticky.cookie())))
}

fn picked(
    upstream: &upstream::Upstream,
    place: &KeyParts<'_>,
    rng: &mut Rng,
    worker: WorkerId,
    bound: Option<Bound>,
) -> Upstream {
    let spec = &upstream.settings.balance;
    let hashing = spec.hashing();
    let key = hashing.and_then(|hashing| hashing.key.of(place));
    let cx = &mut PickContext {
        key,
        rng,
        tried: &[],
        now: Instant::now(),
        worker,
    };
    let order = upstream.order(cx, bound, MOST);
    let mut endpoints: Vec<Endpoint> = order
        .asked
        .iter()
        .zip(1..)
        .filter_map(|(n, turn)| {
            Some(endpoint(
                &order,
                *n,
                order.members.get(*n)?,
                Some(turn),
                turn == 1 && bound.is_some(),
            ))
        })
        .collect();
    let others = order
        .members
        .iter()
        .enumerate()
        .filter(|(n, _)| !order.asked.contains(n));
    endpoints.extend(
        others
            .take(MOST)
            .map(|(n, member)| endpoint(&order, n, member, None, false)),
    );
    let hashed = hashing.map(|hashing| Hashed {
        key: hashing.key.to_string(),
        found: key.is_some(),
    });
    Upstream {
        name: upstream.name.to_string(),
        share: 1.0,
        algorithm: spec.label().to_owned(),
        auto: upstream.settings.auto,
        sticky: None,
        attempts: 1,
        order: rule(spec, &order, hashed.as_ref()),
        hashed,
        endpoints_left_out: order.members.len() - endpoints.len(),
        endpoints,
    }
}

/// What decides the order, in words.
fn rule(spec: &Spec, order: &Order, hashed: Option<&Hashed>) -> String {
    match order.asked.len() {
        0 if order.members.is_empty() => return "it has no endpoint".to_owned(),
        0 => return "none of its endpoints is available: 503".to_owned(),
        1 => return "there is no choice".to_owned(),
        _ => {}
    }
    let rule = match spec {
        Spec::RoundRobin => "each in turn; after a failure at random, by weight",
        Spec::Random => "at random, by weight",
        Spec::LeastConnections => "the fewest under way for its weight; of equals at random",
        Spec::P2c => "of two at random the one with less under way",
        Spec::PeakEwma => "of two at random the one that will probably answer first",
        Spec::RingHash(_) | Spec::Maglev(_) | Spec::Rendezvous(_) => {
            return match hashed {
                Some(Hashed { key, found: true }) => {
                    format!("by the hash of {key}: the same for every request that has it")
                }
                Some(Hashed { key, .. }) => format!("at random: the request has no {key} to hash"),
                None => String::new(),
            };
        }
    };
    match order.panics {
        true => format!("{rule}; too few are up, so that those that are down are used too"),
        false => rule.to_owned(),
    }
}

fn endpoint(order: &Order, n: usize, member: &Member, turn: Option<usize>, bound: bool) -> Endpoint {
    let state = &member.endpoint;
    let limit = state.limit.get();
    let why = match turn {
        Some(_) if bound => "the client is bound to it".to_owned(),
        Some(_) if !state.limit.allows(state.active().saturating_add(1)) => {
            "has no room now: others are asked first, or the request waits".to_owned()
        }
        Some(_) => String::new(),
        None => absent(order, n, member),
    };
    Endpoint {
        address: state.label.to_string(),
        turn,
        share: order.shares.get(n).copied().unwrap_or_default(),
        health: state.health().label().to_owned(),
        weight: state.orders.weight(member.weight),
        active: state.active(),
        limit,
        priority: member.priority,
        zone: member.zone.as_deref().map(str::to_owned),
        backup: member.backup,
        why,
    }
}

/// Why nobody is sent there.
fn absent(order: &Order, n: usize, member: &Member) -> String {
    let state = &member.endpoint;
    let who = |duty: Duty| {
        By::ALL
            .into_iter()
            .find(|by| state.orders.duty_by(*by) == duty)
            .map_or("", By::label)
    };
    match state.orders.duty() {
        Duty::Active => {}
        duty => return format!("{} by order of {}", duty.label(), who(duty)),
    }
    if state.orders.weight(member.weight) == 0 {
        return "its weight is 0".to_owned();
    }
    if let Some(ejection) = state.streak.ejection().filter(|_| state.streak.is_ejected()) {
        let left = ejection.until.duration_since(SystemTime::now()).unwrap_or_default();
        let left = Duration::from_secs(left.as_secs());
        return format!("ejected ({}) for another {left:?}", ejection.reason.label());
    }
    if state.health() == Health::Down {
        let probed = state.record.last_probe().and_then(|probed| probed.reason);
        return probed.map_or_else(|| "down".to_owned(), |reason| format!("down: {reason}"));
    }
    let used = |other: &Member| other.endpoint.id != member.endpoint.id && is_used(order, other);
    let of_those = |is: &dyn Fn(&Member) -> bool| order.members.iter().any(|other| used(other) && is(other));
    if member.backup && of_those(&|other| !other.backup) {
        return "a backup: asked while no other is up".to_owned();
    }
    if state.health() == Health::Checking && of_those(&|other| other.endpoint.health() == Health::Up) {
        return "not checked yet, and others are known to be up".to_owned();
    }
    if order.shares.get(n).is_some_and(|share| *share > 0.0) {
        return "not among those that this worker asks".to_owned();
    }
    if of_those(&|other| other.priority < member.priority) {
        return format!("of priority {}: asked when too few before it are up", member.priority);
    }
    match &member.zone {
        Some(zone) => format!("in zone {zone}: requests stay in theirs while that has room"),
        None => "in no zone: requests stay in theirs while that has room".to_owned(),
    }
}

fn is_used(order: &Order, member: &Member) -> bool {
    let mut both = order.members.iter().zip(&order.shares);
    both.any(|(other, share)| other.endpoint.id == member.endpoint.id && *share > 0.0)
}

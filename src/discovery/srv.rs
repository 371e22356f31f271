//! DNS SRV: names, ports, weights and priorities of a service's endpoints (RFC 2782).

use std::time::Duration;

use hickory_resolver::proto::rr::rdata::SRV;

use super::dns::{Failure, Resolver};
use super::feed::{self, Feed, Report};
use super::{Answer, Listed, Start, jittered, repeat};
use crate::base::rng::Rng;
use crate::net::addr::EndpointAddr;

/// The weights of endpoints go so far; those of SRV records further.
const MAX_WEIGHT: u32 = 256;
/// And so many priorities are told apart.
const MAX_PRIORITY: usize = 127;

/// Asks for `name` at once and from then on.
pub fn watch(name: &str, start: Start) -> Feed<Answer<Listed>> {
    let name = name.to_owned();
    let report = Report::new("srv", name.clone());
    let Start {
        resolver,
        longest,
        doubt,
        changed,
        known,
    } = start;
    feed::start(report, changed, known, move |teller| async move {
        let mut rng = Rng::from_entropy();
        let ask = |_| ask(&resolver, &name);
        repeat::run(&teller, longest, &doubt, ask, |wait| jittered(wait, &mut rng)).await;
    })
}

async fn ask(resolver: &Resolver, name: &str) -> Result<(Vec<Listed>, Duration), Failure> {
    let (records, ttl) = resolver.services(name).await?;
    let endpoints = endpoints(records);
    match endpoints.is_empty() {
        false => Ok((endpoints, ttl)),
        // As a target of `.` says, and one that cannot be used.
        true => Err(Failure {
            reason: "the service is not available at this name".into(),
            denied: true,
        }),
    }
}

/// Priorities become 0, 1, 2 … in their order; sorted, so that the order of an answer says nothing.
fn endpoints(records: Vec<SRV>) -> Vec<Listed> {
    let usable = records.into_iter().filter_map(|record| {
        // Port 0, the target `.` and what is no host name are no addresses.
        let addr = EndpointAddr::parse(&format!("{}:{}", record.target, record.port)).ok()?;
        matches!(addr, EndpointAddr::Name { .. }).then_some((record.priority, addr, record.weight))
    });
    let mut usable: Vec<_> = usable.collect();
    usable.sort();
    usable.dedup_by(|a, b| a.1 == b.1);
    let mut priorities: Vec<_> = usable.iter().map(|(priority, ..)| *priority).collect();
    priorities.dedup();
    let heaviest = usable.iter().map(|(.., weight)| u32::from(*weight)).max().unwrap_or(0);
    let listed = usable.into_iter().map(|(priority, addr, own)| Listed {
        weight: weight(own, heaviest),
        // More are the same: so far nobody falls.
        priority: priorities
            .iter()
            .position(|p| *p == priority)
            .map_or(0, |rank| rank.min(MAX_PRIORITY)) as u8,
        ..Listed::at(addr)
    });
    listed.collect()
}

/// As it is, or in proportion to the heaviest where that is more than an endpoint's can be.
fn weight(weight: u16, heaviest: u32) -> u16 {
    let scaled = match heaviest {
        0..=MAX_WEIGHT => u32::from(weight),
        _ => u32::from(weight) * MAX_WEIGHT / heaviest,
    };
    // 0 is a very small chance (RFC 2782), not none.
    scaled.clamp(1, MAX_WEIGHT) as u16
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::Name;

    use super::*;

    fn listed(records: &[(u16, u16, u16, &str)]) -> Vec<String> {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let records = records
            .iter()
            .map(|(priority, weight, port, target)| SRV::new(*priority, *weight, *port, name(target)));
        let listed = endpoints(records.collect());
        let text = |e: &Listed| format!("{} {} {}", e.addr, e.weight, e.priority);
        listed.iter().map(text).collect()
    }

    #[test]
    fn priorities_keep_their_order() {
        assert_eq!(
            listed(&[(20, 5, 80, "c.test."), (10, 3, 81, "b.test."), (10, 1, 80, "a.test.")]),
            ["a.test.:80 1 0", "b.test.:81 3 0", "c.test.:80 5 1"]
        );
    }

    #[test]
    fn weights_are_scaled_and_never_none() {
        assert_eq!(
            listed(&[(1, 1000, 80, "a.test."), (1, 500, 80, "b.test."), (1, 0, 80, "c.test.")]),
            ["a.test.:80 256 0", "b.test.:80 128 0", "c.test.:80 1 0"]
        );
        assert_eq!(weight(0, 0), 1);
        assert_eq!(weight(u16::MAX, u32::from(u16::MAX)), 256);
    }

    #[test]
    fn what_is_no_address_is_left_out_and_the_same_twice_counts_once() {
        assert_eq!(listed(&[(0, 0, 0, ".")]), [""; 0]);
        assert_eq!(listed(&[]), [""; 0]);
        assert_eq!(
            listed(&[
                (1, 1, 0, "a.test."),
                (1, 1, 80, "*.test."),
                (2, 1, 80, "c.test."),
                (2, 2, 80, "C.test.")
            ]),
            ["c.test.:80 1 0"]
        );
    }
}

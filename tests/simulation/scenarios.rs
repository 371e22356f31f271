//! What is simulated: every algorithm over the same workloads.

use evenkeel::balance::{HashKey, Hashing, MaxLoad, Spec};

use super::world::{Fault, Scenario, Service};

const PLAIN: Scenario = Scenario {
    name: "equal",
    endpoints: 8,
    proxies: 1,
    requests: 100_000,
    load: 0.6,
    service: Service::Even,
    fault: Fault::None,
    zipf: false,
};

/// All of them, with `requests` requests each.
pub fn all(requests: usize) -> Vec<Scenario> {
    let named = |name| Scenario {
        name,
        requests,
        ..PLAIN
    };
    vec![
        named("equal"),
        Scenario {
            endpoints: 7,
            load: 0.6 * 8.0 / 7.0,
            ..named("seven of the eight")
        },
        Scenario {
            fault: Fault::Slow,
            ..named("one 20 times slower")
        },
        Scenario {
            fault: Fault::FailsFast,
            ..named("one failing fast")
        },
        Scenario {
            service: Service::HeavyTailed,
            ..named("heavy-tailed")
        },
        Scenario {
            zipf: true,
            ..named("hot keys")
        },
        Scenario {
            fault: Fault::Rolling,
            load: 0.5,
            ..named("rolling restart")
        },
        Scenario {
            proxies: 32,
            ..named("32 proxies")
        },
        Scenario {
            proxies: 32,
            fault: Fault::Slow,
            ..named("32 proxies, one slow")
        },
        Scenario {
            endpoints: 100,
            ..named("100 endpoints")
        },
        Scenario {
            endpoints: 1000,
            ..named("1,000 endpoints")
        },
        Scenario {
            service: Service::Connections,
            load: 1.0,
            ..named("TCP connections")
        },
    ]
}

#[allow(dead_code, reason = "the tables are of all")]
pub fn scenario(name: &str, requests: usize) -> Scenario {
    let found = all(requests).into_iter().find(|scenario| scenario.name == name);
    found.unwrap_or_else(|| panic!("no scenario is called {name}"))
}

fn hashing(max_load: Option<MaxLoad>) -> Hashing {
    Hashing {
        key: HashKey::SourceIp,
        max_load,
    }
}

/// Each hashing algorithm without and with a bound.
#[allow(dead_code, reason = "the tables are of all")]
pub fn bounded() -> [(Spec, Spec); 3] {
    let (free, bound) = (hashing(None), hashing(Some(MaxLoad(125))));
    [
        (Spec::RingHash(free.clone()), Spec::RingHash(bound.clone())),
        (Spec::Maglev(free.clone()), Spec::Maglev(bound.clone())),
        (Spec::Rendezvous(free), Spec::Rendezvous(bound)),
    ]
}

#[allow(dead_code, reason = "the tests name theirs")]
pub fn algorithms() -> Vec<(&'static str, Spec)> {
    vec![
        ("round_robin", Spec::RoundRobin),
        ("random", Spec::Random),
        ("least_connections", Spec::LeastConnections),
        ("p2c", Spec::P2c),
        ("peak_ewma", Spec::PeakEwma),
        ("ring_hash", Spec::RingHash(hashing(None))),
        ("ring_hash, max_load 1.25", Spec::RingHash(hashing(Some(MaxLoad(125))))),
        ("maglev", Spec::Maglev(hashing(None))),
        ("rendezvous", Spec::Rendezvous(hashing(None))),
    ]
}

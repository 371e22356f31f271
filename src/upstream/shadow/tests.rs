//! Shadow scores in a small simulated world: virtual time, seeded chance, a real upstream.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::SocketAddr;

use super::*;
use crate::balance::spread::Spread;
use crate::balance::{HashKey, Hashing, NAMES, Spec};
use crate::base::rng::Rng;
use crate::endpoint::Active;
use crate::net::addr::{DialAddr, EndpointAddr};
use crate::policy::backoff::Backoff;
use crate::policy::budget::Share;
use crate::policy::retry::{self, Methods, On};
use crate::pool::{Dialer, Protocol};
use crate::telemetry::series::UpstreamSeries;
use crate::telemetry::shard::WorkerId;
use crate::upstream::{End, Settings};

const WORKER: WorkerId = WorkerId(1);
const ENDPOINTS: usize = 8;

fn upstream(balance: Spec, one_in: Option<u32>) -> Upstream {
    let settings = Settings {
        balance,
        auto: false,
        spread: Spread {
            slow_start: None,
            panic_threshold: 0.0,
            subset: None,
            zone: None,
        },
        workers: 1,
        host: 0,
        response_timeout: Duration::MAX,
        read_timeout: Duration::MAX,
        drain_timeout: None,
        pool_min_idle: 0,
        retry: retry::Spec {
            max: 1,
            on: On::FAILURES,
            methods: Methods::Idempotent,
            per_try_timeout: None,
            budget: Share {
                of_active: 1.0,
                at_least: 1,
                per_second: 0,
            },
            backoff: Backoff {
                base: Duration::ZERO,
                max: Duration::ZERO,
            },
            buffer: 0,
            tell: false,
        },
        repeating: Arc::default(),
        p95: None,
        limits: None,
        sticky: None,
        timed: true,
        shadow: one_in.map(|one_in| Sampling {
            one_in,
            ledger: Arc::default(),
        }),
    };
    let members = (0..ENDPOINTS as u8).map(|id| {
        let addr = SocketAddr::from(([127, 0, 0, id], 80));
        let state = State::new(u32::from(id), DialAddr::Ip(addr), EndpointAddr::Ip(addr), Health::Up, 1);
        Member {
            endpoint: Arc::new(state),
            weight: 1,
            backup: false,
            priority: 0,
            zone: None,
        }
    });
    let long = Duration::from_secs(1);
    Upstream::new(
        "u".into(),
        settings,
        Arc::new(Dialer::new(Protocol::Auto, None, long, long, 1)),
        Arc::new(UpstreamSeries::new(1)),
        Memory::default(),
        members.collect(),
    )
}

/// A minute of 500 requests a second, of which endpoint number 0 makes what `first` says: how long it takes, how it ends.
/// All others take 10 ms. Keys by chance, the first of ten half of the time.
fn run(upstream: &Upstream, first: (Duration, Outcome)) -> HashMap<&'static str, Account> {
    let (start, mut rng) = (Instant::now(), Rng::new(5));
    let mut running: BinaryHeap<Reverse<(Duration, usize)>> = BinaryHeap::new();
    let mut requests: Vec<Option<(Active, Duration, Outcome)>> = Vec::new();
    for n in 0..30_000u32 {
        let now = Duration::from_millis(2) * n;
        while running.peek().is_some_and(|Reverse((end, _))| *end <= now) {
            let Some(Reverse((end, request))) = running.pop() else {
                break;
            };
            let (active, took, outcome) = requests[request].take().unwrap();
            let series = active.endpoint().series.local(WORKER);
            series.outcome(outcome).add(1);
            series.latency.observe(took);
            let how = if outcome == Outcome::Success {
                End::Answered
            } else {
                End::Failed
            };
            upstream.report(active.endpoint(), WORKER, start + end, took, how);
        }
        if n % 500 == 0 {
            upstream.score(start + now);
        }
        let key = if rng.unit() < 0.5 { 0 } else { rng.below(10) };
        let active = upstream
            .pick(
                &mut PickContext {
                    key: Some(Rng::new(key).next_u64()),
                    rng: &mut rng,
                    tried: &[],
                    now: start + now,
                    worker: WORKER,
                },
                None,
            )
            .unwrap();
        let (took, outcome) = match active.endpoint().id {
            0 => first,
            _ => (Duration::from_millis(10), Outcome::Success),
        };
        running.push(Reverse((now + took, requests.len())));
        requests.push(Some((active, took, outcome)));
    }
    upstream.score(start + Duration::from_secs(60));
    let accounts = upstream.accounts().into_iter();
    accounts.map(|(number, account)| (NAMES[number], account)).collect()
}

const SLOW: (Duration, Outcome) = (Duration::from_millis(200), Outcome::Success);
const FAILS: (Duration, Outcome) = (Duration::from_micros(300), Outcome::ServerError);

fn mean_ms(account: &Account) -> f64 {
    account.recent.mean().unwrap().as_secs_f64() * 1e3
}

#[test]
fn one_slow_endpoint_speaks_for_peak_ewma_whoever_is_in_use() {
    for live in [Spec::RoundRobin, Spec::PeakEwma, Spec::LeastConnections] {
        let found = run(&upstream(live.clone(), Some(10)), SLOW);
        assert_eq!(found.len(), 5, "those that hash have nothing to hash");
        let (turns, peak) = (&found["round_robin"], &found["peak_ewma"]);
        // Seven of 10 ms and one of 200.
        assert!((30.0..37.0).contains(&mean_ms(turns)), "{live:?}: {turns:?}");
        assert!(mean_ms(peak) < 13.0, "{live:?}: {peak:?}");
        assert_eq!(turns.recent.quantile(0.99).map(|p99| p99.as_millis() > 100), Some(true));
        let least = &found["least_connections"];
        match live {
            // It has avoided the slow one, which then looks idle to whoever goes by load alone.
            Spec::PeakEwma => assert!(mean_ms(least) > 20.0, "{least:?}"),
            _ => assert!(mean_ms(least) < 25.0, "{live:?}: {least:?}"),
        }
        // 200 for 33.75.
        let imbalance = |account: &Account| account.imbalance.unwrap();
        assert!((5.0..6.5).contains(&imbalance(turns)), "{live:?}: {turns:?}");
        assert!(imbalance(peak) < 2.0, "{live:?}: {peak:?}");
        // All were asked as often, and one in ten is what was wanted.
        assert!(found.values().all(|account| account.picks == turns.picks));
        assert!((2_700..3_300).contains(&turns.picks), "{turns:?}");
    }
}

#[test]
fn one_that_fails_fast_is_no_bargain() {
    let found = run(&upstream(Spec::RoundRobin, Some(10)), FAILS);
    let share = |name| found[name].recent.failure_share();
    assert!((0.11..0.14).contains(&share("round_robin")), "{}", share("round_robin"));
    assert!(share("peak_ewma") < 0.01, "{}", share("peak_ewma"));
    assert!(
        share("least_connections") > 0.2,
        "it looks idle: {}",
        share("least_connections")
    );
}

#[test]
fn a_hot_key_is_an_imbalance() {
    let hashing = Hashing {
        key: HashKey::SourceIp,
        max_load: None,
    };
    let found = run(&upstream(Spec::Maglev(hashing), Some(10)), (SLOW.0 / 20, SLOW.1));
    assert_eq!(found.len(), NAMES.len());
    for name in ["ring_hash", "maglev", "rendezvous"] {
        assert!(found[name].imbalance.unwrap() > 4.0, "{name}: {:?}", found[name]);
    }
    // Who goes by load keeps away from those that the hot key keeps busy.
    for (name, most) in [("round_robin", 1.05), ("least_connections", 1.6)] {
        assert!(found[name].imbalance.unwrap() < most, "{name}: {:?}", found[name]);
    }
}

#[test]
fn nobody_is_asked_where_that_is_off_or_for_a_second_attempt() {
    let upstream = upstream(Spec::RoundRobin, None);
    assert!(run(&upstream, SLOW).is_empty());
    let upstream = self::upstream(Spec::RoundRobin, Some(1));
    let now = Instant::now();
    let pick = |tried: &[u32]| {
        upstream.pick(
            &mut PickContext {
                key: None,
                rng: &mut Rng::new(1),
                tried,
                now,
                worker: WORKER,
            },
            None,
        )
    };
    upstream.score(now);
    let counted = || -> u32 {
        let members = upstream.members();
        members.iter().flat_map(|member| member.endpoint.tally.take()).sum()
    };
    assert!(pick(&[3]).is_some());
    assert_eq!(counted(), 0);
    assert!(pick(&[]).is_some());
    assert_eq!(counted(), 5);
}

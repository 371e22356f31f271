//! The algorithms in a simulated world: what each of them is good at, and that the defaults are well chosen.
//! `cargo bench --bench simulate` prints the tables.

mod scenarios;
mod world;

use evenkeel::balance::Spec;

use self::scenarios::scenario;
use self::world::{Outcome, run, run_fewest_of_all};

fn outcome(name: &str, spec: &Spec) -> Outcome {
    run(&scenario(name, 20_000), spec, 1)
}

/// What `balance = "auto"` is for HTTP.
const HTTP: Spec = Spec::PeakEwma;
/// And for TCP.
const TCP: Spec = Spec::LeastConnections;

#[test]
fn the_same_seed_simulates_the_same() {
    let (a, b) = (outcome("equal", &HTTP), outcome("equal", &HTTP));
    assert_eq!((a.p50_ms, a.p99_ms, a.imbalance), (b.p50_ms, b.p99_ms, b.imbalance));
}

#[test]
fn one_slow_endpoint_of_eight_is_not_seen_in_the_p99() {
    for (without, with) in [
        ("seven of the eight", "one 20 times slower"),
        ("32 proxies", "32 proxies, one slow"),
    ] {
        let (without, with) = (outcome(without, &HTTP), outcome(with, &HTTP));
        assert!(with.p99_ms <= 1.5 * without.p99_ms, "{with:?} for {without:?}");
    }
    let rotation = outcome("one 20 times slower", &Spec::RoundRobin);
    assert!(rotation.p99_ms > 1000.0, "{rotation:?}");
}

#[test]
fn failing_fast_attracts_nobody() {
    let (rotation, least, http) = (
        outcome("one failing fast", &Spec::RoundRobin),
        outcome("one failing fast", &Spec::LeastConnections),
        outcome("one failing fast", &HTTP),
    );
    // In a million: an eighth by turns, more by load, since who fails fast looks idle.
    assert!((120_000.0..130_000.0).contains(&rotation.failed), "{rotation:?}");
    assert!(least.failed > 2.0 * rotation.failed, "{least:?}");
    assert!(http.failed < 5_000.0, "{http:?}");
    assert_eq!(http.errors, 0.0, "one repetition is enough");
}

#[test]
fn a_rolling_restart_and_heavy_tails_cost_the_default_no_more_than_others() {
    for name in ["equal", "heavy-tailed", "rolling restart", "100 endpoints"] {
        let (rotation, http) = (outcome(name, &Spec::RoundRobin), outcome(name, &HTTP));
        assert!(
            http.p99_ms <= 1.15 * rotation.p99_ms,
            "{name}: {http:?} for {rotation:?}"
        );
    }
}

#[test]
fn connections_are_spread_best_by_their_number() {
    let of = |spec| outcome("TCP connections", &spec).imbalance;
    let tcp = of(TCP);
    for other in [Spec::RoundRobin, Spec::Random, Spec::P2c, HTTP] {
        assert!(tcp < of(other.clone()), "{}", other.label());
    }
}

/// Of 1,000 endpoints `least_connections` looks at 32.
#[test]
fn drawing_is_hardly_worse_than_looking_at_all() {
    for (name, more) in [("100 endpoints", 1.1), ("1,000 endpoints", 1.25)] {
        let (drawn, all) = (
            outcome(name, &Spec::LeastConnections),
            run_fewest_of_all(&scenario(name, 20_000), 1),
        );
        assert!(drawn.imbalance <= more * all.imbalance, "{name}: {drawn:?} for {all:?}");
        assert!(drawn.p99_ms <= 1.05 * all.p99_ms, "{name}: {drawn:?} for {all:?}");
    }
}

#[test]
fn hot_keys_drown_nobody_where_loads_are_bounded() {
    for (free, bounded) in scenarios::bounded() {
        let (free, bounded) = (outcome("hot keys", &free), outcome("hot keys", &bounded));
        assert!(free.p99_ms > 100.0 && bounded.p99_ms < 40.0, "{free:?}, {bounded:?}");
    }
}

//! The tables of docs/load-balancing.md: `cargo bench --bench simulate`, with a scenario's name for one of them.

#[path = "../tests/simulation/scenarios.rs"]
mod scenarios;
#[path = "../tests/simulation/world.rs"]
mod world;

const REQUESTS: usize = 50_000;

fn main() {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    for scenario in scenarios::all(REQUESTS) {
        if wanted.as_deref().is_some_and(|wanted| !scenario.name.contains(wanted)) {
            continue;
        }
        println!("\n**{}**\n", scenario.name);
        println!("| algorithm | p50 ms | p99 ms | p99.9 ms | busiest / mean | failed attempts, errors per million |");
        println!("|---|---|---|---|---|---|");
        let outcomes = scenarios::algorithms()
            .into_iter()
            .map(|(name, spec)| (name, world::run(&scenario, &spec, 1)));
        // Where `least_connections` does not look at all of them.
        let all = (scenario.endpoints > 64).then(|| ("the fewest of all", world::run_fewest_of_all(&scenario, 1)));
        for (name, outcome) in outcomes.chain(all) {
            println!(
                "| {name} | {:.1} | {:.0} | {:.0} | {:.2} | {:.0}, {:.0} |",
                outcome.p50_ms, outcome.p99_ms, outcome.p999_ms, outcome.imbalance, outcome.failed, outcome.errors
            );
        }
    }
}

//! What the algorithms would do, as the status tells it.

use serde::Serialize;

use crate::balance::NAMES;
use crate::upstream::Upstream;
use crate::upstream::shadow::Account;

#[derive(Debug, Serialize)]
pub struct Shadow {
    /// One pick in so many is put to all.
    one_in: u32,
    algorithms: Vec<Algorithm>,
}

/// Picks since the upstream is there; all else of about the last quarter of an hour.
#[derive(Debug, Serialize)]
struct Algorithm {
    algorithm: &'static str,
    /// It is the one in use.
    live: bool,
    picks: u64,
    latency: Option<Latency>,
    /// The share of attempts that fail, 0 to 1.
    failures: f64,
    /// `null`: not enough is known to tell.
    imbalance: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Latency {
    mean_seconds: f64,
    p50_seconds: f64,
    p99_seconds: f64,
}

pub fn of(upstream: &Upstream) -> Option<Shadow> {
    let one_in = upstream.settings.shadow.as_ref()?.one_in;
    let live = upstream.settings.balance.number();
    let accounts = upstream.accounts().into_iter();
    Some(Shadow {
        one_in,
        algorithms: accounts
            .map(|(number, account)| Algorithm {
                algorithm: NAMES[number],
                live: number == live,
                picks: account.picks,
                latency: latency(&account),
                failures: account.recent.failure_share(),
                imbalance: account.imbalance,
            })
            .collect(),
    })
}

fn latency(account: &Account) -> Option<Latency> {
    let recent = &account.recent;
    Some(Latency {
        mean_seconds: recent.mean()?.as_secs_f64(),
        p50_seconds: recent.quantile(0.5)?.as_secs_f64(),
        p99_seconds: recent.quantile(0.99)?.as_secs_f64(),
    })
}

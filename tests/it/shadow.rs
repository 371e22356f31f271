//! Shadow scoring: what is told of the algorithms that are not in use.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Client, Origin, Proxy, eventually, one_upstream, reply};

fn config(balance: &str, sample: &str, origins: &[Origin]) -> String {
    let endpoints: Vec<_> = origins.iter().map(|origin| origin.addr).collect();
    one_upstream(&format!("balance = \"{balance}\"\n{sample}"), &endpoints)
}

fn origins() -> [Origin; 3] {
    let slow = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(60));
        reply(stream, 200, "slow")
    });
    [slow, Origin::named("a"), Origin::named("b")]
}

/// What the status says of an algorithm.
fn algorithm(proxy: &Proxy, name: &str) -> Option<Value> {
    let status = proxy.status();
    let all = status["upstreams"][0]["shadow"]["algorithms"].as_array().cloned();
    all.unwrap_or_default().into_iter().find(|a| a["algorithm"] == name)
}

fn mean(proxy: &Proxy, name: &str) -> Option<f64> {
    algorithm(proxy, name)?["latency"]["mean_seconds"].as_f64()
}

#[test]
fn one_slow_endpoint_under_rotation_speaks_for_peak_ewma() {
    let origins = origins();
    let proxy = Proxy::start(&config("round_robin", "shadow_sample = 1", &origins));
    let mut client = Client::connect(proxy.addr("web"));
    eventually("peak_ewma is told to be better", || {
        (0..30).for_each(|_| assert_eq!(client.get("/").status, 200));
        let better = mean(&proxy, "peak_ewma").zip(mean(&proxy, "round_robin"));
        better.is_some_and(|(peak, turns)| peak * 2.0 < turns)
    });
    let live = algorithm(&proxy, "round_robin").unwrap();
    assert_eq!((&live["live"], &live["failures"]), (&true.into(), &0.0.into()));
    assert_eq!(algorithm(&proxy, "peak_ewma").unwrap()["live"], false);
    assert_eq!(algorithm(&proxy, "maglev"), None, "there is nothing to hash");
    eventually("enough is known to tell the imbalance", || {
        (0..30).for_each(|_| assert_eq!(client.get("/").status, 200));
        let of = |name| algorithm(&proxy, name).and_then(|a| a["imbalance"].as_f64());
        of("round_robin")
            .zip(of("peak_ewma"))
            .is_some_and(|(turns, peak)| turns > 1.5 && peak < turns)
    });
    let metric = |name: &str, algorithm: &str| {
        proxy.metric(&format!(
            "evenkeel_shadow_{name}{{upstream=\"u\",algorithm=\"{algorithm}\"}}"
        ))
    };
    assert!(metric("picks_total", "random") >= 60.0);
    let sum = |algorithm| metric("latency_seconds_sum", algorithm);
    assert!(sum("peak_ewma") < sum("round_robin"));
    assert!(metric("imbalance", "round_robin") > 1.5);
    // What is known survives a reload, also of the algorithm.
    let before = algorithm(&proxy, "round_robin").unwrap()["picks"].as_u64();
    proxy.reload(&config("peak_ewma", "shadow_sample = 1", &origins));
    assert_eq!(algorithm(&proxy, "peak_ewma").unwrap()["live"], true);
    assert!(algorithm(&proxy, "round_robin").unwrap()["picks"].as_u64() >= before);
}

#[test]
fn nothing_is_told_where_it_is_off() {
    let origins = origins();
    let proxy = Proxy::start(&config("round_robin", "shadow_sample = 0", &origins));
    let mut client = Client::connect(proxy.addr("web"));
    (0..10).for_each(|_| assert_eq!(client.get("/").status, 200));
    assert_eq!(proxy.status()["upstreams"][0]["shadow"], Value::Null);
    assert_eq!(proxy.metric("evenkeel_shadow_picks_total"), 0.0);
    proxy.reload(&config("round_robin", "", &origins));
    assert_eq!(proxy.status()["upstreams"][0]["shadow"]["one_in"], 100);
}

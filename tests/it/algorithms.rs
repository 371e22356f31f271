//! The algorithms over real sockets: who gets the requests.

use std::net::SocketAddr;
use std::time::Duration;

use crate::harness::{Client, Origin, Proxy, eventually, reply};

fn config(balance: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [server]
        workers = 2
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [listeners.raw]
        bind = "127.0.0.1:0"
        protocol = "tcp"
        upstream = "u"
        [[routes]]
        upstream = "u"
        [upstreams.u]
        balance = {balance}
        endpoints = [{}]
        "#,
        endpoints.join(", ")
    )
}

#[test]
fn every_algorithm_reaches_every_endpoint() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let addrs = origins.each_ref().map(|origin| origin.addr);
    let names = ["round_robin", "random", "least_connections", "p2c", "peak_ewma"];
    let hashing = ["ring_hash", "maglev", "rendezvous"];
    let plain = names.map(|name| format!("\"{name}\""));
    let hashed = hashing.map(|name| format!("{{ algorithm = \"{name}\", hash = \"uri\" }}"));
    let bounded = hashing.map(|name| format!("{{ algorithm = \"{name}\", hash = \"uri\", max_load = 1.25 }}"));
    let all: Vec<String> = plain.into_iter().chain(hashed).chain(bounded).collect();
    let proxy = Proxy::start(&config(&all[0], &addrs));
    for balance in &all {
        proxy.reload(&config(balance, &addrs));
        let before = origins.each_ref().map(|origin| origin.seen().len());
        let mut client = Client::connect(proxy.addr("web"));
        for n in 0..60 {
            assert_eq!(client.get(&format!("/{n}")).status, 200, "{balance}");
        }
        let shares: Vec<_> = origins
            .iter()
            .zip(before)
            .map(|(o, before)| o.seen().len() - before)
            .collect();
        assert!(shares.iter().all(|share| *share > 0), "{balance}: {shares:?}");
        assert_eq!(Client::connect(proxy.addr("raw")).get("/").status, 200, "{balance}");
    }
}

#[test]
fn peak_ewma_avoids_the_slow_and_those_that_fail_fast() {
    let slow = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(100));
        reply(stream, 200, "slow")
    });
    let failing = Origin::start(|_, stream| reply(stream, 500, "failed"));
    let shedding = Origin::start(|_, stream| reply(stream, 429, "too much"));
    let good = ["a", "b"].map(Origin::named);
    let mut addrs = vec![slow.addr, failing.addr, shedding.addr];
    addrs.extend(good.each_ref().map(|origin| origin.addr));
    let proxy = Proxy::start(&config("\"peak_ewma\"", &addrs));
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..500 {
        client.get("/");
    }
    // A fair share would be 100 each.
    for origin in [&slow, &failing, &shedding] {
        let seen = origin.seen().len();
        assert!((1..=15).contains(&seen), "{seen} of 500");
    }
}

#[test]
fn a_hot_key_overflows_where_loads_are_bounded() {
    // Answers nothing until the connection ends.
    let origins: Vec<_> = (0..4)
        .map(|_| {
            Origin::raw(|stream, _| {
                std::io::copy(stream, &mut std::io::sink())?;
                Ok(())
            })
        })
        .collect();
    let addrs: Vec<_> = origins.iter().map(|origin| origin.addr).collect();
    for (max_load, most) in [("", 12), (", max_load = 1.25", 4)] {
        let balance = format!("{{ algorithm = \"ring_hash\", hash = \"uri\"{max_load} }}");
        let proxy = Proxy::start(&config(&balance, &addrs));
        let clients: Vec<_> = (1..=12)
            .map(|n| {
                let mut client = Client::connect(proxy.addr("web"));
                client.send("GET /hot HTTP/1.1\r\nHost: a\r\n\r\n");
                eventually("it is under way", || {
                    proxy.metric("evenkeel_endpoint_active") == f64::from(n)
                });
                client
            })
            .collect();
        let active = |addr| {
            proxy.metric(&format!(
                "evenkeel_endpoint_active{{upstream=\"u\",endpoint=\"{addr}\"}}"
            ))
        };
        let greatest = addrs.iter().map(active).fold(0.0, f64::max);
        assert_eq!(greatest, f64::from(most), "{balance}");
        drop(clients);
        eventually("all have ended", || proxy.metric("evenkeel_endpoint_active") == 0.0);
    }
}

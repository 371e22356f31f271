//! Freshness ahead of need: what is hot is renewed before it is stale, what was stored together does not end together.

use std::collections::BTreeSet;

use crate::cache::{answer, ask, config, counting};
use crate::harness::{Origin, Proxy, eventually, get};

fn told(proxy: &Proxy, path: &str) -> String {
    get(proxy.addr("web"), path).header("cache-status").to_owned()
}

fn stored(proxy: &Proxy, path: &str) {
    get(proxy.addr("web"), path);
    eventually("it is stored", || {
        // Looks without a hit.
        let seen = ask(
            proxy,
            "GET",
            path,
            "Cache-Control: only-if-cached, min-fresh=1000000\r\n",
        );
        seen.header("cache-status").contains("fwd=request")
    });
}

#[test]
fn what_is_hot_is_renewed_once_while_it_is_fresh() {
    let origin = Origin::start(|seen, stream| {
        let fields = "cache-control: max-age=1000\r\netag: \"e\"";
        match seen.header("if-none-match") {
            "" => answer(stream, 200, fields, "body"),
            _ => {
                std::io::Write::write_all(stream, format!("HTTP/1.1 304 X\r\n{fields}\r\n\r\n").as_bytes())?;
                Ok(true)
            }
        }
    });
    let proxy = Proxy::start(&config(&origin, "refresh_ahead = { last = 1.0, hits = 3 }"));
    stored(&proxy, "/hot");
    let before = origin.seen().len();
    for _ in 0..2 {
        assert!(told(&proxy, "/hot").contains("; hit; ttl=") && !told(&proxy, "/cold").contains("refresh-ahead"));
    }
    let third = told(&proxy, "/hot");
    assert!(
        third.contains("; hit; ttl=") && third.ends_with("detail=refresh-ahead"),
        "{third}"
    );
    eventually("the origin is asked", || {
        origin
            .seen()
            .iter()
            .any(|seen| seen.path() == "/hot" && seen.header("if-none-match") == "\"e\"")
    });
    assert!(origin.seen().len() > before);
}

#[test]
fn what_has_long_to_live_is_not_and_a_renewal_that_fails_takes_nothing_away() {
    let origin = counting("cache-control: max-age=1000");
    let proxy = Proxy::start(&config(&origin, "refresh_ahead = { last = 0.1, hits = 1 }"));
    get(proxy.addr("web"), "/long");
    eventually("it is stored", || told(&proxy, "/long").contains("; hit"));
    for _ in 0..20 {
        assert!(!told(&proxy, "/long").contains("refresh-ahead"));
    }
    assert_eq!(origin.seen().len(), 1);
    proxy.reload(&config(&origin, "refresh_ahead = { last = 1.0, hits = 1 }"));
    origin.kill();
    let last = told(&proxy, "/long");
    assert!(last.ends_with("detail=refresh-ahead"), "{last}");
    eventually("it was tried", || {
        proxy.metric("evenkeel_cache_fills_total{") == 2.0 && proxy.metric("evenkeel_cache_fills_active{") == 0.0
    });
    let after = get(proxy.addr("web"), "/long");
    assert!(
        after.text() == "body 1" && after.header("cache-status").contains("; hit; ttl="),
        "{after:?}"
    );
    assert!(
        !after.header("cache-status").contains("detail"),
        "it is not tried again: {after:?}"
    );
}

#[test]
fn lifetimes_that_began_together_do_not_end_together() {
    let origin = counting("cache-control: max-age=1000");
    let proxy = Proxy::start(&config(&origin, "jitter = 0.5"));
    let lifetime = |n: usize| -> u32 {
        let told = told(&proxy, &format!("/{n}"));
        let ttl = told.split("ttl=").nth(1).unwrap();
        ttl.split(';').next().unwrap().parse().unwrap()
    };
    let ends: BTreeSet<u32> = (0..50).map(lifetime).collect();
    assert!(
        ends.len() > 20 && ends.iter().all(|end| (500..=1000).contains(end)),
        "{ends:?}"
    );
}

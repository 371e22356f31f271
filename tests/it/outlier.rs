//! Endpoints that fail in live traffic: who is ejected, how soon, for how long, and what clients notice of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering::Relaxed};

use crate::harness::{Client, Origin, Proxy, eventually, one_upstream, reply};

fn config(upstream: &str, endpoints: &[SocketAddr]) -> String {
    one_upstream(&format!("balance = \"round_robin\"\n{upstream}"), endpoints)
}

/// Answers with a status that tests change.
fn moody(status: &Arc<AtomicU16>) -> Origin {
    let status = status.clone();
    Origin::start(move |_, stream| reply(stream, status.load(Relaxed), "moody"))
}

fn ejected(proxy: &Proxy, addr: SocketAddr) -> bool {
    proxy.metric(&format!(
        "evenkeel_endpoint_ejected{{upstream=\"u\",endpoint=\"{addr}\"}}"
    )) == 1.0
}

fn ejections(proxy: &Proxy, addr: SocketAddr, reason: &str) -> f64 {
    let labels = format!("upstream=\"u\",endpoint=\"{addr}\",reason=\"{reason}\"");
    proxy.metric(&format!("evenkeel_ejections_total{{{labels}}}"))
}

#[test]
fn one_that_refuses_is_ejected_without_being_asked_to() {
    let (alive, gone) = (Origin::named("alive"), Origin::nobody());
    let proxy = Proxy::start(&config("", &[alive.addr, gone]));
    let mut client = Client::connect(proxy.addr("web"));
    let mut asked = 0;
    while proxy.count("endpoint ejected") == 0 {
        assert_eq!(client.get("/").status, 200);
        asked += 1;
        assert!(asked < 1000);
    }
    assert!(ejected(&proxy, gone) && !ejected(&proxy, alive.addr));
    assert_eq!(ejections(&proxy, gone, "consecutive_gateway"), 1.0);
    // Nobody meets it any more.
    let refused =
        format!("evenkeel_endpoint_attempts_total{{upstream=\"u\",endpoint=\"{gone}\",outcome=\"connect_failed\"}}");
    let before = proxy.metric(&refused);
    assert!(before >= 5.0);
    for _ in 0..20 {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(proxy.metric(&refused), before);
    let endpoint = proxy.status()["upstreams"][0]["endpoints"][1].clone();
    assert_eq!(endpoint["health"], "up");
    assert_eq!(endpoint["ejected"]["reason"], "consecutive_gateway");
    assert_eq!(endpoint["changes"][0]["to"], "ejected");
    // A reload keeps it out; one that switches detection off lets it in.
    proxy.reload(&config("retries = 2", &[alive.addr, gone]));
    assert!(ejected(&proxy, gone));
    proxy.reload(&config("outlier = false", &[alive.addr, gone]));
    assert!(!ejected(&proxy, gone));
    eventually("it is met again", || {
        client.get("/");
        proxy.metric(&refused) > before
    });
}

#[test]
fn five_hundreds_in_a_row_eject_for_a_time_that_grows() {
    let status = Arc::new(AtomicU16::new(500));
    let (well, ill) = (Origin::named("well"), moody(&status));
    let outlier = "outlier = { base_ejection = \"300ms\" }";
    let proxy = Proxy::start(&config(outlier, &[well.addr, ill.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    let mut failed = 0;
    while proxy.count("endpoint ejected") == 0 {
        failed += usize::from(client.get("/").status == 500);
        assert!(failed < 1000);
    }
    assert!(failed >= 5);
    // It returns when its time is over, fails again, and is out for longer.
    proxy.wait_for("endpoint returned");
    while proxy.count("endpoint ejected") == 1 {
        client.get("/");
    }
    let line = proxy.wait_for("endpoint ejected");
    assert_eq!(
        (&line["reason"], &line["times"]),
        (&"consecutive_5xx".into(), &2.into())
    );
    assert_eq!(ejections(&proxy, ill.addr, "consecutive_5xx"), 2.0);
    // It gets well, and stays.
    status.store(200, Relaxed);
    eventually("it is back", || proxy.count("endpoint returned") == 2);
    let bodies: Vec<_> = (0..10).map(|_| client.get("/").text()).collect();
    assert!(bodies.contains(&"moody".to_owned()), "{bodies:?}");
    assert!(!ejected(&proxy, ill.addr));
}

#[test]
fn the_last_one_is_never_ejected() {
    let status = Arc::new(AtomicU16::new(503));
    let (a, b) = (moody(&status), moody(&status));
    let proxy = Proxy::start(&config("outlier = { max_ejected = 1.0 }", &[a.addr, b.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "moody", "somebody is always asked");
    }
    eventually("one is out", || proxy.count("endpoint ejected") == 1);
    assert!(ejected(&proxy, a.addr) != ejected(&proxy, b.addr));
    for _ in 0..100 {
        assert_eq!(client.get("/").text(), "moody");
    }
    assert_eq!(proxy.count("endpoint ejected"), 1);
}

#[test]
fn ejected_ones_are_used_when_health_checks_leave_nobody_else() {
    let ill = Origin::start(|seen, stream| reply(stream, if seen.path() == "/health" { 200 } else { 500 }, "ill"));
    let well = Arc::new(AtomicU16::new(200));
    let other = moody(&well);
    let upstream = "outlier = true\n[upstreams.u.health]\nhttp = \"/health\"\ninterval = \"100ms\"\nfall = 1";
    let proxy = Proxy::start(&config(upstream, &[ill.addr, other.addr]));
    eventually("both up", || proxy.metric("evenkeel_endpoint_up{") == 2.0);
    let mut client = Client::connect(proxy.addr("web"));
    while proxy.count("endpoint ejected") == 0 {
        client.get("/");
    }
    well.store(503, Relaxed);
    proxy.wait_for("endpoint down");
    eventually("the ejected one is asked", || client.get("/").text() == "ill");
}

#[test]
fn one_that_does_worse_than_the_others_is_ejected() {
    let n = AtomicUsize::new(0);
    // Never two failures in a row.
    let worse = Origin::start(move |_, stream| {
        let status = if n.fetch_add(1, Relaxed).is_multiple_of(2) {
            200
        } else {
            500
        };
        reply(stream, status, "worse")
    });
    let others: Vec<_> = (0..5).map(|_| Origin::named("fine")).collect();
    let mut addrs: Vec<_> = others.iter().map(|o| o.addr).collect();
    addrs.push(worse.addr);
    let outlier = "outlier = { window = \"2s\", minimum_requests = 20 }";
    let proxy = Proxy::start(&config(outlier, &addrs));
    let mut client = Client::connect(proxy.addr("web"));
    eventually("it is out", || {
        (0..20).for_each(|_| drop(client.get("/")));
        proxy.count("endpoint ejected") > 0
    });
    let line = proxy.wait_for("endpoint ejected");
    assert_eq!(line["endpoint"], worse.addr.to_string());
    assert_eq!(line["reason"], "success_rate");
    assert_eq!(proxy.count("endpoint ejected"), 1);
}

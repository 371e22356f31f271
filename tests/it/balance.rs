//! Endpoints that are slow, ill, gone, or back: who gets requests, and what clients notice of it.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::harness::{Client, Origin, Proxy, eventually, get, one_upstream, reply};

fn config(upstream: &str, endpoints: &[SocketAddr]) -> String {
    // In turn, so that it is certain who gets which request.
    let balance = match upstream.contains("balance =") {
        true => "",
        false => "balance = \"round_robin\"",
    };
    one_upstream(&format!("{balance}\n{upstream}"), endpoints)
}

/// How often each body came in `n` requests on one connection.
fn counts(client: &mut Client, n: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..n {
        let reply = client.get("/");
        assert_eq!(reply.status, 200, "{}", reply.text());
        *counts.entry(reply.text()).or_default() += 1;
    }
    counts
}

fn map(counts: &[(&str, usize)]) -> BTreeMap<String, usize> {
    counts.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

#[test]
fn round_robin_takes_turns_by_weight() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&config("", &[a.addr, b.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(counts(&mut client, 10), map(&[("a", 5), ("b", 5)]));
    let weighted = config("", &[]).replace(
        "endpoints = []",
        &format!(
            "endpoints = [{{ address = \"{}\", weight = 4 }}, \"{}\"]",
            a.addr, b.addr
        ),
    );
    proxy.reload(&weighted);
    assert_eq!(counts(&mut client, 10), map(&[("a", 8), ("b", 2)]));
}

#[test]
fn least_connections_avoids_the_busy() {
    let busy = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let free = Origin::named("free");
    let proxy = Proxy::start(&config("balance = \"least_connections\"", &[busy.addr, free.addr]));
    let active = format!("evenkeel_endpoint_active{{upstream=\"u\",endpoint=\"{}\"}}", busy.addr);
    // Between two that are free, either is picked: until it is the busy one's turn.
    let mut stuck = Vec::new();
    while proxy.metric(&active) == 0.0 {
        let mut client = Client::connect(proxy.addr("web"));
        let answered = free.seen().len();
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("an endpoint has it", || {
            free.seen().len() > answered || proxy.metric(&active) == 1.0
        });
        stuck.push(client);
    }
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(counts(&mut client, 20), map(&[("free", 20)]));
}

#[test]
fn maglev_keeps_a_key_at_its_endpoint() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let balance = "balance = { algorithm = \"maglev\", hash = \"header:x-user\" }";
    let proxy = Proxy::start(&config(balance, &origins.each_ref().map(|o| o.addr)));
    let mut client = Client::connect(proxy.addr("web"));
    let mut of = |user: usize| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-User: {user}\r\n\r\n"));
        client.reply().text()
    };
    let first: Vec<_> = (0..60).map(&mut of).collect();
    assert_eq!(first, (0..60).map(&mut of).collect::<Vec<_>>());
    assert!(["a", "b", "c"].iter().all(|name| first.iter().any(|f| f == name)));
    // Who loses its endpoint moves; hardly anybody else does.
    let two = [origins[0].addr, origins[1].addr];
    proxy.reload(&config(balance, &two));
    let after: Vec<_> = (0..60).map(&mut of).collect();
    let moved = first.iter().zip(&after).filter(|(f, a)| *f != "c" && f != a).count();
    assert!(moved <= 6, "{moved} of 60 moved without need");
}

#[test]
fn backups_wait_for_their_hour() {
    let (main, backup) = (Origin::named("main"), Origin::named("backup"));
    let text = config(
        "[upstreams.u.health]\ntcp = true\ninterval = \"250ms\"\nrise = 1\nfall = 1",
        &[],
    )
    .replace(
        "endpoints = []",
        &format!(
            "endpoints = [\"{}\", {{ address = \"{}\", backup = true }}]",
            main.addr, backup.addr
        ),
    );
    let proxy = Proxy::start(&text);
    proxy.wait_for("endpoint up");
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(counts(&mut client, 6), map(&[("main", 6)]));
    main.kill();
    proxy.wait("the endpoint down", |line| line["message"] == "endpoint down");
    assert_eq!(counts(&mut client, 6), map(&[("backup", 6)]));
}

#[test]
fn checks_take_endpoints_out_and_back_in() {
    let well = Arc::new(AtomicBool::new(true));
    let is_well = well.clone();
    let shaky = Origin::start(move |seen, stream| match seen.path() {
        "/health" if !is_well.load(Relaxed) => reply(stream, 500, "ill"),
        _ => reply(stream, 200, "shaky"),
    });
    let steady = Origin::named("steady");
    let health = "[upstreams.u.health]\nhttp = \"/health\"\ninterval = \"250ms\"\nrise = 2\nfall = 2";
    let proxy = Proxy::start(&config(health, &[shaky.addr, steady.addr]));
    let up = format!("evenkeel_endpoint_up{{upstream=\"u\",endpoint=\"{}\"}}", shaky.addr);
    eventually("both up", || proxy.metric("evenkeel_endpoint_up{upstream=\"u\"") == 2.0);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(counts(&mut client, 10).len(), 2);
    well.store(false, Relaxed);
    eventually("the endpoint is out", || proxy.metric(&up) == 0.0);
    assert_eq!(counts(&mut client, 10), map(&[("steady", 10)]));
    let line = proxy.wait_for("endpoint down");
    assert!(line["reason"].as_str().unwrap().contains("500"), "{line}");
    well.store(true, Relaxed);
    eventually("the endpoint is back", || proxy.metric(&up) == 1.0);
    assert_eq!(counts(&mut client, 10).len(), 2);
}

#[test]
fn when_all_are_down_503_comes_at_once() {
    let health = "[upstreams.u.health]\ntcp = true\ninterval = \"250ms\"\nfall = 1";
    let proxy = Proxy::start(&config(health, &[Origin::nobody(), Origin::nobody()]));
    eventually("both down", || proxy.count("endpoint down") == 2);
    let reply = get(proxy.addr("web"), "/");
    assert_eq!(
        (reply.status, reply.text().trim()),
        (503, "503 Service Unavailable: no endpoint is available")
    );
    assert_eq!(proxy.metric("evenkeel_upstream_unavailable_total"), 1.0);
    let refused = "evenkeel_requests_total{listener=\"web\",route=\"all\",upstream=\"u\",code=\"503\"}";
    eventually("it is counted", || proxy.metric(refused) == 1.0);
    assert_eq!(proxy.metric("evenkeel_endpoint_attempts_total"), 0.0);
    assert_eq!(proxy.status()["upstreams"][0]["available"], false);
}

#[test]
fn an_endpoint_that_refuses_is_passed_over() {
    let alive = Origin::named("alive");
    let nobody = Origin::nobody();
    let proxy = Proxy::start(&config("outlier = false", &[nobody, alive.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(counts(&mut client, 10), map(&[("alive", 10)]));
    // Even what must not be repeated: nothing was sent to the endpoint that refused.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.reply().text(), "alive");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    assert_eq!(client.reply().text(), "alive");
    assert!(
        alive
            .seen()
            .iter()
            .filter(|s| s.line.starts_with("POST"))
            .all(|s| s.body == b"hello")
    );
    let attempts = "evenkeel_endpoint_attempts_total{upstream=\"u\",endpoint=\"";
    let refused = format!("{attempts}{nobody}\",outcome=\"connect_failed\"}}");
    assert!(proxy.metric(&refused) >= 6.0);
    assert_eq!(proxy.metric(&refused), proxy.metric("evenkeel_retries_total"));
}

#[test]
fn requests_are_repeated_only_when_that_is_safe() {
    // Reads a request whole, then breaks the connection without an answer.
    let breaks = Origin::start(|_, _| Ok(false));
    let alive = Origin::named("alive");
    let proxy = Proxy::start(&config("outlier = false", &[breaks.addr, alive.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        for _ in 0..2 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
            let reply = client.try_reply(method == "HEAD").unwrap();
            assert_eq!(reply.status, 200, "{method}");
        }
    }
    let mut statuses: Vec<_> = (0..2)
        .map(|_| {
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
            client.reply().status
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(
        statuses,
        [200, 502],
        "one POST met the endpoint that breaks, and was not sent twice"
    );
    let posts = |o: &Origin| o.seen().iter().filter(|s| s.line.starts_with("POST")).count();
    assert_eq!((posts(&breaks), posts(&alive)), (1, 1));
}

#[test]
fn a_response_that_has_begun_is_not_asked_for_again() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let breaks = Origin::start(move |_, stream| {
        count.fetch_add(1, Relaxed);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\nhalf")?;
        Ok(false)
    });
    let proxy = Proxy::start(&config("retries = 5", &[breaks.addr, breaks.addr]).replace(
        &format!("\"{0}\", \"{0}\"", breaks.addr),
        &format!("\"{}\"", breaks.addr),
    ));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.try_reply(false);
    assert!(reply.is_err(), "half a response looked whole: {reply:?}");
    assert_eq!(asked.load(Relaxed), 1);
}

#[test]
fn a_short_response_that_breaks_off_is_asked_for_again() {
    let breaks = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        Ok(false)
    });
    let whole = Origin::named("whole");
    let proxy = Proxy::start(&config("", &[breaks.addr, whole.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(counts(&mut client, 6), map(&[("whole", 6)]));
    let seen = breaks.seen().len();
    assert!(seen >= 3, "{seen}");
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    let posted = client.try_reply(false);
    assert!(
        posted.is_err() || breaks.seen().len() == seen,
        "half a response looked whole"
    );
}

#[test]
fn connections_that_an_endpoint_closes_at_rest_cost_no_request() {
    // Answers as if it would keep the connection, and closes it.
    let closes = Origin::start(|_, stream| {
        reply(stream, 200, "ok")?;
        Ok(false)
    });
    let proxy = Proxy::start(&config("retries = 0", &[closes.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    // What may be repeated never fails, however close the race.
    for n in 0..200 {
        assert_eq!(client.get("/").status, 200, "request {n}");
    }
    // What must not be repeated is not sent to a connection that is seen to be closed.
    for n in 0..50 {
        eventually("the endpoint has closed", || closes.open() == 0);
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.reply().status, 200, "POST {n}");
    }
}

#[test]
fn an_endpoint_killed_under_load_costs_no_request() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let health = "retries = 2\n[upstreams.u.health]\ntcp = true\ninterval = \"100ms\"\nfall = 1";
    let proxy = Proxy::start(&config(health, &origins.each_ref().map(|o| o.addr)));
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, addr) = (stop.clone(), proxy.addr("web"));
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                let mut n = 0;
                while !stop.load(Relaxed) {
                    let reply = client.get("/");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    n += 1;
                }
                n
            })
        })
        .collect();
    let served = |origin: &Origin| origin.seen().len();
    eventually("load on every endpoint", || origins.iter().all(|o| served(o) > 200));
    origins[1].kill();
    proxy.wait_for("endpoint down");
    let before = served(&origins[0]);
    eventually("load on those that are left", || served(&origins[0]) > before + 200);
    stop.store(true, Relaxed);
    let total: usize = clients
        .into_iter()
        .map(|c| c.join().expect("a client saw an error"))
        .sum();
    assert!(total > 600);
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

#[test]
fn a_client_that_leaves_while_it_waits_frees_its_endpoint() {
    let slow = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let proxy = Proxy::start(&config("", &[slow.addr]));
    let mut clients: Vec<_> = (0..5).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("five under way", || proxy.metric("evenkeel_endpoint_active") == 5.0);
    drop(clients);
    eventually("none under way", || proxy.metric("evenkeel_endpoint_active") == 0.0);
    eventually("connections to the endpoint are gone", || slow.open() == 0);
    let cancelled = "evenkeel_endpoint_attempts_total{upstream=\"u\",endpoint=\"";
    let cancelled = format!("{cancelled}{}\",outcome=\"cancelled\"}}", slow.addr);
    assert_eq!(proxy.metric(&cancelled), 5.0);
    assert_eq!(
        proxy.metric("evenkeel_requests_total{listener=\"web\",route=\"all\",upstream=\"u\",code=\"499\"}"),
        5.0
    );
}

#[test]
fn names_are_resolved() {
    let origin = Origin::named("by name");
    let port = origin.addr.port();
    let proxy =
        Proxy::start(&config("", &[]).replace("endpoints = []", &format!("endpoints = [\"localhost:{port}\"]")));
    eventually("an endpoint", || get(proxy.addr("web"), "/").status == 200);
    let endpoints = proxy.status()["upstreams"][0]["endpoints"].clone();
    assert!(
        endpoints
            .as_array()
            .unwrap()
            .iter()
            .any(|e| e["address"] == format!("127.0.0.1:{port}")),
        "{endpoints}"
    );
    assert_eq!(endpoints[0]["configured"], format!("localhost:{port}"));
}

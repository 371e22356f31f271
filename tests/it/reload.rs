//! Reloads: what changes, what stays, and that no request notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::harness::{Client, Origin, Proxy, eventually, get};

fn config(listeners: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        {listeners}
        [[routes]]
        name = "all"
        upstream = "u"
        [upstreams.u]
        balance = "round_robin"
        endpoints = [{}]
        "#,
        endpoints.join(", ")
    )
}

#[test]
fn what_the_file_says_now_is_done_from_now_on() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&config("", &[a.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/").text(), "a");
    let line = proxy.reload(&config("[listeners.more]\nbind = \"127.0.0.1:0\"", &[b.addr]));
    let changes = line["changes"].as_str().unwrap();
    assert!(
        changes.contains("listener more added") && changes.contains("upstream u changed"),
        "{changes}"
    );
    assert_eq!(client.get("/").text(), "b", "the same connection, the new upstream");
    assert_eq!(get(proxy.addr("more"), "/").text(), "b");
    let more = proxy.addr("more");
    proxy.reload(&config("", &[b.addr]));
    eventually("the listener is gone", || std::net::TcpStream::connect(more).is_err());
    assert_eq!(client.get("/").text(), "b");
    assert_eq!(proxy.reload(&config("", &[b.addr]))["changes"], "nothing");
}

#[test]
fn a_rejected_file_changes_nothing_and_says_all_its_errors() {
    let a = Origin::named("a");
    let proxy = Proxy::start(&config("", &[a.addr]));
    let broken = config(
        "[listeners.bad]\nbind = \"127.0.0.1:0\"\nprotocl = \"tcp\"\n[listeners.worse]\nbind = \"nowhere\"",
        &[a.addr],
    );
    let errors = proxy.reload_rejected(&broken);
    assert!(
        errors.contains("protocl") && errors.contains("nowhere") && errors.contains("evenkeel.toml:"),
        "{errors}"
    );
    // An address somebody else has is found out before anything is changed.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let errors = proxy.reload_rejected(&config(
        &format!(
            "[listeners.taken]\nbind = \"{}\"\n[listeners.free]\nbind = \"127.0.0.1:0\"",
            taken.local_addr().unwrap()
        ),
        &[Origin::nobody()],
    ));
    assert!(errors.contains("another process listens there"), "{errors}");
    assert_eq!(get(proxy.addr("web"), "/").text(), "a");
    assert_eq!(proxy.metric("evenkeel_config_generation"), 1.0);
    assert_eq!(proxy.metric("evenkeel_config_reloads_total{result=\"rejected\"}"), 2.0);
    assert_eq!(proxy.metric("evenkeel_config_last_reload_successful"), 0.0);
    assert_eq!(proxy.metric("evenkeel_connections_total"), 1.0);
}

#[test]
fn reloads_over_http_answer_with_what_happened() {
    let a = Origin::named("a");
    let proxy = Proxy::start(&config("", &[a.addr]));
    let mut admin = Client::connect(proxy.addr("admin"));
    let mut ask = |extra: &str| {
        admin.send(format!(
            "POST /api/v1/reload HTTP/1.1\r\nHost: a\r\n{extra}Content-Length: 0\r\n\r\n"
        ));
        let reply = admin.reply();
        (reply.status, serde_json::from_slice::<Value>(&reply.body).unwrap())
    };
    proxy.write(&config("[listeners.more]\nbind = \"127.0.0.1:0\"", &[a.addr]));
    let (status, body) = ask("");
    assert_eq!((status, &body["generation"]), (200, &Value::from(2)));
    assert!(body["changes"].as_str().unwrap().contains("more"), "{body}");
    proxy.write("[listeners.web]\nbind = 7\n[listeners.two]\n");
    let (status, body) = ask("");
    let errors = body["errors"].as_array().unwrap();
    assert!(status == 422 && errors.len() >= 2, "{body}");
    let bind = errors.iter().find(|e| e["line"] == 2).expect("the error of line 2");
    assert_eq!(
        (&bind["severity"], &bind["column"]),
        (&"error".into(), &8.into()),
        "{bind}"
    );
    assert_eq!(ask("Origin: http://evil.example\r\n").0, 403);
    assert_eq!(ask("Sec-Fetch-Site: cross-site\r\n").0, 403);
    assert_eq!(proxy.metric("evenkeel_config_generation"), 2.0);
}

#[test]
fn health_and_counters_outlive_a_reload() {
    let (up, down) = (Origin::named("up"), Origin::nobody());
    let health = "[upstreams.u.health]\ntcp = true\ninterval = \"50ms\"\nfall = 1\nrise = 1\n";
    let proxy = Proxy::start(&(config("", &[up.addr, down]) + health));
    proxy.wait_for("endpoint down");
    proxy.wait_for("endpoint up");
    assert_eq!(get(proxy.addr("web"), "/").text(), "up");
    eventually("it is counted", || proxy.metric("evenkeel_requests_total") == 1.0);
    for n in 0..5 {
        proxy.reload(&(config(&format!("[listeners.n{n}]\nbind = \"127.0.0.1:0\""), &[up.addr, down]) + health));
        let endpoints = proxy.status()["upstreams"][0]["endpoints"].clone();
        assert_eq!(
            (&endpoints[0]["health"], &endpoints[1]["health"]),
            (&"up".into(), &"down".into())
        );
    }
    assert_eq!(proxy.metric("evenkeel_requests_total"), 1.0);
    assert_eq!(proxy.count("endpoint down"), 1, "nobody was found ill again");
}

#[test]
fn requests_under_way_finish_in_their_world() {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let slow = Origin::start(move |_, stream| {
        gate.lock().unwrap().recv().unwrap();
        crate::harness::reply(stream, 200, "slow")
    });
    let fast = Origin::named("fast");
    let proxy = Proxy::start(&config("[listeners.old]\nbind = \"127.0.0.1:0\"", &[slow.addr]));
    let mut client = Client::connect(proxy.addr("old"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the request is under way", || slow.seen().len() == 1);
    proxy.reload(&config("", &[fast.addr]));
    assert_eq!(get(proxy.addr("web"), "/").text(), "fast");
    release.send(()).unwrap();
    let reply = client.reply();
    assert_eq!(
        (reply.text().as_str(), reply.header("connection")),
        ("slow", "close"),
        "its listener is gone"
    );
    client.expect_end();
}

/// The proof: load on one listener, while reloads swap endpoints and make listeners appear and disappear.
/// Once a reload has been answered, the addresses it gave up are free.
#[test]
fn an_address_may_come_and_go_with_every_reload() {
    let a = Origin::named("a");
    let proxy = Proxy::start(&config("", &[a.addr]));
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut admin = Client::connect(proxy.addr("admin"));
    for turn in 0..600 {
        let there = turn % 2 == 0;
        let more = format!("[listeners.more]\nbind = \"{free}\"");
        proxy.write(&config(if there { &more } else { "" }, &[a.addr]));
        admin.send("POST /api/v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let reply = admin.reply();
        assert_eq!(reply.status, 200, "turn {turn}: {}", reply.text());
        assert_eq!(std::net::TcpStream::connect(free).is_ok(), there, "turn {turn}");
    }
}

#[test]
fn thousands_of_reloads_under_load_fail_no_request() {
    let origins = ["a", "b", "c"].map(Origin::named);
    let addrs = origins.each_ref().map(|o| o.addr);
    let proxy = Proxy::start(&config("", &addrs));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|n| {
            let (stop, done, addr) = (stop.clone(), done.clone(), proxy.addr("web"));
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                while !stop.load(Relaxed) {
                    // Half of them come back on a new connection for each request.
                    if n % 2 == 0 {
                        client = Client::connect(addr);
                    }
                    let reply = client.get("/");
                    assert_eq!(reply.status, 200, "{}", reply.text());
                    done.fetch_add(1, Relaxed);
                }
            })
        })
        .collect();
    let mut admin = Client::connect(proxy.addr("admin"));
    let begun = Instant::now();
    let mut reloads = 0;
    while reloads < 2000 && begun.elapsed() < Duration::from_secs(30) {
        let extra = (0..reloads % 3).map(|n| format!("[listeners.x{n}]\nbind = \"127.0.0.1:0\"\n"));
        proxy.write(&config(&extra.collect::<String>(), &addrs[reloads % 3..]));
        admin.send("POST /api/v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        let reply = admin.reply();
        assert_eq!(reply.status, 200, "{}", reply.text());
        reloads += 1;
    }
    stop.store(true, Relaxed);
    for client in clients {
        client.join().expect("a client saw a failure");
    }
    assert!(reloads >= 500, "only {reloads} reloads");
    assert!(done.load(Relaxed) >= reloads, "hardly any load: {}", done.load(Relaxed));
    assert_eq!(proxy.metric("evenkeel_config_generation"), (reloads + 1) as f64);
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

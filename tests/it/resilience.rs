//! Endpoints that fail, refuse, answer late or have too much to do: what is tried again, and what is not.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crate::harness::{Client, Origin, PATIENCE, Proxy, eventually, get, one_upstream, reply};

/// One worker, one route, and an upstream with these keys.
fn config(upstream: &str, endpoints: &[SocketAddr]) -> String {
    let log = r#"
        [access_log]
        format = "json"
        path = "{DIR}/access.log"
        "#;
    one_upstream(&format!("balance = \"round_robin\"\n{upstream}"), endpoints) + log
}

/// Answers everything with this status and these fields.
fn answers(status: u16, fields: &'static str, body: &'static str) -> Origin {
    Origin::start(move |_, stream| with_fields(stream, status, fields, body))
}

fn with_fields(stream: &mut TcpStream, status: u16, fields: &str, body: &str) -> std::io::Result<bool> {
    let length = body.len();
    let text = format!("HTTP/1.1 {status} X\r\n{fields}content-length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes())?;
    Ok(true)
}

/// Reads requests and says nothing.
fn silent() -> Origin {
    Origin::start(|_, stream| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(false)
    })
}

fn denied(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(&format!(
        "evenkeel_retries_denied_total{{upstream=\"u\",reason=\"{reason}\"}}"
    ))
}

fn outcomes(proxy: &Proxy, origin: &Origin, outcome: &str) -> f64 {
    let addr = origin.addr;
    proxy.metric(&format!(
        "evenkeel_endpoint_attempts_total{{upstream=\"u\",endpoint=\"{addr}\",outcome=\"{outcome}\"}}"
    ))
}

#[test]
fn a_named_status_is_asked_of_another_endpoint_and_its_connection_is_used_again() {
    let (ill, well) = (answers(503, "", "ill"), Origin::named("well"));
    let upstream = "retries = { on = [503, \"reset\"], attempts_header = true }";
    let proxy = Proxy::start(&config(upstream, &[ill.addr, well.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    let mut attempts = Vec::new();
    for _ in 0..10 {
        let reply = client.get("/");
        assert_eq!((reply.status, reply.text().as_str()), (200, "well"));
        attempts.push(reply.header("x-evenkeel-attempts").to_owned());
    }
    attempts.sort();
    assert_eq!(attempts, ["1", "1", "1", "1", "1", "2", "2", "2", "2", "2"]);
    assert_eq!(
        (ill.accepted(), well.accepted()),
        (1, 1),
        "connections were not used again"
    );
    assert_eq!(proxy.metric("evenkeel_retries_total"), 5.0);
    assert_eq!(outcomes(&proxy, &ill, "server_error"), 5.0);
    // Another 5xx than the named one is the client's to see.
    let broken = answers(500, "", "broken");
    proxy.reload(&config(upstream, &[broken.addr]));
    let reply = client.get("/");
    assert_eq!((reply.status, reply.header("x-evenkeel-attempts")), (500, "1"));
    assert_eq!(broken.seen().len(), 1);
}

#[test]
fn the_only_endpoint_is_asked_again_after_a_pause_and_its_last_answer_is_passed_on() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let shaky = Origin::start(move |_, stream| match count.fetch_add(1, Relaxed) % 3 {
        2 => reply(stream, 200, "at last"),
        _ => reply(stream, 502, "not yet"),
    });
    let upstream = |max| format!("retries = {{ max = {max}, on = \"gateway_error\", backoff = {{ base = \"5ms\" }} }}");
    let proxy = Proxy::start(&config(&upstream(2), &[shaky.addr]));
    assert_eq!(get(proxy.addr("web"), "/").text(), "at last");
    assert_eq!(asked.load(Relaxed), 3);
    proxy.reload(&config(&upstream(1), &[shaky.addr]));
    let last = get(proxy.addr("web"), "/");
    assert_eq!((last.status, last.text().as_str()), (502, "not yet"));
    assert_eq!(asked.load(Relaxed), 5);
    assert_eq!(denied(&proxy, "attempts"), 1.0);
}

#[test]
fn every_endpoint_is_asked_before_one_is_asked_twice() {
    let origins: Vec<_> = (0..4).map(|_| answers(503, "", "")).collect();
    let addrs: Vec<_> = origins.iter().map(|o| o.addr).collect();
    let upstream = "retries = { max = 3, on = [503], backoff = { base = \"1ms\" } }";
    let proxy = Proxy::start(&config(upstream, &addrs));
    for n in 1..=5 {
        assert_eq!(get(proxy.addr("web"), "/").status, 503);
        assert!(origins.iter().all(|o| o.seen().len() == n));
    }
}

#[test]
fn bodies_are_sent_again_as_far_as_they_are_kept() {
    let (ill, well) = (answers(503, "", ""), Origin::named("well"));
    let upstream = "retries = { on = [503], buffer = \"1KiB\" }";
    let proxy = Proxy::start(&config(upstream, &[ill.addr, well.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    let mut put = |size: usize| {
        let body = "x".repeat(size);
        client.send(format!(
            "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n{body}"
        ));
        client.reply().status
    };
    assert_eq!((put(1024), put(1024)), (200, 200));
    assert!(well.seen().iter().all(|seen| seen.body.len() == 1024));
    assert_eq!(denied(&proxy, "body"), 0.0);
    // One of two meets the endpoint that is ill, and cannot be sent again.
    let mut statuses = [put(1025), put(1025)];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 503]);
    assert_eq!(denied(&proxy, "body"), 1.0);
}

#[test]
fn what_an_endpoint_may_have_begun_is_not_repeated_unless_that_does_no_harm() {
    let (ill, well) = (answers(503, "", ""), Origin::named("well"));
    let proxy = Proxy::start(&config(
        "retries = { on = \"5xx\", methods = [\"GET\"] }",
        &[ill.addr, well.addr],
    ));
    let mut client = Client::connect(proxy.addr("web"));
    for (method, spared) in [("POST", 1.0), ("PUT", 2.0), ("GET", 2.0)] {
        let mut statuses: Vec<_> = (0..2)
            .map(|_| {
                client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"));
                client.reply().status
            })
            .collect();
        statuses.sort_unstable();
        assert_eq!(
            statuses,
            if method == "GET" { [200, 200] } else { [200, 503] },
            "{method}"
        );
        assert_eq!(denied(&proxy, "method"), spared, "{method}");
    }
}

#[test]
fn an_endpoint_that_names_a_time_is_not_asked_before() {
    let busy = answers(503, "retry-after: 30\r\n", "busy");
    let upstream = "retries = { max = 5, on = [503], backoff = { base = \"1ms\" } }";
    let proxy = Proxy::start(&config(upstream, &[busy.addr]));
    let reply = get(proxy.addr("web"), "/");
    assert_eq!((reply.status, reply.header("retry-after")), (503, "30"));
    assert_eq!(busy.seen().len(), 1);
    assert_eq!(denied(&proxy, "endpoint"), 1.0);
    // A second one without that wish is asked as often as it takes.
    let ill = answers(503, "", "ill");
    proxy.reload(&config(upstream, &[busy.addr, ill.addr]));
    assert_eq!(get(proxy.addr("web"), "/").text(), "ill");
    assert_eq!((busy.seen().len(), ill.seen().len()), (2, 5));
}

#[test]
fn each_attempt_has_a_time_of_its_own() {
    let (mute, well) = (silent(), Origin::named("well"));
    let upstream = "retries = { per_try_timeout = \"150ms\" }";
    let proxy = Proxy::start(&config(upstream, &[mute.addr, well.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(
        (client.get("/").text(), client.get("/").text()),
        ("well".into(), "well".into())
    );
    assert_eq!(outcomes(&proxy, &mute, "try_timeout"), 1.0);
    proxy.reload(&config(upstream, &[mute.addr]));
    assert_eq!(client.get("/").status, 504);
    assert_eq!(outcomes(&proxy, &mute, "try_timeout"), 3.0);
    let path = proxy.dir.path().join("access.log");
    eventually("a line of the access log", || {
        let log = std::fs::read_to_string(&path).unwrap_or_default();
        log.contains("try_timeout: no response head in time")
    });
}

#[test]
fn retries_of_a_failing_upstream_stay_within_their_budget() {
    const CLIENTS: usize = 20;
    // Answers no request before all have come.
    let held = Arc::new((std::sync::Mutex::new(0), std::sync::Condvar::new()));
    let gate = held.clone();
    let failing = Origin::start(move |_, _| {
        let (count, all) = &*gate;
        let mut count = count.lock().unwrap();
        *count += 1;
        all.notify_all();
        drop(all.wait_while(count, |count| *count < CLIENTS).unwrap());
        Ok(false)
    });
    let upstream = "retries = { max = 2, budget = 0.2, min_concurrency = 2, min_per_second = 0, \
                    backoff = { base = \"1s\" } }";
    let proxy = Proxy::start(&config(upstream, &[failing.addr]));
    let addr = proxy.addr("web");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| std::thread::spawn(move || get(addr, "/").status))
        .collect();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(statuses, [502; CLIENTS]);
    // Without a budget all would have been asked thrice.
    let retries = proxy.metric("evenkeel_retries_total");
    assert!((1.0..=16.0).contains(&retries), "{retries}");
    assert!(denied(&proxy, "budget") >= 10.0, "{}", denied(&proxy, "budget"));
    eventually("nothing is left", || proxy.metric("evenkeel_endpoint_active") == 0.0);
}

/// A quarter of all that is under way fails in one moment, before a byte of an answer: each gets its second attempt.
#[test]
fn no_request_fails_with_an_endpoint_that_dies() {
    const CLIENTS: usize = 100;
    let held = Arc::new((Mutex::new((0, false)), Condvar::new()));
    let endpoint = || {
        let held = held.clone();
        Origin::start(move |_, stream| {
            let (state, changed) = &*held;
            let mut state = state.lock().unwrap();
            state.0 += 1;
            drop(changed.wait_while(state, |(_, open)| !*open).unwrap());
            reply(stream, 200, "")
        })
    };
    let endpoints = [endpoint(), endpoint(), endpoint(), endpoint()];
    let proxy = Proxy::start(&config("", &endpoints.each_ref().map(|origin| origin.addr)));
    let addr = proxy.addr("web");
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| std::thread::spawn(move || get(addr, "/").status))
        .collect();
    let come = || held.0.lock().unwrap().0;
    eventually("all are under way", || come() == CLIENTS);
    endpoints[0].kill();
    // All of them at once, while nobody has been answered.
    eventually("each has a second attempt", || come() == CLIENTS + CLIENTS / 4);
    held.0.lock().unwrap().1 = true;
    held.1.notify_all();
    let statuses: Vec<_> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    assert_eq!(statuses, [200; CLIENTS]);
    assert_eq!(denied(&proxy, "budget"), 0.0);
}

#[test]
fn a_deadline_that_would_pass_during_the_pause_ends_the_trying() {
    let ill = answers(503, "", "ill");
    let upstream = "retries = { max = 10, on = [503], backoff = { base = \"1h\" } }";
    let text = config(upstream, &[ill.addr]).replace("name = \"all\"", "name = \"all\"\ntimeout = \"5s\"");
    let proxy = Proxy::start(&text);
    let reply = get(proxy.addr("web"), "/");
    assert_eq!((reply.status, reply.text().as_str()), (503, "ill"));
    assert_eq!(denied(&proxy, "deadline"), 1.0);
}

/// Accepts, and never says a word of TLS.
fn deaf() -> Origin {
    Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    })
}

#[test]
fn each_phase_that_takes_too_long_has_a_word_of_its_own() {
    let mute = silent();
    let proxy = Proxy::start(&config("retries = 0\nresponse_timeout = \"100ms\"", &[mute.addr]));
    let path = proxy.dir.path().join("access.log");
    let mut client = Client::connect(proxy.addr("web"));
    let mut case = |origin: &Origin, upstream: &str, route: &str, word: &str, status: u16| {
        let text = config(&format!("retries = 0\n{upstream}"), &[origin.addr]);
        proxy.reload(&text.replace("name = \"all\"", &format!("name = \"all\"\n{route}")));
        assert_eq!(client.get("/").status, status, "{word}");
        assert_eq!(outcomes(&proxy, origin, word), 1.0, "{word}");
        eventually("a line of the access log", || {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            log.lines().any(|line| line.contains(&format!("\"error\":\"{word}: ")))
        });
    };
    case(&mute, "response_timeout = \"100ms\"", "", "response_timeout", 504);
    case(&mute, "", "timeout = \"100ms\"", "deadline", 504);
    let deaf = deaf();
    case(
        &deaf,
        "connect_timeout = \"5s\"\ntls.handshake_timeout = \"100ms\"",
        "",
        "tls_timeout",
        504,
    );
    let plain = Origin::raw(|stream, _| stream.write_all(b"HTTP/1.1 400 X\r\n\r\n"));
    case(&plain, "tls = true", "", "tls_failed", 502);
}

#[test]
fn a_response_that_never_ends_is_cut_and_counted() {
    let endless = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
        loop {
            stream.write_all(b"1\r\nx\r\n")?;
            // Its pace, which is what this is about.
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let cut = |proxy: &Proxy, reason: &str| {
        let labels = format!("{{route=\"all\",upstream=\"u\",reason=\"{reason}\"}}");
        proxy.metric(&format!("evenkeel_responses_cut_total{labels}"))
    };
    let text = config("", &[endless.addr]).replace("name = \"all\"", "name = \"all\"\nmax_duration = \"300ms\"");
    let proxy = Proxy::start(&text);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_reply(false).is_err(), "it looked whole");
    eventually("it is counted", || cut(&proxy, "max_duration") == 1.0);
    let half = Origin::raw(|stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")?;
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    proxy.reload(&config("read_timeout = \"100ms\"", &[half.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_reply(false).is_err(), "it looked whole");
    eventually("it is counted", || cut(&proxy, "read_timeout") == 1.0);
    eventually("nothing is left", || proxy.metric("evenkeel_endpoint_active") == 0.0);
}

/// Answers once the test lets it, in the order of asking; remembers how many were with it at once.
struct Held {
    origin: Origin,
    state: Arc<(Mutex<Holding>, Condvar)>,
}

#[derive(Default)]
struct Holding {
    now: usize,
    most: usize,
    let_go: usize,
}

impl Held {
    fn start() -> Self {
        let state = Arc::<(Mutex<Holding>, Condvar)>::default();
        let shared = state.clone();
        let origin = Origin::start(move |seen, stream| {
            let (holding, changed) = &*shared;
            let mut held = holding.lock().unwrap();
            held.now += 1;
            held.most = held.most.max(held.now);
            let (mut held, late) = changed
                .wait_timeout_while(held, PATIENCE, |held| held.let_go == 0)
                .unwrap();
            assert!(!late.timed_out(), "nobody let it go");
            held.let_go -= 1;
            held.now -= 1;
            drop(held);
            reply(stream, 200, seen.path())
        });
        Self { origin, state }
    }

    /// Lets so many answers go.
    fn let_go(&self, n: usize) {
        self.state.0.lock().unwrap().let_go += n;
        self.state.1.notify_all();
    }

    fn now(&self) -> usize {
        self.state.0.lock().unwrap().now
    }

    fn most(&self) -> usize {
        self.state.0.lock().unwrap().most
    }
}

fn ask(addr: SocketAddr, path: &str) -> Client {
    let mut client = Client::connect(addr);
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client
}

fn waiting(proxy: &Proxy) -> f64 {
    proxy.metric("evenkeel_upstream_waiting{upstream=\"u\"}")
}

fn shed(proxy: &Proxy, reason: &str) -> f64 {
    proxy.metric(&format!(
        "evenkeel_upstream_shed_total{{upstream=\"u\",reason=\"{reason}\"}}"
    ))
}

#[test]
fn what_is_over_the_limit_waits_and_all_are_served_by_all_workers() {
    let (a, b) = (Held::start(), Held::start());
    let text = config(
        "max_active_per_endpoint = 2\nqueue.timeout = \"15s\"",
        &[a.origin.addr, b.origin.addr],
    );
    let proxy = Proxy::start(&text.replace("workers = 1", "workers = 3"));
    let mut clients: Vec<_> = (0..30).map(|_| ask(proxy.addr("web"), "/")).collect();
    eventually("both are full", || a.now() + b.now() == 4 && waiting(&proxy) == 26.0);
    let status = proxy.status();
    assert_eq!(status["upstreams"][0]["queue"]["waiting"], 26, "{status:#}");
    assert_eq!(status["upstreams"][0]["endpoints"][0]["limit"], 2);
    a.let_go(30);
    b.let_go(30);
    for client in &mut clients {
        assert_eq!(client.reply().status, 200);
    }
    assert_eq!((a.most(), b.most()), (2, 2));
    assert_eq!(waiting(&proxy), 0.0);
    eventually("nothing is left", || proxy.metric("evenkeel_endpoint_active") == 0.0);
}

#[test]
fn who_cannot_even_wait_is_told_to_come_back_at_once() {
    let held = Held::start();
    let limits = |timeout| format!("max_active = 1\nqueue = {{ size = 1, timeout = \"{timeout}\" }}");
    let proxy = Proxy::start(&config(&limits("15s"), &[held.origin.addr]));
    let mut first = ask(proxy.addr("web"), "/first");
    eventually("the first is there", || held.now() == 1);
    let mut second = ask(proxy.addr("web"), "/second");
    eventually("the second waits", || waiting(&proxy) == 1.0);
    let refused = get(proxy.addr("web"), "/third");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    assert_eq!(shed(&proxy, "queue_full"), 1.0);
    held.let_go(2);
    assert_eq!(
        (first.reply().text(), second.reply().text()),
        ("/first".into(), "/second".into())
    );
    // Who waits longer than may be is told, too.
    proxy.reload(&config(&limits("100ms"), &[held.origin.addr]));
    let mut first = ask(proxy.addr("web"), "/first");
    eventually("the first is there", || held.now() == 1);
    let late = get(proxy.addr("web"), "/late");
    assert_eq!((late.status, late.header("retry-after")), (503, "1"));
    assert_eq!(shed(&proxy, "queue_timeout"), 1.0);
    // Who leaves makes room in the line.
    proxy.reload(&config(&limits("15s"), &[held.origin.addr]));
    let leaves = ask(proxy.addr("web"), "/leaves");
    eventually("it waits", || waiting(&proxy) == 1.0);
    drop(leaves);
    eventually("it is gone", || waiting(&proxy) == 0.0);
    held.let_go(1);
    assert_eq!(first.reply().text(), "/first");
    assert_eq!(held.origin.seen().len(), 3, "what was sent away was never sent on");
}

#[test]
fn the_more_important_go_first_and_the_less_important_make_room_for_them() {
    let held = Held::start();
    let routes = |name: &str| {
        format!("[[routes]]\nname = \"{name}\"\npath = \"/{name}\"\nupstream = \"u\"\nimportance = \"{name}\"\n")
    };
    let limits = "max_active = 1\nqueue = { size = 3, timeout = \"15s\" }";
    let text = format!(
        "{}\n{}\n{}",
        config(limits, &[held.origin.addr]),
        routes("high"),
        routes("low")
    );
    let proxy = Proxy::start(&text);
    let mut first = ask(proxy.addr("web"), "/first");
    eventually("the first is there", || held.now() == 1);
    let mut line = Vec::new();
    for (n, path) in ["/low/1", "/low/2", "/normal"].into_iter().enumerate() {
        line.push(ask(proxy.addr("web"), path));
        eventually("it waits", || waiting(&proxy) == (n + 1) as f64);
    }
    let mut high = ask(proxy.addr("web"), "/high");
    let displaced = line.remove(1).reply();
    assert_eq!((displaced.status, displaced.header("retry-after")), (503, "1"));
    assert_eq!(shed(&proxy, "displaced"), 1.0);
    held.let_go(4);
    assert_eq!(first.reply().text(), "/first");
    assert_eq!(high.reply().text(), "/high");
    line.iter_mut()
        .for_each(|client| assert_eq!(client.reply().status, 200));
    let order: Vec<_> = held.origin.seen().iter().map(|seen| seen.path().to_owned()).collect();
    assert_eq!(order, ["/first", "/high", "/normal", "/low/1"]);
}

#[test]
fn a_higher_limit_lets_in_who_waits() {
    let held = Held::start();
    let limit = |n| format!("max_active_per_endpoint = {n}\nqueue.timeout = \"15s\"");
    let proxy = Proxy::start(&config(&limit(1), &[held.origin.addr]));
    let mut clients: Vec<_> = (0..3).map(|_| ask(proxy.addr("web"), "/")).collect();
    eventually("two wait", || waiting(&proxy) == 2.0);
    proxy.reload(&config(&limit(2), &[held.origin.addr]));
    eventually("one waits", || held.now() == 2 && waiting(&proxy) == 1.0);
    proxy.reload(&config("", &[held.origin.addr]));
    eventually("none waits", || held.now() == 3);
    held.let_go(3);
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.reply().status, 200));
}

#[test]
fn an_adaptive_limit_finds_out_what_an_endpoint_can_do() {
    // Four at a time, 5 ms each; everybody else waits there.
    let places = Arc::new((Mutex::new(4), Condvar::new()));
    let origin = Origin::start(move |_, stream| {
        let (free, changed) = &*places;
        *changed.wait_while(free.lock().unwrap(), |free| *free == 0).unwrap() -= 1;
        std::thread::sleep(Duration::from_millis(5));
        *free.lock().unwrap() += 1;
        changed.notify_one();
        reply(stream, 200, "done")
    });
    let upstream = "adaptive_limit = { initial = 100 }\nqueue = { size = 100, timeout = \"15s\" }";
    let proxy = Proxy::start(&config(upstream, &[origin.addr]));
    assert_eq!(proxy.metric("evenkeel_endpoint_limit{upstream=\"u\""), 100.0);
    let stop = Arc::new(AtomicBool::new(false));
    // Few first, so that it is known how fast it is with room.
    let load = |n: usize| -> Vec<_> {
        let client = |_| {
            let (stop, addr) = (stop.clone(), proxy.addr("web"));
            std::thread::spawn(move || {
                let mut client = Client::connect(addr);
                while !stop.load(Relaxed) {
                    assert_eq!(client.get("/").status, 200);
                }
            })
        };
        (0..n).map(client).collect()
    };
    let mut clients = load(2);
    eventually("some were served", || origin.seen().len() > 100);
    clients.extend(load(40));
    eventually("the limit is less than what is asked", || {
        proxy.metric("evenkeel_endpoint_limit{upstream=\"u\"") < 30.0 && waiting(&proxy) > 0.0
    });
    stop.store(true, Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn connections_of_layer_4_wait_for_room_as_well() {
    let echo = Origin::raw(|stream, _| {
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, stream).map(|_| ())
    });
    let text = format!(
        "[admin]\nbind = \"127.0.0.1:0\"\n[listeners.l4]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nupstream = \"u\"\n\
         [upstreams.u]\nendpoints = [\"{}\"]\nmax_active = 1\nqueue = {{ size = 1, timeout = \"15s\" }}",
        echo.addr
    );
    let proxy = Proxy::start(&text);
    let mut first = Client::connect(proxy.addr("l4"));
    first.send("one");
    assert_eq!(first.take(3).unwrap(), b"one");
    let mut second = Client::connect(proxy.addr("l4"));
    second.send("two");
    eventually("the second waits", || waiting(&proxy) == 1.0);
    let mut third = Client::connect(proxy.addr("l4"));
    assert!(third.rest().is_ok_and(|bytes| bytes.is_empty()) || third.rest().is_err());
    assert_eq!(shed(&proxy, "queue_full"), 1.0);
    drop(first);
    assert_eq!(second.take(3).unwrap(), b"two");
}

fn hedges(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!("evenkeel_hedges_total{{upstream=\"u\",result=\"{result}\"}}"))
}

#[test]
fn a_second_attempt_beside_one_that_takes_long_wins_and_the_other_is_given_up() {
    let (mute, well) = (silent(), Origin::named("well"));
    let hedged = |upstream: &str, endpoints: &[SocketAddr]| {
        config(upstream, endpoints).replace("name = \"all\"", "name = \"all\"\nhedge = \"50ms\"")
    };
    let proxy = Proxy::start(&hedged("retries.attempts_header = true", &[mute.addr, well.addr]));
    let mut client = Client::connect(proxy.addr("web"));
    let mut attempts = Vec::new();
    for _ in 0..6 {
        let reply = client.get("/");
        assert_eq!(reply.text(), "well");
        attempts.push(reply.header("x-evenkeel-attempts").to_owned());
    }
    attempts.sort();
    assert_eq!(attempts, ["1", "1", "1", "2", "2", "2"]);
    assert_eq!((hedges(&proxy, "won"), hedges(&proxy, "lost")), (3.0, 0.0));
    assert_eq!(outcomes(&proxy, &mute, "hedge_lost"), 3.0);
    eventually("what was given up is closed", || mute.open() == 0);
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
    // What may not be repeated has one attempt, however long it takes.
    let text = hedged("response_timeout = \"300ms\"", &[mute.addr, well.addr]);
    proxy.reload(&text);
    let mut statuses = [0, 1].map(|_| {
        client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        client.reply().status
    });
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 504]);
    // A body that has come whole is sent again.
    for _ in 0..2 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(client.reply().text(), "well");
    }
    assert_eq!(well.last().body, b"hi");
    assert_eq!(hedges(&proxy, "won"), 4.0);
    // Nobody else is there to be asked.
    proxy.reload(&hedged("response_timeout = \"300ms\"\nretries = 0", &[mute.addr]));
    assert_eq!(client.get("/").status, 504);
    assert_eq!(hedges(&proxy, "denied"), 1.0);
}

#[test]
fn when_the_first_answers_after_all_or_the_second_fails_the_first_is_taken() {
    // Slow but well, beside one that fails at once.
    let slow = Origin::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(200));
        reply(stream, 200, "slow")
    });
    let fails = answers(503, "", "fails");
    let text = config("retries.on = [503]", &[slow.addr, fails.addr]);
    let proxy = Proxy::start(&text.replace("name = \"all\"", "name = \"all\"\nhedge = \"50ms\""));
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..4 {
        assert_eq!(client.get("/").text(), "slow");
    }
    assert!(hedges(&proxy, "lost") >= 2.0, "{}", hedges(&proxy, "lost"));
    assert_eq!(hedges(&proxy, "won"), 0.0);
}

#[test]
fn the_p95_is_learned_and_hedged_after() {
    let rare = Arc::new(AtomicUsize::new(0));
    let count = rare.clone();
    let sometimes_slow = Origin::start(move |_, stream| {
        // One answer of a hundred never comes.
        if count.fetch_add(1, Relaxed) % 100 == 99 {
            std::io::copy(stream, &mut std::io::sink())?;
            return Ok(false);
        }
        reply(stream, 200, "ok")
    });
    let well = Origin::named("ok");
    let text = config("", &[sometimes_slow.addr, well.addr]);
    let proxy = Proxy::start(&text.replace("name = \"all\"", "name = \"all\"\nhedge = \"p95\""));
    let mut client = Client::connect(proxy.addr("web"));
    for n in 0..400 {
        assert_eq!(client.get("/").status, 200, "request {n}");
    }
    // Others may have been hedged on a busy machine; of these nobody waited for the minute that an answer may take.
    assert!(hedges(&proxy, "won") >= 1.0);
    assert_eq!(outcomes(&proxy, &sometimes_slow, "response_timeout"), 0.0);
}

//! Endpoints that fail, refuse, answer late or have too much to do: what is tried again, and what is not.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::harness::{Client, Origin, Proxy, eventually, get, reply};

/// One worker, one route, and an upstream with these keys.
fn config(upstream: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [server]
        workers = 1
        [admin]
        bind = "127.0.0.1:0"
        [access_log]
        format = "json"
        path = "{{DIR}}/access.log"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        name = "all"
        upstream = "u"
        [upstreams.u]
        endpoints = [{}]
        {upstream}
        "#,
        endpoints.join(", ")
    )
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
    let upstream = "retries = { max = 2, budget = 0.2, min_concurrency = 2, backoff = { base = \"1s\" } }";
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
            std::thread::sleep(std::time::Duration::from_millis(20));
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

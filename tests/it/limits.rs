//! Clients and endpoints that are slow, greedy or gone: what each may cost, and for how long.

use std::io::Write;
use std::time::Duration;

use crate::harness::{Client, Origin, Proxy, eventually, reply};

fn config(listener: &str, upstream: &str, origin: &Origin) -> String {
    format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        {listener}
        [[routes]]
        name = "all"
        upstream = "u"
        [upstreams.u]
        endpoints = ["{}"]
        {upstream}
        "#,
        origin.addr
    )
}

fn nobody_is_left(proxy: &Proxy) {
    eventually("no connection is left", || {
        proxy.metric("evenkeel_connections_active{listener=\"web\"}") == 0.0
            && proxy.metric("evenkeel_endpoint_active") == 0.0
    });
}

#[test]
fn heads_and_bodies_that_do_not_come_are_not_waited_for() {
    let origin = Origin::named("ok");
    let timeouts = "header_timeout = \"150ms\"\nbody_timeout = \"150ms\"\nidle_timeout = \"150ms\"";
    let proxy = Proxy::start(&config(timeouts, "", &origin));
    // Nothing at all: closed without a word.
    Client::connect(proxy.addr("web")).expect_end();
    // Half a head.
    let mut half = Client::connect(proxy.addr("web"));
    half.send("GET / HTTP/1.1\r\nHost: a\r\nX: ");
    assert_eq!(half.reply().status, 408);
    half.expect_end();
    // Half a body.
    let mut half = Client::connect(proxy.addr("web"));
    half.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let reply = half.reply();
    assert_eq!((reply.status, reply.header("connection")), (408, "close"));
    // No second request.
    let mut idle = Client::connect(proxy.addr("web"));
    assert_eq!(idle.get("/").status, 200);
    idle.expect_end();
    nobody_is_left(&proxy);
}

#[test]
fn a_body_sent_byte_by_byte_runs_out_of_time_as_a_whole() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&config("body_timeout = \"300ms\"", "", &origin));
    let mut slow = Client::connect(proxy.addr("web"));
    slow.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    for sent in 0.. {
        assert!(sent < 500, "never given up");
        if slow.try_send("x").is_err() || proxy.metric("evenkeel_requests_total{listener=\"web\"") > 0.0 {
            break;
        }
        // The client's pace, which is what this is about.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(slow.try_reply(false).map_or(true, |r| r.status == 408));
    nobody_is_left(&proxy);
}

#[test]
fn a_head_sent_byte_by_byte_runs_out_of_time_as_a_whole() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&config("header_timeout = \"300ms\"", "", &origin));
    let mut slow = Client::connect(proxy.addr("web"));
    for byte in "GET / HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy".bytes() {
        if slow.try_send([byte]).is_err() {
            break;
        }
        // The client's pace, which is what this is about.
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(slow.try_reply(false).map_or(true, |r| r.status == 408));
    assert_eq!(origin.seen().len(), 0);
    nobody_is_left(&proxy);
}

#[test]
fn a_client_that_reads_nothing_costs_a_bounded_buffer_and_is_let_go() {
    let endless = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\n")?;
        let chunk = vec![b'x'; 64 << 10];
        loop {
            stream.write_all(&chunk)?;
        }
    });
    let proxy = Proxy::start(&config("write_timeout = \"500ms\"", "", &endless));
    let before = proxy.memory_kib();
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    eventually("all under way", || proxy.metric("evenkeel_endpoint_active") == 20.0);
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 20 * 1024, "{grown} KiB for 20 clients that read nothing");
    nobody_is_left(&proxy);
    eventually("connections to the endpoint are closed", || endless.open() == 0);
    drop(clients);
}

#[test]
fn bodies_of_any_size_pass_in_little_memory() {
    const SIZE: usize = 256 << 20;
    let origin = Origin::raw(|stream, _| {
        use std::io::{BufReader, Read};
        let mut reader = BufReader::new(stream.try_clone()?);
        let head = crate::harness::origin::read_head(&mut reader)?.unwrap();
        let length = head.header("content-length").parse::<u64>().unwrap();
        let got = std::io::copy(&mut reader.take(length), &mut std::io::sink())?;
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {got}\r\n\r\n")?;
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..SIZE >> 20 {
            stream.write_all(&chunk)?;
        }
        Ok(())
    });
    let proxy = Proxy::start(&config("", "", &origin));
    let mut client = Client::connect(proxy.addr("web"));
    let before = proxy.memory_kib();
    client.send(format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"));
    let chunk = vec![b'x'; 1 << 20];
    for _ in 0..SIZE >> 20 {
        client.send(&chunk);
    }
    let head = client.head();
    assert_eq!(head.header("content-length"), SIZE.to_string());
    for _ in 0..SIZE >> 20 {
        assert_eq!(client.take(1 << 20).unwrap().len(), 1 << 20);
    }
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for a body of 256 MiB each way");
}

#[test]
fn endpoints_that_say_nothing_are_not_waited_for() {
    let silent = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let upstream = "response_timeout = \"150ms\"\nretries = 0";
    let proxy = Proxy::start(&config("", upstream, &silent));
    assert_eq!(crate::harness::get(proxy.addr("web"), "/").status, 504);
    nobody_is_left(&proxy);
    // Half a body, and then nothing: the client must not take it for whole.
    let half = Origin::raw(|stream, _| {
        let mut reader = std::io::BufReader::new(stream.try_clone()?);
        crate::harness::origin::read_head(&mut reader)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")?;
        std::io::copy(&mut reader, &mut std::io::sink())?;
        Ok(())
    });
    let proxy = Proxy::start(&config("", "read_timeout = \"150ms\"", &half));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_reply(false).is_err());
    nobody_is_left(&proxy);
}

#[test]
fn connections_are_limited_by_listener_and_by_source() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&config(
        "max_connections = 3\nmax_connections_per_source = 2",
        "",
        &origin,
    ));
    let mut kept: Vec<_> = (0..2).map(|_| Client::connect(proxy.addr("web"))).collect();
    kept.iter_mut().for_each(|c| assert_eq!(c.get("/").status, 200));
    let mut third = Client::connect(proxy.addr("web"));
    assert!(third.rest().is_ok_and(|bytes| bytes.is_empty()) || third.rest().is_err());
    assert_eq!(proxy.metric("evenkeel_connections_refused_total"), 1.0);
    kept.pop();
    eventually("a place is free", || {
        let mut client = Client::connect(proxy.addr("web"));
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok() && client.try_reply(false).is_ok()
    });
}

/// With one worker and few descriptors.
fn starved(upstream: &str, origin: &Origin) -> Proxy {
    Proxy::start_with(
        tempfile::tempdir().unwrap(),
        &config("", upstream, origin).replace("[admin]", "[server]\nworkers = 1\n[admin]"),
        |command| {
            use std::os::unix::process::CommandExt;
            let limit = rustix::process::Rlimit {
                current: Some(80),
                maximum: Some(80),
            };
            // SAFETY: setrlimit is a plain system call, allowed between fork and exec.
            unsafe {
                command.pre_exec(move || Ok(rustix::process::setrlimit(rustix::process::Resource::Nofile, limit)?));
            }
        },
    )
}

#[test]
fn running_out_of_descriptors_pauses_and_recovers() {
    let origin = Origin::named("ok");
    let proxy = starved("health = { tcp = true, interval = \"100ms\", fall = 2 }", &origin);
    let mut early = Client::connect(proxy.addr("web"));
    assert_eq!(early.get("/").status, 200);
    let greedy: Vec<_> = (0..100).map(|_| Client::connect(proxy.addr("web"))).collect();
    let line = proxy.wait("a warning", |line| {
        line["level"] == "WARN" && line.to_string().contains("accept")
    });
    assert!(
        line.to_string().contains("descriptors") || line.to_string().contains("open files"),
        "{line}"
    );
    // It does not spin: a pause of 100 ms between tries leaves the processor alone.
    let cpu = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", proxy.pid())).unwrap();
        let fields: Vec<u64> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .filter_map(|f| f.parse().ok())
            .collect();
        // utime and stime in ticks of 10 ms; the state before them is no number.
        fields[10] + fields[11]
    };
    let before = cpu();
    std::thread::sleep(Duration::from_secs(1));
    assert!(cpu() - before < 50, "it spins");
    // Who is in is served on: that nobody can be probed says nothing about the endpoint.
    assert_eq!(early.get("/").status, 200);
    assert_eq!(proxy.count("endpoint down"), 0);
    drop(greedy);
    eventually("it accepts again", || {
        let mut client = Client::connect(proxy.addr("web"));
        client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok()
            && client.try_reply(false).is_ok_and(|r| r.status == 200)
    });
    assert!(proxy.metric("evenkeel_accept_errors_total") >= 1.0);
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/large" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")?;
            stream.write_all(&vec![b'x'; 10_000_000])?;
            Ok(true)
        }
        _ => reply(stream, 200, "ok"),
    });
    let proxy = Proxy::start(&config("", "", &origin));
    let request = "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n01234567890123456789";
    for cut in 0..=request.len() {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(&request[..cut]);
        if cut == request.len() {
            client.take(5000).unwrap();
        }
    }
    nobody_is_left(&proxy);
    assert_eq!(crate::harness::get(proxy.addr("web"), "/").text(), "ok");
}

#[test]
fn an_endpoint_is_not_blamed_for_descriptors_that_are_missing_here() {
    let origin = Origin::named("ok");
    let proxy = starved("pool_max_idle = 0", &origin);
    let mut early = Client::connect(proxy.addr("web"));
    assert_eq!(early.get("/").status, 200);
    let greedy: Vec<_> = (0..100).map(|_| Client::connect(proxy.addr("web"))).collect();
    proxy.wait("a warning", |line| {
        line["level"] == "WARN" && line.to_string().contains("accept")
    });
    assert_eq!(early.get("/").status, 503);
    drop(greedy);
    eventually("a connection to the endpoint can be made again", || {
        early.get("/").status == 200
    });
    let attempts = |outcome: &str| {
        let addr = origin.addr;
        proxy.metric(&format!(
            "evenkeel_endpoint_attempts_total{{upstream=\"u\",endpoint=\"{addr}\",outcome=\"{outcome}\"}}"
        ))
    };
    assert!(attempts("exhausted") >= 1.0);
    assert_eq!(attempts("connect_failed"), 0.0);
}

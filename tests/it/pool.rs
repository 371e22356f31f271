//! Connections to endpoints at rest: closed by the endpoint at the worst moment, announced, learned, kept.

use std::io::{self, BufReader, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Client, Origin, Proxy, eventually, one_upstream, origin, reply};

fn config(origin: &Origin, upstream: &str) -> String {
    one_upstream(upstream, &[origin.addr])
}

/// The next of a fixed sequence of numbers below `n`.
fn chance(state: &AtomicU64, n: u64) -> u64 {
    let x = state.fetch_add(0x9E37_79B9_7F4A_7C15, Relaxed);
    let x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (x ^ (x >> 31)) % n
}

/// Closes each connection after a random rest of up to `most` milliseconds, however soon the next request comes.
fn impatient(most: u64) -> (Origin, Arc<AtomicUsize>) {
    let closed = Arc::new(AtomicUsize::new(0));
    let (counter, state) = (closed.clone(), AtomicU64::new(1));
    let origin = Origin::raw(move |stream, _| {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = origin::read(&mut reader)? {
            reply(stream, 200, &format!("{} {}", request.line, request.body.len()))?;
            stream.set_read_timeout(Some(Duration::from_millis(1 + chance(&state, most))))?;
            match stream.peek(&mut [0]) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    counter.fetch_add(1, Relaxed);
                    return Ok(());
                }
                other => other?,
            };
            stream.set_read_timeout(None)?;
        }
        Ok(())
    });
    (origin, closed)
}

#[test]
fn an_endpoint_that_closes_at_any_time_fails_no_request() {
    let (origin, closed) = impatient(20);
    // No retries: what is sent again is what was never an attempt.
    let proxy = Proxy::start(&config(&origin, "retries = 0"));
    let web = proxy.addr("web");
    let state = AtomicU64::new(2);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Client::connect(web);
                for _ in 0..150 {
                    let (head, body) = match chance(&state, 4) {
                        0 => ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "hello"),
                        1 => ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n", "hello"),
                        _ => ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", ""),
                    };
                    client.send(format!("{head}{body}"));
                    let reply = client.reply();
                    assert_eq!(reply.status, 200, "{head:?}");
                    std::thread::sleep(Duration::from_millis(chance(&state, 20)));
                }
            });
        }
    });
    let closed = closed.load(Relaxed);
    assert!(
        closed > 100,
        "only {closed} connections were closed: nothing was tested"
    );
}

/// Reads one request and says so before it closes without an answer, on every connection but the first request of each.
#[test]
fn what_an_endpoint_has_read_is_not_sent_twice() {
    let reads = Arc::new(Mutex::new(Vec::new()));
    let seen = reads.clone();
    let origin = Origin::raw(move |stream, _| {
        let mut reader = BufReader::new(stream.try_clone()?);
        let Some(first) = origin::read(&mut reader)? else {
            return Ok(());
        };
        seen.lock().unwrap().push(first.line);
        reply(stream, 200, "")?;
        if let Some(second) = origin::read(&mut reader)? {
            seen.lock().unwrap().push(second.line);
        }
        Ok(())
    });
    let proxy = Proxy::start(&config(&origin, "retries = 1"));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/first").status, 200);
    client.send("POST /second HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(client.reply().status, 502);
    assert_eq!(*reads.lock().unwrap(), ["GET /first HTTP/1.1", "POST /second HTTP/1.1"]);
    // An idempotent one is, on a new connection.
    assert_eq!(client.get("/third").status, 200);
    assert_eq!(client.get("/fourth").status, 200);
    assert_eq!(proxy.metric("evenkeel_endpoint_replays_total{"), 1.0);
}

#[test]
fn an_announced_time_out_is_kept_and_none_is_learned() {
    let open = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    let kept = open.clone();
    let origin = Origin::start(move |request, stream| {
        kept.lock().unwrap().push(stream.try_clone()?);
        let field = match request.path() {
            "/one" => "Keep-Alive: timeout=1, max=7\r\n",
            _ => "",
        };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{field}Content-Length: 0\r\n\r\n").as_bytes())?;
        Ok(true)
    });
    let proxy = Proxy::start(&config(&origin, ""));
    let mut client = Client::connect(proxy.addr("web"));
    let reply = client.get("/one");
    assert_eq!(reply.header("keep-alive"), "");
    // Half a second is left of the one announced: then it is ours to close.
    eventually("the connection is given up", || origin.open() == 0);
    assert_eq!(client.get("/long").status, 200);
    assert_eq!((origin.accepted(), origin.open()), (2, 1));
    let status = proxy.status();
    assert_eq!(
        status["upstreams"][0]["endpoints"][0]["idle_limit_seconds"],
        serde_json::Value::Null
    );
    // It closes what rests: that is learned.
    for stream in open.lock().unwrap().drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
    eventually("it is learned", || {
        proxy.status()["upstreams"][0]["endpoints"][0]["idle_limit_seconds"].is_number()
    });
}

#[test]
fn idle_connections_are_counted() {
    let origin = Origin::named("a");
    let proxy = Proxy::start(&config(&origin, "pool_idle_timeout = \"2s\""));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/").text(), "a");
    eventually("one rests", || {
        proxy.metric("evenkeel_endpoint_idle_connections{") == 1.0
    });
    eventually("it is closed", || {
        proxy.metric("evenkeel_endpoint_idle_connections{") == 0.0
    });
    assert_eq!(origin.accepted(), 1);
}

//! Bodies so large that they pass from socket to socket unseen.

use std::io::Write;

use crate::harness::{Client, Origin, Proxy};

const LARGE: usize = 3 << 20;

fn proxy(origin: &Origin, more: &str) -> Proxy {
    Proxy::start(&format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        {more}
        [[routes]]
        upstream = "origin"
        [upstreams.origin]
        endpoints = ["{}"]
        "#,
        origin.addr
    ))
}

/// Every byte tells its place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

#[test]
fn large_bodies_arrive_whole_and_connections_go_on() {
    let origin = Origin::start(|seen, stream| {
        let body = pattern(seen.path()[1..].parse().unwrap());
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes())?;
        stream.write_all(&body)?;
        Ok(true)
    });
    let proxy = proxy(&origin, "");
    let mut client = Client::connect(proxy.addr("web"));
    for len in [LARGE, 10, 96 << 10, LARGE + 1, 1 << 20] {
        let reply = client.get(&format!("/{len}"));
        assert_eq!(reply.status, 200);
        assert!(reply.body == pattern(len), "{len} bytes are not what was sent");
    }
    assert_eq!(origin.accepted(), 1);
    assert!(proxy.metric("evenkeel_bytes_total{listener=\"web\",direction=\"out\"}") > (2 * LARGE) as f64);
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

#[test]
fn a_large_body_that_ends_early_does_not_look_complete() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes())?;
        stream.write_all(&pattern(LARGE / 2))?;
        Ok(false)
    });
    let proxy = proxy(&origin, "");
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.try_reply(false).is_err());
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

#[test]
fn a_client_that_takes_nothing_of_a_large_body_is_let_go() {
    let origin = Origin::start(|_, stream| {
        let len = 64 << 20;
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {len}\r\n\r\n").as_bytes())?;
        // Ends when the proxy gives up.
        let part = pattern(1 << 20);
        for _ in 0..64 {
            stream.write_all(&part)?;
        }
        Ok(true)
    });
    let proxy = proxy(&origin, "write_timeout = \"200ms\"");
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().status, 200);
    crate::harness::eventually("the client is let go", || {
        proxy.metric("evenkeel_connections_active{listener=\"web\"}") == 0.0
            && proxy.metric("evenkeel_endpoint_active") == 0.0
    });
}

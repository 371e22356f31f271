//! Layer 4: bytes both ways, TLS ended or left alone.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr};

use crate::harness::tls::{Identity, tls_client};
use crate::harness::{Client, Origin, Proxy, eventually, origin};

fn config(listener: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.db]
        bind = "127.0.0.1:0"
        protocol = "tcp"
        upstream = "db"
        {listener}
        [upstreams.db]
        balance = "round_robin"
        endpoints = [{}]
        "#,
        endpoints.join(", ")
    )
}

/// Greets first, as databases and SSH do, then echoes until the client ends, then says goodbye.
fn greeter(name: &'static str) -> Origin {
    Origin::raw(move |stream, _| {
        stream.write_all(name.as_bytes())?;
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, stream)?;
        stream.write_all(b"bye")
    })
}

#[test]
fn bytes_flow_both_ways_and_each_side_ends_by_itself() {
    let origin = greeter("hello");
    let proxy = Proxy::start(&config("", &[origin.addr]));
    let mut client = Client::connect(proxy.addr("db"));
    assert_eq!(client.take(5).unwrap(), b"hello");
    client.send("ping");
    assert_eq!(client.take(4).unwrap(), b"ping");
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().unwrap(), b"bye");
    eventually("counted", || {
        proxy.metric("evenkeel_bytes_total{listener=\"db\",direction=\"out\"}") == 12.0
    });
    assert_eq!(
        proxy.metric("evenkeel_bytes_total{listener=\"db\",direction=\"in\"}"),
        4.0
    );
    eventually("nothing is left", || {
        proxy.metric("evenkeel_endpoint_active") == 0.0 && origin.open() == 0
    });
}

#[test]
fn what_a_client_sends_at_once_arrives_at_whoever_can_be_reached() {
    let origin = Origin::raw(|stream, _| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        stream.write_all(&all)
    });
    let proxy = Proxy::start(&config("", &[Origin::nobody(), origin.addr]));
    for _ in 0..4 {
        let mut client = Client::connect(proxy.addr("db"));
        client.send("all of it");
        client.stream().shutdown(Shutdown::Write).unwrap();
        assert_eq!(client.rest().unwrap(), b"all of it");
    }
}

#[test]
fn the_next_endpoint_is_tried_when_one_cannot_be_reached() {
    let origin = greeter("alive");
    let proxy = Proxy::start(&config("", &[Origin::nobody(), origin.addr]));
    for _ in 0..6 {
        assert_eq!(Client::connect(proxy.addr("db")).take(5).unwrap(), b"alive");
    }
    let proxy = Proxy::start(&config("", &[Origin::nobody()]));
    let rest = Client::connect(proxy.addr("db")).rest();
    assert!(rest.is_err() || rest.is_ok_and(|bytes| bytes.is_empty()));
}

#[test]
fn silent_connections_are_let_go_on_both_sides() {
    let origin = greeter("hello");
    let proxy = Proxy::start(&config("idle_timeout = \"200ms\"", &[origin.addr]));
    let mut client = Client::connect(proxy.addr("db"));
    assert_eq!(client.take(5).unwrap(), b"hello");
    assert!(client.rest().is_err(), "silence is no orderly end");
    eventually("the endpoint's side is closed", || origin.open() == 0);
}

/// Sends 32 MiB and ends; the other side is to echo them.
fn bulk_comes_back(client: &std::net::TcpStream) {
    let data: Vec<u8> = (0..32u32 << 20).map(|n| (n ^ (n >> 8) ^ (n >> 16)) as u8).collect();
    let (mut reader, mut writer) = (client, client.try_clone().unwrap());
    let sent = data.clone();
    let sending = std::thread::spawn(move || {
        writer.write_all(&sent).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut echoed = Vec::new();
    reader.read_to_end(&mut echoed).unwrap();
    sending.join().unwrap();
    assert!(echoed == data, "{} of {} bytes, or others", echoed.len(), data.len());
}

#[test]
fn megabytes_pass_unharmed() {
    let origin = Origin::raw(|stream, _| {
        let mut reader = stream.try_clone()?;
        std::io::copy(&mut reader, stream)?;
        Ok(())
    });
    let proxy = Proxy::start(&config("", &[origin.addr]));
    let client = Client::connect(proxy.addr("db"));
    bulk_comes_back(client.stream());
    for direction in ["in", "out"] {
        let metric = format!("evenkeel_bytes_total{{listener=\"db\",direction=\"{direction}\"}}");
        eventually("every byte is counted", || proxy.metric(&metric) == f64::from(32 << 20));
    }
}

#[test]
fn megabytes_pass_unharmed_through_a_tunnel() {
    let origin = Origin::raw(|stream, _| {
        let mut reader = BufReader::new(stream.try_clone()?);
        origin::read_head(&mut reader)?;
        stream.write_all(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: bulk\r\n\r\n")?;
        std::io::copy(&mut reader, stream)?;
        Ok(())
    });
    let proxy = Proxy::start(&format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "echo"
        [upstreams.echo]
        endpoints = ["{}"]
        "#,
        origin.addr
    ));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: bulk\r\n\r\n");
    assert_eq!(client.head().status, 101);
    bulk_comes_back(client.stream());
    eventually("every byte is counted", || {
        proxy.metric("evenkeel_bytes_total{listener=\"web\",direction=\"in\"}") > f64::from(32 << 20)
            && proxy.metric("evenkeel_bytes_total{listener=\"web\",direction=\"out\"}") > f64::from(32 << 20)
    });
}

#[test]
fn a_reset_is_passed_on() {
    let origin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(&config("", &[origin.local_addr().unwrap()]));
    let mut client = Client::connect(proxy.addr("db"));
    let (mut stream, _) = origin.accept().unwrap();
    stream.write_all(b"x").unwrap();
    assert_eq!(client.take(1).unwrap(), b"x");
    rustix::net::sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO)).unwrap();
    drop(stream);
    let error = client
        .rest()
        .expect_err("a broken connection looks like one that ended in order");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    eventually("nothing is left", || {
        proxy.metric("evenkeel_endpoint_active") == 0.0 && proxy.metric("evenkeel_connections_active") == 0.0
    });
}

#[test]
fn tls_can_be_ended_for_a_protocol_that_knows_none() {
    let origin = greeter("plain");
    let identity = Identity::of(&["db.example"]);
    let dir = identity.dir();
    let proxy = Proxy::start_in(
        dir,
        &config(
            "tls.certificates = [{ cert = \"{DIR}/cert.pem\", key = \"{DIR}/key.pem\" }]",
            &[origin.addr],
        ),
    );
    let mut client = tls_client(proxy.addr("db"), "db.example", &identity, &[]);
    assert_eq!(client.take(5).unwrap(), b"plain");
    client.send("ping");
    assert_eq!(client.take(4).unwrap(), b"ping");
}

#[test]
fn untouched_tls_is_routed_by_the_name_it_asks_for() {
    let (shop, other) = (
        Identity::of(&["shop.example", "a.shop.example"]),
        Identity::of(&["other.example"]),
    );
    let server = |identity: &Identity, name: &'static str| {
        let config = identity.server(&[]);
        Origin::raw(move |stream, _| {
            let conn = rustls::ServerConnection::new(config.clone()).map_err(std::io::Error::other)?;
            let mut tls = rustls::StreamOwned::new(conn, stream.try_clone()?);
            tls.write_all(name.as_bytes())?;
            tls.conn.send_close_notify();
            tls.flush()
        })
    };
    let (at_shop, at_other) = (server(&shop, "shop"), server(&other, "other"));
    let proxy = Proxy::start(&format!(
        r#"
        [listeners.tls]
        bind = "127.0.0.1:0"
        protocol = "tcp"
        sni = {{ "shop.example" = "shop", "*.shop.example" = "shop", "other.example" = "other" }}
        [upstreams.shop]
        endpoints = ["{}"]
        [upstreams.other]
        endpoints = ["{}"]
        "#,
        at_shop.addr, at_other.addr
    ));
    let addr = proxy.addr("tls");
    let ask = |name, identity| tls_client(addr, name, identity, &[]).rest().unwrap();
    assert_eq!(ask("shop.example", &shop), b"shop");
    assert_eq!(ask("a.shop.example", &shop), b"shop");
    assert_eq!(ask("other.example", &other), b"other");
    // A name nobody asked us to know, and no TLS at all: closed.
    let mut stranger = Client::connect(addr);
    stranger.send("GET / HTTP/1.1\r\n\r\n");
    let rest = stranger.rest();
    assert!(rest.is_err() || rest.is_ok_and(|bytes| bytes.is_empty()));
    assert_eq!((at_shop.accepted(), at_other.accepted()), (2, 1));
}

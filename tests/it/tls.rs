//! TLS towards clients and towards endpoints.

use std::io::{BufRead, BufReader, Write};
use std::sync::Arc;

use crate::harness::tls::{Identity, serve_tls, tls_client, try_tls_client};
use crate::harness::{Client, Origin, Proxy, eventually};

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

#[test]
fn the_certificate_is_chosen_by_the_name_asked_for() {
    let (exact, wild, first) = (
        Identity::of(&["shop.example"]),
        Identity::of(&["*.shop.example"]),
        Identity::of(&["first.example"]),
    );
    let dir = tempfile::tempdir().unwrap();
    exact.write(dir.path(), "exact");
    wild.write(dir.path(), "wild");
    first.write(dir.path(), "first");
    let config = r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        tls.certificates = [
            { cert = "{DIR}/first.pem", key = "{DIR}/first.key" },
            { cert = "{DIR}/wild.pem", key = "{DIR}/wild.key" },
            { cert = "{DIR}/exact.pem", key = "{DIR}/exact.key" },
        ]
        [[routes]]
        respond = { status = 200, body = "ok" }
    "#;
    let proxy = Proxy::start_in(dir, config);
    let addr = proxy.addr("web");
    for (name, identity) in [
        ("shop.example", &exact),
        ("eu.shop.example", &wild),
        ("first.example", &first),
    ] {
        assert_eq!(
            tls_client(addr, name, identity, BOTH[1..].as_ref()).get("/").text(),
            "ok",
            "{name}"
        );
    }
    assert!(
        try_tls_client(addr, "shop.example", &wild, &[]).is_err(),
        "another certificate than its own"
    );
    // New files, the same names: a reload serves them.
    let renewed = Identity::of(&["shop.example"]);
    renewed.write(proxy.dir.path(), "exact");
    proxy.reload(config);
    assert_eq!(tls_client(addr, "shop.example", &renewed, &[]).get("/").text(), "ok");
    // A key that does not fit is found out, and changes nothing.
    std::fs::write(proxy.dir.path().join("exact.key"), &wild.key).unwrap();
    assert!(proxy.reload_rejected(config).contains("exact"));
    assert_eq!(tls_client(addr, "shop.example", &renewed, &[]).get("/").text(), "ok");
}

#[test]
fn what_is_no_tls_is_closed_and_counted() {
    let identity = Identity::of(&["a.example"]);
    let proxy = Proxy::start_in(
        identity.dir(),
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        tls.certificates = [{ cert = "{DIR}/cert.pem", key = "{DIR}/key.pem" }]
        header_timeout = "200ms"
        [[routes]]
        respond = { status = 200 }
        "#,
    );
    let mut plain = Client::connect(proxy.addr("web"));
    plain.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let rest = plain.rest();
    assert!(rest.is_err() || rest.is_ok_and(|bytes| !bytes.starts_with(b"HTTP")));
    // A handshake that does not go on.
    let mut silent = Client::connect(proxy.addr("web"));
    silent.send([22, 3, 1]);
    let _ = silent.rest();
    eventually("both are counted", || {
        proxy.metric("evenkeel_tls_handshake_failures_total") == 2.0
    });
    eventually("both are gone", || proxy.metric("evenkeel_connections_active") == 0.0);
}

fn https_origin(config: Arc<rustls::ServerConfig>) -> Origin {
    Origin::raw(move |stream, _| {
        let tls = serve_tls(&config, stream)?;
        let mut tls = BufReader::new(tls);
        let mut line = String::new();
        while tls.read_line(&mut line)? > 0 {
            if line == "\r\n" {
                tls.get_mut()
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecure")?;
                tls.get_mut().flush()?;
            }
            line.clear();
        }
        Ok(())
    })
}

#[test]
fn endpoints_are_verified_unless_told_otherwise() {
    let identity = Identity::of(&["origin.example"]);
    let origin = https_origin(identity.server(&[b"http/1.1"]));
    let config = |tls: &str| {
        format!(
            r#"
            [listeners.web]
            bind = "127.0.0.1:0"
            [[routes]]
            upstream = "u"
            [upstreams.u]
            endpoints = ["{}"]
            tls = {tls}
            "#,
            origin.addr
        )
    };
    let status = |proxy: &Proxy| crate::harness::get(proxy.addr("web"), "/").status;
    let proxy = Proxy::start_in(identity.dir(), &config("true"));
    assert_eq!(status(&proxy), 502, "signed by nobody we know");
    proxy.reload(&config("{ ca = \"{DIR}/cert.pem\" }"));
    assert_eq!(status(&proxy), 502, "another name than the address");
    proxy.reload(&config("{ ca = \"{DIR}/cert.pem\", server_name = \"origin.example\" }"));
    assert_eq!(status(&proxy), 200);
    proxy.reload(&config("{ verify = false }"));
    assert_eq!(status(&proxy), 200);
}

#[test]
fn endpoints_may_ask_who_we_are() {
    let (server, us) = (Identity::of(&["origin.example"]), Identity::of(&["evenkeel.example"]));
    let origin = https_origin(server.server_for(&us));
    let dir = server.dir();
    us.write(dir.path(), "us");
    let config = |client: &str| {
        format!(
            r#"
            [listeners.web]
            bind = "127.0.0.1:0"
            [[routes]]
            upstream = "u"
            [upstreams.u]
            endpoints = ["{}"]
            tls = {{ ca = "{{DIR}}/cert.pem", server_name = "origin.example"{client} }}
            "#,
            origin.addr
        )
    };
    let proxy = Proxy::start_in(
        dir,
        &config(", certificate = { cert = \"{DIR}/us.pem\", key = \"{DIR}/us.key\" }"),
    );
    assert_eq!(crate::harness::get(proxy.addr("web"), "/").text(), "secure");
    proxy.reload(&config(""));
    assert_eq!(crate::harness::get(proxy.addr("web"), "/").status, 502);
}

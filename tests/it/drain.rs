//! Endpoints that are to take no more work: by an operator's order, because they were removed. And how warm they are.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::client::Reply;
use crate::harness::{Client, Origin, PATIENCE, Proxy, eventually, get, one_upstream, reply};

fn config(upstream: &str, endpoints: &[SocketAddr]) -> String {
    let raw = r#"
        [listeners.raw]
        bind = "127.0.0.1:0"
        protocol = "tcp"
        upstream = "u"
        "#;
    one_upstream(&format!("balance = \"round_robin\"\n{upstream}"), endpoints) + raw
}

/// Answers with its name; `/held` only once it is let go.
fn holding(name: &'static str) -> (Origin, Sender<()>) {
    let (go, held) = channel::<()>();
    let held: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(held));
    let origin = Origin::start(move |request, stream| {
        if request.path() == "/held" {
            let _ = held.lock().unwrap().recv();
        }
        reply(stream, 200, name)
    });
    (origin, go)
}

fn order(proxy: &Proxy, endpoint: SocketAddr, order: &str) -> Reply {
    let mut client = Client::connect(proxy.addr("admin"));
    let path = format!("/api/v1/upstreams/u/endpoints/{endpoint}/{order}");
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    client.reply()
}

/// What the order's answer says of the endpoint.
#[track_caller]
fn ordered(proxy: &Proxy, endpoint: SocketAddr, text: &str) -> Value {
    let reply = order(proxy, endpoint, text);
    assert_eq!(reply.status, 200, "{}", reply.text());
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    answer["endpoints"][0].clone()
}

fn names(proxy: &Proxy, n: usize) -> String {
    let mut client = Client::connect(proxy.addr("web"));
    (0..n).map(|_| client.get("/").text()).collect()
}

#[test]
fn a_draining_endpoint_ends_what_it_does_and_gets_nothing_new() {
    let ((a, go), b) = (holding("a"), Origin::named("b"));
    let text = config("", &[a.addr, b.addr]);
    let proxy = Proxy::start(&text);
    assert_eq!(names(&proxy, 4), "abab");
    // Two at a: one to keep a connection at rest, one that runs.
    let mut running = Client::connect(proxy.addr("web"));
    running.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it runs at a", || a.seen().iter().any(|seen| seen.path() == "/held"));
    assert_eq!(names(&proxy, 2), "ba");

    let told = ordered(&proxy, a.addr, "drain");
    assert_eq!(
        (&told["duty"], &told["duty_by"]),
        (&json!("draining"), &json!(["operator"]))
    );
    assert_eq!(told["active"], 1);
    assert_eq!(names(&proxy, 6), "bbbbbb");
    eventually("the connection at rest is closed", || a.open() == 1);
    let series = format!("evenkeel_endpoint_draining{{upstream=\"u\",endpoint=\"{}\"}}", a.addr);
    let status = proxy.status();
    let endpoint = &status["upstreams"][0]["endpoints"][0];
    assert_eq!(
        (&endpoint["duty"], &endpoint["health"]),
        (&json!("draining"), &json!("up"))
    );
    assert_eq!(
        status["deviations"],
        json!([format!("upstream u endpoint {}: draining", a.addr)])
    );

    // A reload keeps it.
    proxy.reload(&text.replace("name = \"all\"", "name = \"every\""));
    assert_eq!(names(&proxy, 4), "bbbb");
    go.send(()).unwrap();
    assert_eq!(running.reply().text(), "a");
    eventually("its connection is not kept", || a.open() == 0);

    assert_eq!(ordered(&proxy, a.addr, "undrain")["duty"], "active");
    assert_eq!(names(&proxy, 8).matches('a').count(), 4);
    assert_eq!(proxy.metric(&series), 0.0);
    assert_eq!(proxy.status()["deviations"], json!([]));
}

#[test]
fn weights_change_while_it_runs_and_come_back() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&config("", &[a.addr, b.addr]));
    assert_eq!(ordered(&proxy, a.addr, "weight?value=4")["weight"], 4);
    assert_eq!(names(&proxy, 10).matches('a').count(), 8);
    assert_eq!(ordered(&proxy, a.addr, "weight?value=0")["weight_configured"], 1);
    assert_eq!(names(&proxy, 4), "bbbb");
    let deviations = json!([format!("upstream u endpoint {}: weight 0 instead of 1", a.addr)]);
    assert_eq!(proxy.status()["deviations"], deviations);
    ordered(&proxy, a.addr, "reset");
    ordered(&proxy, b.addr, "disable");
    assert_eq!(names(&proxy, 3), "aaa");
    ordered(&proxy, a.addr, "disable");
    assert_eq!(get(proxy.addr("web"), "/").status, 503, "nobody may take it");
    ordered(&proxy, b.addr, "enable");
    assert_eq!(names(&proxy, 2), "bb");
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let a = Origin::named("a");
    let proxy = Proxy::start(&config("", &[a.addr]));
    assert_eq!(order(&proxy, a.addr, "weight").status, 400);
    assert_eq!(order(&proxy, a.addr, "kill").status, 404);
    let nobody = order(&proxy, "127.0.0.1:1".parse().unwrap(), "drain");
    assert_eq!(nobody.status, 404);
    assert!(nobody.text().contains(&a.addr.to_string()), "{}", nobody.text());
    let mut client = Client::connect(proxy.addr("admin"));
    let path = format!("/api/v1/upstreams/u/endpoints/{}", a.addr);
    assert_eq!(client.get(&path).status, 200);
    assert_eq!(client.get(&format!("{path}/drain")).status, 405);
    client.send(format!(
        "POST {path}/drain HTTP/1.1\r\nHost: a\r\nOrigin: http://evil\r\nContent-Length: 0\r\n\r\n"
    ));
    assert_eq!(client.reply().status, 403);
    assert_eq!(names(&proxy, 1), "a");
}

#[test]
fn a_removed_endpoint_ends_what_it_does() {
    let ((a, go), b) = (holding("a"), Origin::named("b"));
    let proxy = Proxy::start(&config("", &[a.addr]));
    assert_eq!(names(&proxy, 1), "a");
    let mut running = Client::connect(proxy.addr("web"));
    running.send("GET /held HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it runs at a", || a.seen().len() == 2);
    proxy.reload(&config("", &[b.addr]));
    assert_eq!(names(&proxy, 2), "bb");
    let status = proxy.status();
    let left = json!([{ "upstream": "u", "address": a.addr.to_string(), "active": 1 }]);
    assert_eq!(status["leaving"], left);
    let series = format!("evenkeel_endpoint_active{{upstream=\"u\",endpoint=\"{}\"}}", a.addr);
    assert_eq!(proxy.metric(&series), 1.0);
    go.send(()).unwrap();
    assert_eq!(running.reply().text(), "a");
    eventually("its connections are closed", || a.open() == 0);
    assert_eq!(proxy.status()["leaving"], json!([]));
}

/// Reads what there is until the end.
fn ends(stream: &mut TcpStream) -> io::Result<usize> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.read(&mut [0; 16])
}

#[test]
fn layer_4_has_its_time() {
    let echo = || {
        Origin::raw(|stream, _| {
            let mut from = stream.try_clone()?;
            io::copy(&mut from, stream).map(|_| ())
        })
    };
    let (a, b) = (echo(), echo());
    let proxy = Proxy::start(&config("drain_timeout = \"100ms\"", &[a.addr, b.addr]));
    let mut both: Vec<_> = (0..2).map(|_| TcpStream::connect(proxy.addr("raw")).unwrap()).collect();
    for stream in &mut both {
        stream.write_all(b"x").unwrap();
        assert_eq!(ends(stream).unwrap(), 1);
    }
    assert_eq!((a.open(), b.open()), (1, 1));
    ordered(&proxy, a.addr, "drain");
    eventually("the time at a is over", || a.open() == 0);
    let mut cut = 0;
    for stream in &mut both {
        // Reset, or one that still echoes.
        match stream.write_all(b"y").and_then(|()| ends(stream)) {
            Ok(1) => {}
            Ok(n) => panic!("{n} bytes, in order"),
            Err(_) => cut += 1,
        }
    }
    assert_eq!(cut, 1);
    let mut new = TcpStream::connect(proxy.addr("raw")).unwrap();
    new.write_all(b"z").unwrap();
    assert_eq!(ends(&mut new).unwrap(), 1);
    assert_eq!((a.open(), b.open()), (0, 2));
}

#[test]
fn layer_4_without_a_time_goes_on() {
    let a = Origin::raw(|stream, _| {
        let mut from = stream.try_clone()?;
        io::copy(&mut from, stream).map(|_| ())
    });
    let b = Origin::named("b");
    let proxy = Proxy::start(&config("", &[a.addr]));
    let mut stream = TcpStream::connect(proxy.addr("raw")).unwrap();
    stream.write_all(b"x").unwrap();
    assert_eq!(ends(&mut stream).unwrap(), 1);
    proxy.reload(&config("", &[b.addr]));
    stream.write_all(b"y").unwrap();
    assert_eq!(ends(&mut stream).unwrap(), 1);
}

#[test]
fn connections_are_made_beforehand_where_asked_for() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&config("pool_min_idle = 3", &[a.addr]));
    eventually("a is warm", || a.open() == 3);
    assert_eq!(names(&proxy, 2), "aa");
    assert_eq!(a.accepted(), 3, "the warm ones are used");
    proxy.reload(&config("pool_min_idle = 3", &[a.addr, b.addr]));
    eventually("b is warm", || b.open() == 3);
    assert_eq!(a.accepted(), 3, "what was there is kept");
}

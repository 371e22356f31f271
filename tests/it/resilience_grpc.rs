//! Calls of gRPC that fail or are late, and the time that clients give their requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};

use crate::harness::h2_origin::H2Origin;
use crate::harness::{Client, Origin, Proxy, get, reply};
use crate::http2::{whole, with_client};

fn config(listener: &str, upstream: &str, endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [server]
        workers = 1
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        {listener}
        [[routes]]
        name = "all"
        path = "/"
        upstream = "u"
        [upstreams.u]
        balance = "round_robin"
        endpoints = [{}]
        {upstream}
        "#,
        endpoints.join(", ")
    )
}

/// A call with a message of a few bytes: the response's fields, its body, its trailers.
fn call(addr: SocketAddr, timeout: Option<&str>) -> (HeaderMap, Vec<u8>, Option<HeaderMap>) {
    let mut request = Request::post("http://shop.example/package.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if let Some(timeout) = timeout {
        request = request.header("grpc-timeout", timeout);
    }
    let request = request.body(()).unwrap();
    with_client(addr, |client| async move {
        let mut client = client.ready().await.unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"message"), true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        let fields = response.headers().clone();
        let (_, body, trailers) = whole(response).await;
        (fields, body, trailers)
    })
}

fn code(proxy: &Proxy, code: u16) -> f64 {
    let labels = format!("{{listener=\"web\",route=\"all\",upstream=\"u\",code=\"{code}\"}}");
    proxy.metric(&format!("evenkeel_requests_total{labels}"))
}

#[test]
fn a_call_that_ends_unavailable_without_a_message_is_made_again_where_that_was_asked_for() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let refuses = H2Origin::answering(move |_| {
        count.fetch_add(1, Relaxed);
        let response = Response::builder().header("content-type", "application/grpc");
        response.header("grpc-status", "14").body(()).unwrap()
    });
    let echoes = H2Origin::start(None);
    let endpoints = [refuses.addr, echoes.addr];
    let proxy = Proxy::start(&config(
        "",
        "protocol = \"h2\"\nretries.on = \"grpc:unavailable\"",
        &endpoints,
    ));
    for _ in 0..4 {
        let (_, body, trailers) = call(proxy.addr("web"), None);
        assert_eq!(body, b"message", "what was sent was not sent again whole");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
    assert_eq!(asked.load(Relaxed), 2);
    assert_eq!(proxy.metric("evenkeel_retries_total"), 2.0);
    // Nobody asked for that: the call's end is the client's to see.
    proxy.reload(&config(
        "",
        "protocol = \"h2\"\nretries.on = \"grpc:aborted\"",
        &[refuses.addr],
    ));
    let (fields, body, _) = call(proxy.addr("web"), None);
    assert_eq!((&fields["grpc-status"], body.len()), (&"14".parse().unwrap(), 0));
    assert_eq!(asked.load(Relaxed), 3);
}

#[test]
fn an_endpoint_whose_calls_fail_at_once_attracts_none() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let refuses = H2Origin::answering(move |_| {
        count.fetch_add(1, Relaxed);
        let response = Response::builder().header("content-type", "application/grpc");
        response.header("grpc-status", "14").body(()).unwrap()
    });
    let echoes = H2Origin::start(None);
    let text = config("", "protocol = \"h2\"\nretries = 0", &[refuses.addr, echoes.addr]);
    let proxy = Proxy::start(&text.replace("round_robin", "peak_ewma"));
    for _ in 0..60 {
        call(proxy.addr("web"), None);
    }
    // A response with 200 like any other, to whoever looks at its status alone: then it would be half of them.
    let asked = asked.load(Relaxed);
    assert!(asked < 15, "{asked} of 60");
}

#[test]
fn calls_are_told_of_failures_in_their_own_way() {
    let proxy = Proxy::start(&config("", "protocol = \"h2\"\nretries = 0", &[Origin::nobody()]));
    let (fields, _, _) = call(proxy.addr("web"), None);
    assert_eq!(fields["content-type"], "application/grpc");
    assert_eq!(
        (&fields["grpc-status"], &fields["grpc-message"]),
        (
            &HeaderValue::from_static("14"),
            &HeaderValue::from_static("Bad Gateway")
        )
    );
    assert_eq!(code(&proxy, 502), 1.0);
    // The same request without gRPC.
    assert_eq!(get(proxy.addr("web"), "/").status, 502);
}

#[test]
fn the_time_a_call_is_given_is_passed_on_and_ends_it() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let origin = H2Origin::answering(move |request| {
        seen.lock()
            .unwrap()
            .push(request.headers()["grpc-timeout"].to_str().unwrap().to_owned());
        Response::builder().header("grpc-status", "0").body(()).unwrap()
    });
    let proxy = Proxy::start(&config("", "protocol = \"h2\"", &[origin.addr]));
    let (fields, _, _) = call(proxy.addr("web"), Some("30S"));
    assert_eq!(fields["grpc-status"], "0");
    let left = told.lock().unwrap().pop().unwrap();
    let micros: u64 = left.strip_suffix('u').expect("in microseconds").parse().unwrap();
    assert!((10_000_000..30_000_000).contains(&micros), "{left}");
    let silent = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    proxy.reload(&config("", "", &[silent.addr]));
    let (fields, _, _) = call(proxy.addr("web"), Some("100m"));
    assert_eq!(fields["grpc-status"], "4");
    let (fields, _, _) = call(proxy.addr("web"), Some("0n"));
    assert_eq!(fields["grpc-status"], "4");
    assert_eq!(code(&proxy, 504), 2.0);
    let deadline = format!(
        "evenkeel_endpoint_attempts_total{{upstream=\"u\",endpoint=\"{}\"",
        silent.addr
    );
    assert_eq!(
        proxy.metric(&format!("{deadline},outcome=\"deadline\"}}")),
        1.0,
        "the second was never sent"
    );
}

#[test]
fn a_field_of_the_operators_choice_does_the_same() {
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/silent" => std::io::copy(stream, &mut std::io::sink()).map(|_| false),
        _ => reply(stream, 200, seen.header("x-request-timeout")),
    });
    let listener = "deadline_header = \"X-Request-Timeout\"";
    let proxy = Proxy::start(&config(listener, "", &[origin.addr]));
    let ask = |path: &str, timeout: &str| {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Timeout: {timeout}\r\n\r\n"
        ));
        client.reply()
    };
    let millis: u64 = ask("/", "30000").text().parse().unwrap();
    assert!((10_000..30_000).contains(&millis), "{millis}");
    let left = ask("/", "30s").text();
    assert!(left.ends_with("ms") && left != "30000ms", "{left}");
    // No time at all that anybody could read: it is passed on as it came.
    assert_eq!(ask("/", "soon").text(), "soon");
    assert_eq!(ask("/silent", "100").status, 504);
    assert_eq!(ask("/", "0").status, 504);
    // Where it means nothing, it says nothing.
    proxy.reload(&config("", "", &[origin.addr]));
    assert_eq!(ask("/", "0").text(), "0");
}

//! Trailers of what is stored: they come behind the body again, where a client's protocol has a place for them.

use std::io::Write;

use http::Request;

use crate::cache::{ask, config};
use crate::harness::{Client, Origin, Proxy, eventually, get};
use crate::http2::{whole, with_client};

fn origin() -> Origin {
    Origin::start(|seen, stream| {
        let long = match seen.path() {
            "/long" => "y".repeat(3000),
            _ => "1".to_owned(),
        };
        write!(
            stream,
            "HTTP/1.1 200 X\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n\
             4\r\nbody\r\n0\r\nx-sum: {long}\r\nset-cookie: id=1\r\ncontent-length: 9\r\n\r\n"
        )?;
        Ok(true)
    })
}

#[test]
fn trailers_are_kept_and_sent_where_there_is_a_place_for_them() {
    let origin = origin();
    let proxy = Proxy::start(&config(&origin, ""));
    let sum = [("x-sum".to_owned(), "1".to_owned())];
    let first = get(proxy.addr("web"), "/t");
    assert_eq!((first.text().as_str(), first.trailers.as_slice()), ("body", &sum[..]));
    eventually("it is stored", || {
        get(proxy.addr("web"), "/t").header("cache-status").contains("; hit")
    });
    let hit = get(proxy.addr("web"), "/t");
    assert_eq!((hit.text().as_str(), hit.trailers.as_slice()), ("body", &sum[..]));
    assert_eq!(
        (hit.header("transfer-encoding"), hit.header("content-length")),
        ("chunked", "")
    );
    with_client(proxy.addr("web"), |client| async move {
        let mut client = client.ready().await.unwrap();
        let request = Request::get("http://test/t").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        let (status, body, trailers) = whole(response.await.unwrap()).await;
        let trailers = trailers.expect("trailers");
        assert_eq!((status.as_u16(), body.as_slice()), (200, &b"body"[..]));
        assert_eq!((trailers.len(), trailers["x-sum"].as_bytes()), (1, &b"1"[..]));
    });
    // Where there is none, there is a length instead.
    let mut old = Client::connect(proxy.addr("web"));
    old.send("GET /t HTTP/1.0\r\nHost: test\r\n\r\n");
    let old = old.reply();
    assert_eq!((old.text().as_str(), old.header("content-length")), ("body", "4"));
    let part = ask(&proxy, "GET", "/t", "Range: bytes=1-2\r\n");
    assert_eq!((part.text().as_str(), part.trailers.len()), ("od", 0));
    assert_eq!(ask(&proxy, "HEAD", "/t", "").header("content-length"), "4");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn trailers_without_a_body_are_kept_and_large_ones_count() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 X\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx-sum: 0\r\n\r\n",
        )?;
        Ok(true)
    });
    let proxy = Proxy::start(&config(&origin, ""));
    get(proxy.addr("web"), "/e");
    eventually("it is stored", || {
        get(proxy.addr("web"), "/e").header("cache-status").contains("; hit")
    });
    let hit = get(proxy.addr("web"), "/e");
    assert_eq!((hit.text().as_str(), hit.trailers.len()), ("", 1));
    let long = crate::cache_trailers::origin();
    let proxy = Proxy::start(&config(&long, ""));
    get(proxy.addr("web"), "/long");
    eventually("it is stored", || {
        get(proxy.addr("web"), "/long").header("cache-status").contains("; hit")
    });
    assert!(proxy.metric("evenkeel_cache_bytes{") > 3000.0);
}

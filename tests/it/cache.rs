//! The response cache with the real binary: what is stored, who gets it, who waits for whom.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use crate::harness::client::Reply;
use crate::harness::origin::Seen;
use crate::harness::{Client, Origin, Proxy, eventually, get};

pub fn config(origin: &Origin, extra: &str) -> String {
    format!(
        r#"
        [server]
        workers = 2
        [admin]
        bind = "127.0.0.1:0"
        [access_log]
        format = "json"
        path = "{{DIR}}/access.log"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "origin"
        cache = "pages"
        [upstreams.origin]
        endpoints = ["{}"]
        retries = 0
        [caches.pages]
        memory = "16MiB"
        {extra}
        "#,
        origin.addr
    )
}

pub fn proxy(origin: &Origin) -> Proxy {
    Proxy::start(&config(origin, ""))
}

/// Writes a whole response with these fields.
pub fn answer(stream: &mut TcpStream, status: u16, fields: &str, body: &str) -> std::io::Result<bool> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\n{fields}\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(head.as_bytes())?;
    Ok(true)
}

/// An origin that says these fields and numbers its bodies.
pub fn counting(fields: &'static str) -> Origin {
    let count = AtomicUsize::new(0);
    Origin::start(move |_, stream| {
        answer(
            stream,
            200,
            fields,
            &format!("body {}", count.fetch_add(1, Relaxed) + 1),
        )
    })
}

pub fn ask(proxy: &Proxy, method: &str, path: &str, fields: &str) -> Reply {
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!("{method} {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
    match method {
        "HEAD" => client.reply_to_head(),
        _ => client.reply(),
    }
}

#[test]
fn what_may_be_shared_is_fetched_once_and_says_so() {
    let origin = counting("cache-control: max-age=60\r\netag: \"e\"\r\nconnection: x-hop\r\nx-hop: 1\r\nx-app: 1");
    let proxy = proxy(&origin);
    let first = ask(&proxy, "GET", "/a?b", "");
    assert_eq!(first.text(), "body 1");
    assert_eq!(
        first.header("cache-status"),
        "evenkeel; fwd=uri-miss; fwd-status=200; ttl=60; stored"
    );
    // The first reader may be done before the entry is in its place.
    eventually("it is stored", || {
        ask(&proxy, "GET", "/a?b", "").header("cache-status").contains("hit")
    });
    let second = ask(&proxy, "GET", "/a?b", "Cookie: a=b\r\n");
    assert_eq!(
        (second.text().as_str(), second.header("content-length")),
        ("body 1", "6")
    );
    assert!(
        second.header("cache-status").starts_with("evenkeel; hit; ttl="),
        "{second:?}"
    );
    assert!(!second.header("age").is_empty() && second.header("x-app") == "1" && second.header("x-hop").is_empty());
    assert_eq!(
        ask(&proxy, "GET", "/a?c", "").text(),
        "body 2",
        "another query is another response"
    );
    let head = ask(&proxy, "HEAD", "/a?b", "");
    assert_eq!((head.status, head.header("content-length")), (200, "6"));
    let same = ask(&proxy, "GET", "/a?b", "If-None-Match: W/\"e\"\r\n");
    assert_eq!((same.status, same.header("etag")), (304, "\"e\""));
    let part = ask(&proxy, "GET", "/a?b", "Range: bytes=1-2\r\n");
    assert_eq!(
        (part.status, part.text().as_str(), part.header("content-range")),
        (206, "od", "bytes 1-2/6")
    );
    let parts = ask(&proxy, "GET", "/a?b", "Range: bytes=0-0,5-\r\n");
    assert!(
        parts.status == 206 && parts.text().contains("content-range: bytes 5-5/6\r\n\r\n1\r\n--"),
        "{parts:?}"
    );
    let beyond = ask(&proxy, "GET", "/a?b", "Range: bytes=6-\r\n");
    assert_eq!((beyond.status, beyond.header("content-range")), (416, "bytes */6"));
    assert_eq!(origin.seen().len(), 2);
    assert_eq!(
        proxy.metric("evenkeel_cache_requests_total{cache=\"pages\",result=\"miss\"}"),
        2.0
    );
    assert!(proxy.metric("evenkeel_cache_entries{") >= 1.0 && proxy.metric("evenkeel_cache_bytes{") > 400.0);
}

#[test]
fn one_users_answer_is_never_anothers() {
    let origin = Origin::start(|seen, stream| {
        let fields = match seen.path() {
            "/private" => "cache-control: private, max-age=60",
            "/cookie" => "cache-control: max-age=60\r\nset-cookie: id=1",
            "/authorized" => "cache-control: max-age=60",
            "/public" => "cache-control: public, max-age=60",
            _ => "cache-control: max-age=60\r\nvary: x-user, accept-encoding",
        };
        let user = seen
            .headers
            .iter()
            .find(|(name, _)| name == "x-user" || name == "authorization");
        let body = user.map_or("nobody", |(_, value)| value).to_owned();
        answer(stream, 200, fields, &body)
    });
    let proxy = proxy(&origin);
    for path in ["/private", "/cookie", "/authorized"] {
        assert_eq!(ask(&proxy, "GET", path, "Authorization: a\r\n").text(), "a", "{path}");
        assert_eq!(ask(&proxy, "GET", path, "Authorization: b\r\n").text(), "b", "{path}");
    }
    for (user, coding) in [("a", "gzip, br"), ("b", "br"), ("c", ""), ("a", "BR;q=1,gzip")] {
        let fields = format!("X-User: {user}\r\nAccept-Encoding: {coding}\r\n");
        assert_eq!(ask(&proxy, "GET", "/vary", &fields).text(), user);
    }
    eventually("both forms of one request are one", || {
        let reply = ask(&proxy, "GET", "/vary", "X-User: a\r\nAccept-Encoding: br, gzip\r\n");
        reply.text() == "a" && reply.header("cache-status").contains("hit")
    });
    assert_eq!(
        ask(&proxy, "GET", "/vary", "X-User: d\r\n")
            .header("cache-status")
            .split("; ")
            .nth(1),
        Some("fwd=vary-miss")
    );
    // Fields by which some applications answer for another resource are in no key.
    let odd = ask(&proxy, "GET", "/public", "X-Original-URL: /admin\r\nX-User: evil\r\n");
    assert!(
        odd.header("cache-status")
            .contains("fwd=bypass; detail=request-override-field")
    );
    assert_eq!(ask(&proxy, "GET", "/public", "").text(), "nobody");
}

#[test]
fn stale_ones_are_validated_served_when_the_origin_fails_and_forgotten_when_changed() {
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let origin = Origin::start(move |seen, stream| {
        if fails.load(Relaxed) {
            return answer(stream, 503, "x-failed: 1", "down");
        }
        let current = seen
            .headers
            .iter()
            .any(|(name, value)| name == "if-none-match" && value == "\"e\"");
        match (seen.line.split(' ').next(), current) {
            (Some("POST"), _) => answer(stream, 201, "location: /a", "made"),
            (_, true) => {
                stream.write_all(b"HTTP/1.1 304 X\r\nx-new: 1\r\ncache-control: max-age=0\r\netag: \"e\"\r\n\r\n")?;
                Ok(true)
            }
            _ => answer(
                stream,
                200,
                "cache-control: max-age=0\r\netag: \"e\"\r\nx-old: 1",
                "body",
            ),
        }
    });
    let proxy = proxy(&origin);
    assert_eq!(ask(&proxy, "GET", "/a", "").text(), "body");
    eventually("it is validated", || {
        let reply = ask(&proxy, "GET", "/a", "");
        reply.header("cache-status").contains("fwd-status=304") && reply.text() == "body"
    });
    let validated = ask(&proxy, "GET", "/a", "");
    assert_eq!((validated.header("x-old"), validated.header("x-new")), ("1", "1"));
    failing.store(true, Relaxed);
    let stale = ask(&proxy, "GET", "/a", "");
    assert_eq!((stale.status, stale.text().as_str()), (200, "body"));
    assert!(
        stale.header("cache-status").ends_with("detail=stale-if-error"),
        "{stale:?}"
    );
    assert_eq!(ask(&proxy, "GET", "/b", "").status, 503);
    failing.store(false, Relaxed);
    assert_eq!(ask(&proxy, "POST", "/other", "Content-Length: 0\r\n").status, 201);
    let anew = ask(&proxy, "GET", "/a", "");
    assert!(anew.header("cache-status").contains("fwd=uri-miss"), "{anew:?}");
    assert_eq!(
        ask(&proxy, "GET", "/none", "Cache-Control: only-if-cached\r\n").status,
        504
    );
    eventually("the log tells", || {
        let log = std::fs::read_to_string(proxy.dir.path().join("access.log")).unwrap();
        log.contains("\"cache\":\"stale\"") && log.contains("\"cache\":\"revalidated\"")
    });
}

#[test]
fn however_many_ask_one_asks_the_origin_and_all_get_the_bytes_as_they_come() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 10\r\n\r\nfirst")?;
        wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        stream.write_all(b"-last")?;
        Ok(true)
    });
    let proxy = proxy(&origin);
    let mut clients: Vec<_> = (0..200).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET /one HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    // The one that began leaves; the others have half of it, and one never reads.
    drop(clients.remove(0));
    for client in &mut clients {
        assert_eq!(client.head().header("content-length"), "10");
        assert_eq!(client.take(5).unwrap(), b"first");
    }
    go.send(()).unwrap();
    for client in &mut clients {
        assert_eq!(client.take(5).unwrap(), b"-last");
    }
    assert_eq!(origin.seen().len(), 1);
    assert!(proxy.metric("evenkeel_cache_requests_total{cache=\"pages\",result=\"collapsed\"}") >= 150.0);
    eventually("nothing is under way", || {
        proxy.metric("evenkeel_cache_fills_active{") == 0.0
    });
    assert_eq!(get(proxy.addr("web"), "/one").text(), "first-last");
    assert_eq!(origin.seen().len(), 1);
}

#[test]
fn an_answer_for_one_alone_releases_all_who_wait_at_once() {
    let (go, wait) = channel::<()>();
    let (wait, first) = (Mutex::new(wait), AtomicBool::new(true));
    let origin = Origin::start(move |_, stream| {
        if first.swap(false, Relaxed) {
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        answer(stream, 200, "cache-control: private", "mine")
    });
    let proxy = proxy(&origin);
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET /p HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    eventually("the first has come", || !origin.seen().is_empty());
    go.send(()).unwrap();
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!(reply.text(), "mine");
        assert!(reply.header("cache-status").contains("detail="), "{reply:?}");
    }
    assert_eq!(origin.seen().len(), 20);
    let next = get(proxy.addr("web"), "/p");
    assert!(next.header("cache-status").contains("detail=private"));
}

#[test]
fn an_origin_that_breaks_off_or_never_ends_costs_its_readers_alone() {
    let origin = Origin::start(|seen: &Seen, stream| match seen.path() {
        "/cut" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nhalf")?;
            Ok(false)
        }
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ntransfer-encoding: chunked\r\n\r\n")?;
            loop {
                stream.write_all(b"4000\r\n")?;
                stream.write_all(&[b'x'; 0x4000])?;
                stream.write_all(b"\r\n")?;
            }
        }
        "/large" => answer(stream, 200, "cache-control: max-age=60", &"x".repeat(2 << 20)),
        "/fields" => answer(
            stream,
            200,
            &format!("cache-control: max-age=60\r\nx-long: {}", "y".repeat(20_000)),
            "ok",
        ),
        _ => answer(stream, 200, "cache-control: max-age=60", "fine"),
    });
    let proxy = proxy(&origin);
    let mut cut = Client::connect(proxy.addr("web"));
    cut.send("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(
        cut.try_reply(false).is_err(),
        "the end of a broken response must not look like one"
    );
    let mut endless = Client::connect(proxy.addr("web"));
    endless.send("GET /endless HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(endless.head().status, 200);
    // More than may be stored, and more than may wait for a reader.
    endless.take(4 << 20).unwrap();
    let most = proxy.metric("evenkeel_cache_bytes{");
    assert!(most < (3 << 20) as f64, "{most} bytes are held");
    drop(endless);
    eventually("the endless one is let go", || {
        origin.open() <= 1 || origin.seen().len() > 2
    });
    let large = get(proxy.addr("web"), "/large");
    assert_eq!(large.body.len(), 2 << 20);
    assert!(large.header("cache-status").contains("detail=too-large"));
    assert!(
        get(proxy.addr("web"), "/fields")
            .header("cache-status")
            .contains("detail=head-too-large")
    );
    assert_eq!(get(proxy.addr("web"), "/fine").text(), "fine");
    let mut again = Client::connect(proxy.addr("web"));
    again.send("GET /cut HTTP/1.1\r\nHost: test\r\n\r\n");
    assert!(again.try_reply(false).is_err(), "half of it is not stored");
}

#[test]
fn while_stale_one_is_served_another_is_fetched() {
    let origin = counting("cache-control: max-age=0, stale-while-revalidate=60");
    let proxy = proxy(&origin);
    assert_eq!(get(proxy.addr("web"), "/s").text(), "body 1");
    eventually("the stale one is served", || {
        get(proxy.addr("web"), "/s")
            .header("cache-status")
            .contains("detail=stale-while-revalidate")
    });
    eventually("a newer one has come", || {
        get(proxy.addr("web"), "/s").text() != "body 1"
    });
}

#[test]
fn a_reload_keeps_what_is_stored_and_a_smaller_size_lets_go() {
    let origin = counting("cache-control: max-age=60");
    let proxy = proxy(&origin);
    for n in 0..50 {
        get(proxy.addr("web"), &format!("/{n}"));
    }
    eventually("all are stored", || proxy.metric("evenkeel_cache_entries{") == 50.0);
    proxy.reload(&config(&origin, "stale_if_error = \"0s\""));
    assert!(get(proxy.addr("web"), "/7").header("cache-status").contains("hit"));
    let smaller = config(&origin, "").replace("16MiB", "1MiB");
    proxy.reload(&smaller);
    assert!(get(proxy.addr("web"), "/8").header("cache-status").contains("hit"));
    assert_eq!(origin.seen().len(), 50);
}

/// POST to the admin listener.
pub fn purge(proxy: &Proxy, what: &str) -> serde_json::Value {
    let mut client = Client::connect(proxy.addr("admin"));
    let length = what.len();
    client.send(format!(
        "POST /api/v1/purge HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{what}"
    ));
    serde_json::from_slice(&client.reply().body).unwrap()
}

#[test]
fn purges_by_url_prefix_group_and_all_are_counted_and_only_mean_what_they_say() {
    let origin = Origin::start(|seen, stream| {
        let fields = format!(
            "cache-control: max-age=60\r\netag: \"e\"\r\nsurrogate-key: all {}",
            &seen.path()[1..2]
        );
        answer(stream, 200, &fields, "x")
    });
    let proxy = Proxy::start(&config(&origin, "purge_sources = [\"127.0.0.1\"]"));
    let fill = || {
        for path in ["/a/1", "/a/2", "/b/1", "/c"] {
            get(proxy.addr("web"), path);
            eventually("it is stored", || {
                get(proxy.addr("web"), path).header("cache-status").contains("hit")
            });
        }
    };
    let told = |path| get(proxy.addr("web"), path).header("cache-status").to_owned();
    fill();
    assert_eq!(
        purge(&proxy, "{\"url\": \"http://test/a/1\", \"dry_run\": true}")["entries"],
        1
    );
    assert!(told("/a/1").contains("hit"));
    let url = purge(&proxy, "{\"url\": [\"http://test/a/1\", \"http://other/a/1\"]}");
    assert_eq!((&url["entries"], &url["caches"]["pages"]), (&1.into(), &1.into()));
    assert!(told("/a/1").contains("uri-miss") && told("/a/2").contains("hit"));
    fill();
    assert_eq!(purge(&proxy, "{\"tag\": \"a\", \"soft\": true}")["entries"], 2);
    assert!(told("/a/2").contains("fwd=stale") && told("/b/1").contains("hit"));
    assert_eq!(
        purge(&proxy, "{\"prefix\": \"http://test/a\", \"dry_run\": true}")["entries"],
        2
    );
    assert_eq!(purge(&proxy, "{\"prefix\": \"http://test/b\"}")["entries"], 1);
    assert!(told("/b/1").contains("uri-miss") && told("/c").contains("hit"));
    fill();
    assert_eq!(purge(&proxy, "{\"all\": true}")["entries"], 4);
    assert!(told("/c").contains("uri-miss"));
    fill();
    assert_eq!(ask(&proxy, "PURGE", "/c", "").text(), "purged 1\n");
    assert!(told("/c").contains("uri-miss"));
    for wrong in [
        "",
        "{}",
        "{\"url\": \"/c\"}",
        "{\"tags\": \"a\"}",
        "{\"all\": true, \"cache\": \"none\"}",
    ] {
        assert!(purge(&proxy, wrong)["error"].is_string(), "{wrong}");
    }
}

#[test]
fn what_a_change_answers_is_stored_when_it_says_that_it_is_what_is_there_now() {
    let origin = Origin::start(|seen, stream| {
        let method = seen.line.split(' ').next().unwrap_or_default();
        let named = match seen.path() {
            "/state" => "\r\ncontent-location: /state",
            _ => "",
        };
        answer(stream, 200, &format!("cache-control: max-age=60{named}"), method)
    });
    let proxy = proxy(&origin);
    for path in ["/state", "/other"] {
        assert_eq!(ask(&proxy, "GET", path, "").text(), "GET");
        assert_eq!(ask(&proxy, "PUT", path, "Content-Length: 0\r\n").text(), "PUT");
    }
    eventually("the answer to PUT is stored", || {
        ask(&proxy, "GET", "/state", "").text() == "PUT"
    });
    assert_eq!(ask(&proxy, "GET", "/other", "").text(), "GET");
}

#[test]
fn a_stale_one_is_validated_once_however_many_ask() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |seen, stream| {
        if seen.headers.iter().any(|(name, _)| name == "if-none-match") {
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
            stream.write_all(b"HTTP/1.1 304 X\r\ncache-control: max-age=60\r\netag: \"e\"\r\n\r\n")?;
            return Ok(true);
        }
        answer(stream, 200, "cache-control: max-age=60\r\netag: \"e\"", "body")
    });
    let proxy = proxy(&origin);
    get(proxy.addr("web"), "/s");
    eventually("it is stored", || {
        get(proxy.addr("web"), "/s").header("cache-status").contains("hit")
    });
    purge(&proxy, "{\"all\": true, \"soft\": true}");
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET /s HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    eventually("the origin is asked", || origin.seen().len() == 2);
    go.send(()).unwrap();
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "body"));
    }
    assert_eq!(origin.seen().len(), 2);
}

#[test]
fn hostile_origins_and_clients_get_no_further_than_their_own_request() {
    let origin = Origin::start(|seen, stream| {
        let path = seen.path().to_owned();
        let fields = match path.split('?').next().unwrap_or_default() {
            "/vary" => format!(
                "cache-control: max-age=60\r\nvary: {}",
                (0..1000).map(|n| format!("x-{n}")).collect::<Vec<_>>().join(",")
            ),
            "/tags" => format!("cache-control: max-age=60\r\nsurrogate-key: {}", "t ".repeat(6000)),
            "/range" => "cache-control: max-age=60\r\ncontent-range: bytes 0-999/1000".to_owned(),
            "/age" => "cache-control: max-age=60\r\nage: -1\r\ndate: nonsense\r\nexpires: 0".to_owned(),
            _ => "cache-control: max-age=60".to_owned(),
        };
        let status = if path == "/range" { 206 } else { 200 };
        answer(stream, status, &fields, &path)
    });
    let proxy = proxy(&origin);
    let told = |path: &str, fields: &str| ask(&proxy, "GET", path, fields).header("cache-status").to_owned();
    assert!(told("/vary", "").contains("detail=vary-too-many"));
    assert!(told("/tags", "").ends_with("stored"));
    // It says a thousand bytes and sends six.
    assert!(told("/range", "Range: bytes=0-999\r\n").contains("detail=part-unusable"));
    assert!(told("/age", "").contains("ttl=60"));
    let long = format!("/{}", "k".repeat(100_000));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!("GET {long} HTTP/1.1\r\nHost: test\r\n\r\n"));
    assert!(matches!(
        client.try_reply(false).map(|reply| reply.status),
        Ok(414 | 431) | Err(_)
    ));
    // What looks the same to some and is not to others is told apart.
    let forms = [
        "/p?a=1&b=2",
        "/p?a=1;b=2",
        "/p?b=2&a=1",
        "/p?a=1&a=2",
        "/p?a=1%26b=2",
        "/%70?a=1&b=2",
        "/p;x?a=1&b=2",
    ];
    for form in forms {
        assert_eq!(ask(&proxy, "GET", form, "").text(), form);
    }
    for form in forms {
        eventually("it is stored", || told(form, "").contains("hit"));
        assert_eq!(ask(&proxy, "GET", form, "").text(), form);
    }
    let ranges = format!(
        "Range: bytes={}\r\n",
        (0..1000).map(|n| format!("{n}-{n}")).collect::<Vec<_>>().join(",")
    );
    let whole = ask(&proxy, "GET", "/p?a=1&b=2", &ranges);
    assert_eq!((whole.status, whole.text().as_str()), (200, "/p?a=1&b=2"));
    // Another host, another port: another key.
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET /p?a=1&b=2 HTTP/1.1\r\nHost: test:81\r\n\r\n");
    assert!(client.reply().header("cache-status").contains("uri-miss"));
}

#[test]
fn what_is_in_no_key_is_not_sent_on_and_what_is_told_apart_is() {
    let origin = Origin::start(|seen, stream| {
        answer(
            stream,
            200,
            "cache-control: max-age=60",
            &format!("{} {}", seen.path(), seen.header("x-tenant")),
        )
    });
    let proxy = Proxy::start(&config(
        &origin,
        "key = { headers = [\"X-Tenant\"], without_query = [\"utm_*\"] }",
    ));
    let first = ask(&proxy, "GET", "/a?utm_source=evil&b=1&utm%5Fx=2", "X-Tenant: one\r\n");
    assert_eq!(first.text(), "/a?b=1 one");
    eventually("it is stored", || {
        let other = ask(&proxy, "GET", "/a?b=1&utm_medium=mail", "X-Tenant: one\r\n");
        other.header("cache-status").contains("hit") && other.text() == "/a?b=1 one"
    });
    assert_eq!(ask(&proxy, "GET", "/a?b=1", "X-Tenant: two\r\n").text(), "/a?b=1 two");
    assert_eq!(ask(&proxy, "GET", "/c?utm_a", "").text(), "/c ");
    assert_eq!(purge(&proxy, "{\"url\": \"http://test/a?utm_z=1&b=1\"}")["entries"], 1);
    assert!(
        ask(&proxy, "GET", "/a?b=1", "X-Tenant: two\r\n")
            .header("cache-status")
            .contains("fwd=uri-miss")
    );
}

//! Clients bound to endpoints by a cookie: through reloads, restarts and several instances, and until their endpoint is
//! gone.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Barrier};

use serde_json::json;

use crate::harness::client::Reply;
use crate::harness::{Client, Origin, Proxy, eventually, one_upstream, reply};
use crate::http2::{whole, with_client};

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "fedcba9876543210fedcba9876543210";

fn config(sticky: &str, upstream: &str, endpoints: &[SocketAddr]) -> String {
    let settings = format!("balance = \"round_robin\"\nsticky = {{ cookie = \"at\", {sticky} }}\n{upstream}");
    one_upstream(&settings, endpoints)
}

fn plain(endpoints: &[SocketAddr]) -> String {
    config(&format!("secret = \"{SECRET}\""), "", endpoints)
}

/// A browser with one cookie.
#[derive(Clone, Default)]
struct Browser(Option<String>);

impl Browser {
    /// GET; a cookie in the answer is kept.
    #[track_caller]
    fn get(&mut self, proxy: &Proxy, path: &str) -> Reply {
        let cookie = self
            .0
            .as_ref()
            .map(|cookie| format!("Cookie: theme=dark; {cookie}; lang=en\r\n"));
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\n{}\r\n",
            cookie.unwrap_or_default()
        ));
        self.keep(client.reply())
    }

    fn keep(&mut self, reply: Reply) -> Reply {
        if let Some((pair, _)) = reply.header("set-cookie").split_once(';') {
            self.0 = Some(pair.to_owned());
        }
        reply
    }

    /// Who answers five requests.
    #[track_caller]
    fn five(&mut self, proxy: &Proxy) -> String {
        (0..5).map(|_| self.get(proxy, "/").text()).collect()
    }
}

fn results(proxy: &Proxy, result: &str) -> f64 {
    proxy.metric(&format!(
        "evenkeel_sticky_requests_total{{upstream=\"u\",result=\"{result}\"}}"
    ))
}

fn order(proxy: &Proxy, endpoint: SocketAddr, order: &str) {
    let mut client = Client::connect(proxy.addr("admin"));
    let path = format!("/api/v1/upstreams/u/endpoints/{endpoint}/{order}");
    client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
    assert_eq!(client.reply().status, 200);
}

#[test]
fn clients_stay_where_they_are() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&plain(&[a.addr, b.addr]));
    let (mut one, mut two) = (Browser::default(), Browser::default());
    let first = one.get(&proxy, "/");
    let (pair, attributes) = first.header("set-cookie").split_once("; ").unwrap();
    assert!(pair.starts_with("at=") && pair.len() == 59, "{pair}");
    assert_eq!(attributes, "Path=/; SameSite=Lax; HttpOnly");
    assert_eq!(first.header("cache-control"), "private");
    assert_eq!(first.text(), "a");
    assert_eq!(two.five(&proxy), "bbbbb");
    let again = one.get(&proxy, "/");
    assert_eq!((again.text(), again.header("set-cookie")), ("a".into(), ""));
    assert_eq!(one.five(&proxy), "aaaaa");
    // Nobody behind sees it.
    assert_eq!(a.last().header("cookie"), "theme=dark; lang=en");
    assert_eq!((results(&proxy, "new"), results(&proxy, "kept")), (2.0, 10.0));
    let status = &proxy.status()["upstreams"][0]["sticky"];
    assert_eq!(
        (&status["cookie"], &status["same_site"], &status["secrets"]),
        (&json!("at"), &json!("Lax"), &json!(1))
    );
    assert_eq!(
        (&status["requests"]["new"], &status["requests"]["kept"]),
        (&json!(2), &json!(10))
    );
    assert!(!status.to_string().contains(SECRET));
}

#[test]
fn reloads_restarts_and_other_instances_know_them() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let first = Proxy::start(&plain(&[a.addr, b.addr]));
    let mut browsers = [Browser::default(), Browser::default()];
    let names = browsers.each_mut().map(|browser| browser.get(&first, "/").text());
    assert_eq!(names, ["a", "b"]);
    first.reload(&plain(&[c.addr, b.addr, a.addr]));
    assert_eq!(
        browsers.each_mut().map(|browser| browser.five(&first)),
        ["aaaaa", "bbbbb"]
    );
    let second = Proxy::start(&plain(&[b.addr, c.addr, a.addr]));
    assert_eq!(
        browsers.each_mut().map(|browser| browser.five(&second)),
        ["aaaaa", "bbbbb"]
    );
    drop(first);
    drop(second);
    let restarted = Proxy::start(&plain(&[a.addr, b.addr, c.addr]));
    let answers = browsers.each_mut().map(|browser| browser.five(&restarted));
    assert_eq!(answers, ["aaaaa", "bbbbb"]);
    assert_eq!(results(&restarted, "kept"), 10.0);
}

#[test]
fn whose_endpoint_is_gone_gets_another_and_stays_there() {
    let (a, b, c) = (Origin::named("a"), Origin::named("b"), Origin::named("c"));
    let proxy = Proxy::start(&plain(&[a.addr, b.addr, c.addr]));
    let mut browser = Browser::default();
    assert_eq!(browser.five(&proxy), "aaaaa");
    proxy.reload(&plain(&[b.addr, c.addr]));
    let moved = browser.get(&proxy, "/");
    assert!(moved.header("set-cookie").starts_with("at=") && moved.text() != "a");
    assert_eq!(browser.five(&proxy), moved.text().repeat(5));
    assert_eq!(results(&proxy, "gone"), 1.0);
}

#[test]
fn draining_endpoints_keep_their_clients_and_take_no_new_ones() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&plain(&[a.addr, b.addr]));
    let mut browser = Browser::default();
    assert_eq!(browser.five(&proxy), "aaaaa");
    order(&proxy, a.addr, "drain");
    assert_eq!(browser.five(&proxy), "aaaaa");
    for _ in 0..4 {
        assert_eq!(Browser::default().five(&proxy), "bbbbb");
    }
    order(&proxy, b.addr, "drain");
    assert_eq!(browser.five(&proxy), "aaaaa", "nobody takes new ones");
    assert_eq!(Browser::default().get(&proxy, "/").status, 503);
    order(&proxy, b.addr, "undrain");
    order(&proxy, a.addr, "disable");
    assert_eq!(browser.five(&proxy), "bbbbb");
    assert_eq!(results(&proxy, "unavailable"), 1.0);
    order(&proxy, a.addr, "enable");
    assert_eq!(browser.five(&proxy), "bbbbb", "it is bound to the other one now");
}

#[test]
fn a_failing_endpoint_loses_its_client_to_whoever_answers() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&plain(&[a.addr, b.addr]));
    let mut browser = Browser::default();
    assert_eq!(browser.five(&proxy), "aaaaa");
    a.kill();
    assert_eq!(browser.five(&proxy), "bbbbb");
    assert_eq!((results(&proxy, "failed"), results(&proxy, "kept")), (1.0, 8.0));
}

#[test]
fn nobody_is_bound_to_a_failure() {
    let broken = Arc::new(AtomicBool::new(true));
    let is_broken = broken.clone();
    let a = Origin::start(move |_, stream| reply(stream, if is_broken.load(Relaxed) { 500 } else { 200 }, "a"));
    let proxy = Proxy::start(&plain(&[a.addr]));
    let mut browser = Browser::default();
    let failed = browser.get(&proxy, "/");
    assert_eq!((failed.status, failed.header("set-cookie")), (500, ""));
    broken.store(false, Relaxed);
    assert!(browser.get(&proxy, "/").header("set-cookie").starts_with("at="));
    broken.store(true, Relaxed);
    let kept = browser.0.clone();
    assert_eq!(browser.get(&proxy, "/").status, 500);
    assert_eq!(browser.0, kept);
}

#[test]
fn a_full_endpoint_sends_its_client_on() {
    let barrier = Arc::new(Barrier::new(2));
    let held = barrier.clone();
    let a = Origin::start(move |request, stream| {
        if request.path() == "/held" {
            held.wait();
        }
        reply(stream, 200, "a")
    });
    let b = Origin::named("b");
    let secret = format!("secret = \"{SECRET}\"");
    let proxy = Proxy::start(&config(&secret, "max_active_per_endpoint = 1", &[a.addr, b.addr]));
    let mut browser = Browser::default();
    assert_eq!(browser.five(&proxy), "aaaaa");
    let mut other = Client::connect(proxy.addr("web"));
    let cookie = browser.0.clone().unwrap();
    other.send(format!("GET /held HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
    eventually("it is held", || a.seen().iter().any(|seen| seen.path() == "/held"));
    assert_eq!(browser.five(&proxy), "bbbbb");
    assert_eq!(results(&proxy, "full"), 1.0);
    barrier.wait();
    assert_eq!(other.reply().text(), "a");
}

#[test]
fn cookies_of_others_count_for_nothing() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&plain(&[a.addr, b.addr]));
    let mut browser = Browser::default();
    browser.get(&proxy, "/");
    let good = browser.0.clone().unwrap();
    let last = if good.ends_with('0') { '1' } else { '0' };
    let changed = format!("{}{last}", &good[..good.len() - 1]);
    for bad in [
        changed,
        "at=".into(),
        "at=127.0.0.1:80".into(),
        good.to_uppercase().replace("AT=", "at="),
    ] {
        let mut forger = Browser(Some(bad.clone()));
        let reply = forger.get(&proxy, "/");
        assert_eq!(reply.status, 200);
        assert_ne!(forger.0, Some(bad), "a new one");
    }
    assert_eq!(results(&proxy, "invalid"), 4.0);
    let stranger = Proxy::start(&plain(&[a.addr, b.addr]).replace(SECRET, OTHER));
    browser.get(&stranger, "/");
    assert_eq!(results(&stranger, "invalid"), 1.0);
}

#[test]
fn secrets_are_replaced_by_reloads_and_from_a_file() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let endpoints = [a.addr, b.addr];
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secrets");
    std::fs::write(&file, format!("{SECRET}\n")).unwrap();
    let text = config("secret_file = \"{DIR}/secrets\"", "", &endpoints);
    let proxy = Proxy::start_in(dir, &text);
    let mut browser = Browser::default();
    assert_eq!(browser.five(&proxy), "aaaaa");
    let old = browser.0.clone();
    std::fs::write(&file, format!("{OTHER}\n\n{SECRET}\n")).unwrap();
    proxy.reload(&text);
    assert_eq!(browser.five(&proxy), "aaaaa");
    assert_ne!(browser.0, old, "signed with the new one");
    proxy.reload(&config(&format!("secret = [\"{OTHER}\"]"), "", &endpoints));
    assert_eq!(browser.five(&proxy), "aaaaa");
    let mut late = Browser(old);
    late.get(&proxy, "/");
    assert_eq!(results(&proxy, "invalid"), 1.0);
    // Taken out of the file, the feature is gone: the cookie is somebody else's.
    std::fs::write(&file, "short\n").unwrap();
    let errors = proxy.reload_rejected(&text);
    assert!(errors.contains("line 1 of"), "{errors}");
    proxy.reload(&plain(&endpoints).replace("sticky =", "# sticky ="));
    browser.get(&proxy, "/");
    let seen = [a.seen(), b.seen()].concat();
    assert!(seen.iter().any(|seen| seen.header("cookie").contains("at=")));
}

#[test]
fn a_split_is_decided_by_the_cookie() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let sticky = format!("sticky = {{ cookie = \"at\", secret = \"{SECRET}\" }}");
    let text = |weights: [u32; 2]| {
        format!(
            r#"
            [admin]
            bind = "127.0.0.1:0"
            [listeners.web]
            bind = "127.0.0.1:0"
            [[routes]]
            split = [{{ upstream = "u", weight = {} }}, {{ upstream = "next", weight = {} }}]
            [upstreams.u]
            endpoints = ["{}"]
            {sticky}
            [upstreams.next]
            endpoints = ["{}"]
            {sticky}
            "#,
            weights[0], weights[1], a.addr, b.addr
        )
    };
    let proxy = Proxy::start(&text([0, 1]));
    let mut early = Browser::default();
    assert_eq!(early.five(&proxy), "bbbbb");
    // Nobody new gets the next version any more; whoever has it keeps it.
    proxy.reload(&text([1, 0]));
    assert_eq!(Browser::default().five(&proxy), "aaaaa");
    assert_eq!(early.five(&proxy), "bbbbb");
}

#[test]
fn no_cookie_is_stored_with_a_response() {
    let a = Origin::start(|request, stream| {
        use std::io::Write;
        let field = match request.path() {
            "/page" => "cache-control: public, max-age=60\r\nvary: cookie",
            _ => "cache-control: no-store",
        };
        stream.write_all(format!("HTTP/1.1 200 OK\r\n{field}\r\ncontent-length: 1\r\n\r\na").as_bytes())?;
        Ok(true)
    });
    let secret = format!("secret = \"{SECRET}\"");
    let text = config(&secret, "", &[a.addr]).replace("upstream = \"u\"", "upstream = \"u\"\ncache = \"c\"");
    let proxy = Proxy::start(&format!("{text}\n[caches.c]\nmemory = \"1MiB\""));
    let (mut one, mut two) = (Browser::default(), Browser::default());
    assert_eq!(one.get(&proxy, "/page").header("set-cookie"), "");
    let own = one.get(&proxy, "/own");
    assert!(own.header("set-cookie").starts_with("at="));
    assert_eq!(own.header("cache-control"), "no-store");
    let cookie = "Cookie: theme=dark; lang=en\r\n";
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!("GET /page HTTP/1.1\r\nHost: a\r\n{cookie}\r\n"));
    let fresh = client.reply();
    assert!(
        fresh.header("cache-status").contains("fwd="),
        "another cookie, another response"
    );
    // With the binding cookie beside them they are the same two cookies.
    let hit = one.get(&proxy, "/page");
    assert!(
        hit.header("cache-status").contains("; hit"),
        "{}",
        hit.header("cache-status")
    );
    assert_eq!(hit.header("set-cookie"), "");
    let hit = two.get(&proxy, "/page");
    assert!(
        hit.header("cache-status").contains("; hit"),
        "{}",
        hit.header("cache-status")
    );
    assert_eq!(
        (hit.header("set-cookie"), hit.header("cache-control")),
        ("", "public, max-age=60")
    );
    assert_eq!(a.seen().len(), 3);
}

#[test]
fn streams_of_http2_are_bound_one_by_one() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let proxy = Proxy::start(&plain(&[a.addr, b.addr]));
    with_client(proxy.addr("web"), |client| async move {
        let mut cookies: Vec<String> = Vec::new();
        for round in 0..3 {
            for (n, name) in ["a", "b"].into_iter().enumerate() {
                let mut request = http::Request::builder().uri("http://a/");
                if let Some(cookie) = cookies.get(n) {
                    // In lines of their own, as browsers send them over HTTP/2.
                    request = request.header("cookie", "theme=dark").header("cookie", cookie);
                }
                let mut client = client.clone().ready().await.unwrap();
                let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
                let response = response.await.unwrap();
                let cookie = response.headers().get("set-cookie").cloned();
                assert_eq!(cookie.is_some(), round == 0);
                cookies.extend(cookie.map(|c| c.to_str().unwrap().split(';').next().unwrap().to_owned()));
                assert_eq!(whole(response).await.1, name.as_bytes());
            }
        }
    });
    assert_eq!(a.last().header("cookie"), "theme=dark");
}

#[test]
fn websockets_and_https_have_them_too() {
    let a = Origin::start(|_, stream| {
        use std::io::Write;
        stream.write_all(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nhi")?;
        Ok(false)
    });
    let text = plain(&[a.addr]).replace(
        "bind = \"127.0.0.1:0\"\n        [[",
        "bind = \"127.0.0.1:0\"\n trusted_proxies = [\"127.0.0.1\"]\n [[",
    );
    let proxy = Proxy::start(&text);
    let mut client = Client::connect(proxy.addr("web"));
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nX-Forwarded-Proto: https\r\n\r\n",
    );
    let head = client.head();
    assert_eq!((head.status, head.header("cache-control")), (101, ""));
    let cookie = head.header("set-cookie");
    assert!(cookie.starts_with("at=") && cookie.ends_with("; Secure"), "{cookie}");
    assert_eq!(client.take(2).unwrap(), b"hi");
}

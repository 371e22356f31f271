//! Origins and clients that mean harm to a cache: what they can make it keep is bounded, and nobody gets what is another's.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

use crate::cache::{answer, ask, config, proxy};
use crate::harness::client::Reply;
use crate::harness::origin::Seen;
use crate::harness::{Client, Origin, Proxy, eventually, get};

const FRESH: &str = "cache-control: max-age=60";

/// Asks until it is answered from the store.
#[track_caller]
fn hit(proxy: &Proxy, path: &str) -> Reply {
    eventually("it is stored", || {
        get(proxy.addr("web"), path).header("cache-status").contains("; hit")
    });
    get(proxy.addr("web"), path)
}

/// An origin that answers with everything it got: whatever is in no key is somebody's poison.
fn echoing() -> Origin {
    Origin::start(|seen, stream| {
        let body = String::from_utf8_lossy(&seen.body);
        answer(stream, 200, FRESH, &format!("{} {:?} {body}", seen.line, seen.headers))
    })
}

#[test]
fn what_clients_say_besides_the_url_poisons_nothing() {
    let origin = echoing();
    let proxy = proxy(&origin);
    let fields = [
        "X-Forwarded-Host: evil",
        "X-Forwarded-For: evil",
        "X-Forwarded-Proto: evil",
        "X-Forwarded-Port: evil",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-Server: evil",
        "X-Forwarded-Ssl: evil",
        "X-Forwarded-Protocol: evil",
        "X-Forwarded-Prefix: evil",
        "X-Forwarded-Path: evil",
        "X-Forwarded-Uri: evil",
        "X-Real-IP: evil",
        "X-Scheme: evil",
        "X-Url-Scheme: evil",
        "X-Host: evil",
        "X-Original-URL: /evil",
        "X-Original-URI: /evil",
        "X-Original-Host: evil",
        "X-Original-Path: /evil",
        "X-Rewrite-URL: /evil",
        "X-Rewrite-URI: /evil",
        "X-Override-URL: /evil",
        "X-HTTP-Host-Override: evil",
        "X-HTTP-Path-Override: /evil",
        "X-HTTP-Method-Override: EVIL",
        "X-HTTP-Method: EVIL",
        "X-Method-Override: EVIL",
        "X-Invoke-Path: /evil",
        "X-Middleware-Subrequest: evil",
        "Forwarded: for=evil;host=evil",
        "If-None-Match: \"evil\"",
        "If-Modified-Since: evil",
        "If-Match: \"evil\"",
        "If-Unmodified-Since: evil",
        "If-Range: \"evil\"",
        "Connection: evil, host, cookie",
    ];
    for (n, field) in fields.iter().enumerate() {
        let path = format!("/{n}");
        ask(&proxy, "GET", &path, &format!("{field}\r\n"));
        let victim = hit(&proxy, &path).text().to_ascii_lowercase();
        assert!(!victim.contains("evil"), "{field}: {victim}");
    }
}

#[test]
fn a_get_with_a_body_and_a_method_in_disguise_are_not_stored() {
    let origin = echoing();
    let proxy = proxy(&origin);
    for n in 0..2 {
        let fat = ask(&proxy, "GET", "/fat", &format!("Content-Length: 4\r\n\r\nevi{n}"));
        assert!(fat.text().ends_with(&format!("evi{n}")), "{fat:?}");
        assert!(
            fat.header("cache-status").ends_with("fwd=bypass; detail=request-body"),
            "{fat:?}"
        );
    }
    assert!(!get(proxy.addr("web"), "/fat").text().contains("evi"));
    // HEAD, and a method nobody knows, leave nothing that GET would get.
    for method in ["HEAD", "EVIL", "OPTIONS", "PROPFIND"] {
        ask(&proxy, method, "/method", "");
        assert!(get(proxy.addr("web"), "/method").text().starts_with("GET "), "{method}");
    }
}

/// A path as it may be written, the route it goes by beside it.
fn uncached(origin: &Origin) -> Proxy {
    let text = config(origin, "").replace("cache = \"pages\"", "");
    Proxy::start(&text.replace("[caches.pages]\n        memory = \"16MiB\"", ""))
}

#[test]
fn a_path_that_can_be_read_in_two_ways_is_answered_as_it_was_sent_on() {
    let origin = Origin::start(|seen, stream| answer(stream, 200, FRESH, seen.path()));
    let (cached, plain) = (proxy(&origin), uncached(&origin));
    let paths = [
        "/a/b",
        "/a//b",
        "//a/b",
        "/a/./b",
        "/a/c/../b",
        "/a/%2e%2e/b",
        "/a/%2E/b",
        "/a%2fb",
        "/a%2Fb",
        "/a/b/",
        "/a/b;x",
        "/a;x/b",
        "/a/b%3bx",
        "/a/b%3Fx",
        "/a/b?",
        "/a/b?x",
        "/a/b%23",
        "/a\\b",
        "/a%5cb",
        "/A/b",
        "/%61/b",
        "/a/b%00",
        "/a/b%20",
        "/a/b%0d%0a",
        "/a/b%09",
        "/a/b.",
        "/a/b..;/c",
        "/a/%c0%ae%c0%ae/b",
        "/a/b%",
        "/a/b%zz",
        "/a/b?a=1&a=2",
        "/a/b?a=2&a=1",
        "/a/b?a=1;b=2",
        "/a/b?a=1%26b=2",
        "/a/b?a=1&b=2",
        "/a/b?a[]=1",
        "/a/b?a%5b%5d=1",
        "/a/b?%61=1",
        "/a/b?a=%31",
        "/a/b?A=1",
        "http://test/a/b",
        "http://test/a/c/../b",
    ];
    let fetch = |proxy: &Proxy, path: &str| {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        let reply = client.reply();
        (reply.status, reply.text())
    };
    for path in paths {
        // Twice, so that the second may come from the store.
        for _ in 0..2 {
            let (expected, found) = (fetch(&plain, path), fetch(&cached, path));
            match expected.0 {
                200 => assert_eq!(found, expected, "{path}"),
                refused => assert_eq!(found.0, refused, "{path}"),
            }
        }
    }
}

#[test]
fn parameters_that_are_in_no_key_carry_nothing_past_it() {
    let origin = Origin::start(|seen, stream| answer(stream, 200, FRESH, seen.path()));
    let without = Proxy::start(&config(&origin, "key = { without_query = [\"utm_*\"] }"));
    let only = Proxy::start(&config(&origin, "key = { query = [\"q\"] }"));
    for (asked, sent_without, sent_only) in [
        ("/p?q=1&utm_source=1;q=evil", "/p?q=1", "/p?q=1"),
        ("/p?utm_source=1;q=evil&q=1", "/p?q=1", "/p?q=1"),
        ("/p?q=1&utm%5Fsource=evil", "/p?q=1", "/p?q=1"),
        ("/p?q=1&%75tm_source=evil", "/p?q=1", "/p?q=1"),
        ("/p?q=1&utm_source=a%26q=evil", "/p?q=1", "/p?q=1"),
        ("/p?q=1&utm_source=a&q=2", "/p?q=1&q=2", "/p?q=1&q=2"),
        ("/p?q=1;utm_source=a", "/p?q=1;utm_source=a", "/p?q=1;utm_source=a"),
        ("/p?q=1&Q=2", "/p?q=1&Q=2", "/p?q=1"),
        ("/p?utm_source=evil", "/p", "/p"),
        ("/p?other=evil", "/p?other=evil", "/p"),
    ] {
        for (proxy, sent) in [(&without, sent_without), (&only, sent_only)] {
            for _ in 0..2 {
                assert_eq!(get(proxy.addr("web"), asked).text(), sent, "{asked}");
            }
            let victim = get(proxy.addr("web"), sent).text();
            assert_eq!(victim, sent, "after {asked}");
        }
    }
}

#[test]
fn a_page_that_looks_like_a_file_is_still_its_users_alone() {
    let origin = Origin::start(|seen, stream| {
        let user = seen.header("cookie").to_owned();
        // What frameworks say of a page for somebody who has logged in; that it ends in `.css` means nothing to them.
        let fields = match seen.path().split('/').nth(1).unwrap_or_default() {
            "private" => "cache-control: private, max-age=60",
            "no-store" => "cache-control: no-store",
            "set" => "cache-control: public, max-age=60\r\nset-cookie: session=1",
            "vary" => "cache-control: max-age=60\r\nvary: cookie",
            "star" => "cache-control: max-age=60\r\nvary: *",
            "expired" => "expires: 0\r\npragma: no-cache",
            _ => "content-type: text/html",
        };
        answer(stream, 200, fields, &format!("page of [{user}]"))
    });
    let proxy = proxy(&origin);
    for kind in ["private", "no-store", "set", "vary", "star", "expired", "silent"] {
        for end in [
            "account/x.css",
            "account.css",
            "account;x.css",
            "account%2fx.js",
            "account%00.png",
            "account?x.css",
        ] {
            let path = format!("/{kind}/{end}");
            let victim = ask(&proxy, "GET", &path, "Cookie: alice\r\n");
            if victim.status != 200 {
                continue;
            }
            assert_eq!(victim.text(), "page of [alice]", "{path}");
            for (cookie, seen) in [("", "page of []"), ("Cookie: eve\r\n", "page of [eve]")] {
                assert_eq!(ask(&proxy, "GET", &path, cookie).text(), seen, "{path}");
            }
        }
    }
}

/// Answers when it is told to; with who asked.
fn held_origin(fields: &'static str) -> (Origin, std::sync::mpsc::Sender<()>) {
    let (go, wait) = channel::<()>();
    let (wait, first) = (Mutex::new(wait), AtomicBool::new(true));
    let origin = Origin::start(move |seen, stream| {
        if first.swap(false, Relaxed) {
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        answer(
            stream,
            200,
            fields,
            &format!("[{}{}]", seen.header("authorization"), seen.header("cookie")),
        )
    });
    (origin, go)
}

#[test]
fn who_waits_for_anothers_answer_does_not_get_what_is_the_others_alone() {
    for (fields, first, second) in [
        ("cache-control: max-age=60", "Authorization: alice\r\n", ""),
        (
            "cache-control: max-age=60",
            "Authorization: alice\r\n",
            "Authorization: eve\r\n",
        ),
        (
            "cache-control: private, max-age=60",
            "Cookie: alice\r\n",
            "Cookie: eve\r\n",
        ),
        (
            "cache-control: max-age=60\r\nset-cookie: id=alice",
            "Cookie: alice\r\n",
            "Cookie: eve\r\n",
        ),
        (
            "cache-control: max-age=60\r\nvary: cookie",
            "Cookie: alice\r\n",
            "Cookie: eve\r\n",
        ),
        ("cache-control: max-age=60\r\nvary: *", "Cookie: alice\r\n", ""),
        ("cache-control: no-store", "Cookie: alice\r\n", ""),
        (
            "cache-control: max-age=60",
            "Cookie: alice\r\nCache-Control: no-store\r\n",
            "",
        ),
    ] {
        let (origin, go) = held_origin(fields);
        let proxy = proxy(&origin);
        let begin = |fields: &str| {
            let mut client = Client::connect(proxy.addr("web"));
            client.send(format!("GET /x HTTP/1.1\r\nHost: test\r\n{fields}\r\n"));
            client
        };
        let mut alice = begin(first);
        eventually("the first is on its way", || origin.seen().len() == 1);
        let mut others: Vec<_> = (0..10).map(|_| begin(second)).collect();
        go.send(()).unwrap();
        assert_eq!(alice.reply().text(), "[alice]");
        for other in &mut others {
            let text = other.reply().text();
            assert!(!text.contains("alice"), "{fields} to {second:?}: {text}");
        }
    }
}

#[test]
fn cookies_and_authorized_answers_are_shared_only_where_standard_and_settings_both_say_so() {
    let origin = Origin::start(|seen, stream| {
        let fields = match seen.path() {
            "/cookie" => "cache-control: max-age=60\r\nset-cookie: id=1",
            "/private" => "cache-control: private\r\nset-cookie: id=1",
            "/public" => "cache-control: public, max-age=60",
            _ => FRESH,
        };
        answer(stream, 200, fields, seen.header("authorization"))
    });
    for (settings, cookies_shared) in [("", false), ("set_cookie = true", true)] {
        let proxy = Proxy::start(&config(&origin, settings));
        for (path, fields, shared) in [
            ("/cookie", "", cookies_shared),
            ("/private", "", false),
            ("/plain", "Authorization: a\r\n", false),
            ("/public", "Authorization: a\r\n", true),
        ] {
            ask(&proxy, "GET", path, fields);
            if shared {
                hit(&proxy, path);
                continue;
            }
            for _ in 0..3 {
                let told = ask(&proxy, "GET", path, fields).header("cache-status").to_owned();
                assert!(
                    !told.contains("; hit") && !told.contains("stored"),
                    "{path} {settings}: {told}"
                );
            }
        }
    }
}

#[test]
fn a_length_that_lies_ends_its_own_response_and_leaks_into_no_other() {
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/short" => {
            stream.write_all(b"HTTP/1.1 200 X\r\ncache-control: max-age=60\r\ncontent-length: 100\r\n\r\nhalf")?;
            Ok(false)
        }
        // More than it says: the rest looks like a response to whoever asks next.
        "/long" => {
            let split = "HTTP/1.1 200 X\r\ncache-control: max-age=6000\r\ncontent-length: 4\r\n\r\nevil";
            write!(
                stream,
                "HTTP/1.1 200 X\r\n{FRESH}\r\ncontent-length: 4\r\n\r\nfine{split}"
            )?;
            Ok(true)
        }
        "/both" => {
            write!(
                stream,
                "HTTP/1.1 200 X\r\n{FRESH}\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nevil"
            )?;
            Ok(true)
        }
        "/two" => {
            write!(
                stream,
                "HTTP/1.1 200 X\r\n{FRESH}\r\ncontent-length: 4\r\ncontent-length: 8\r\n\r\nfineevil"
            )?;
            Ok(true)
        }
        path => answer(stream, 200, FRESH, path),
    });
    let proxy = proxy(&origin);
    for _ in 0..3 {
        let mut client = Client::connect(proxy.addr("web"));
        client.send("GET /short HTTP/1.1\r\nHost: test\r\n\r\n");
        assert!(client.try_reply(false).is_err(), "half of it is not the whole");
    }
    for n in 0..5 {
        assert_eq!(get(proxy.addr("web"), "/long").text(), "fine");
        let path = format!("/next/{n}");
        assert_eq!(get(proxy.addr("web"), &path).text(), path);
    }
    for path in ["/both", "/two"] {
        for _ in 0..2 {
            let mut client = Client::connect(proxy.addr("web"));
            client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
            // Refused, or broken off: never what is smuggled.
            if let Ok(reply) = client.try_reply(false) {
                assert!(
                    reply.status == 502 && !reply.text().contains("evil"),
                    "{path}: {reply:?}"
                );
            }
        }
        assert_eq!(get(proxy.addr("web"), "/after").text(), "/after");
    }
}

#[test]
fn a_head_that_is_split_or_broken_is_stored_for_nobody() {
    let heads: [(&str, &str); 6] = [
        ("/cr", "x-a: b\rset-cookie: evil=1"),
        ("/lf", "x-a: b\nset-cookie: evil=1"),
        ("/nul", "x-a: b\0set-cookie: evil=1"),
        ("/fold", "x-a: b\r\n set-cookie: evil=1"),
        ("/name", "x a: b"),
        ("/vary", "vary: a\rb"),
    ];
    let origin = Origin::start(move |seen, stream| {
        let head = heads
            .iter()
            .find(|(path, _)| *path == seen.path())
            .map_or("x-a: b", |(_, head)| head);
        answer(stream, 200, &format!("{FRESH}\r\n{head}"), "body")
    });
    let proxy = proxy(&origin);
    for (path, _) in heads {
        let asked = origin.seen().len();
        for _ in 0..2 {
            let reply = get(proxy.addr("web"), path);
            // A line end alone may be read as one, then it is a field like any other, and a cookie is not shared.
            assert!(
                reply.status == 502 || !reply.header("cache-status").contains("stored"),
                "{path}: {reply:?}"
            );
        }
        assert!(origin.seen().len() >= asked + 2, "{path}: it was stored");
    }
}

/// A chunked body of `parts` parts, each `size` bytes; endless for `None`.
fn chunks(stream: &mut TcpStream, parts: Option<usize>, size: usize) -> std::io::Result<bool> {
    write!(
        stream,
        "HTTP/1.1 200 X\r\n{FRESH}\r\ntransfer-encoding: chunked\r\n\r\n"
    )?;
    let chunk = format!("{size:x}\r\n{}\r\n", "x".repeat(size));
    let many = chunk.repeat((1 << 16) / chunk.len() + 1);
    let per_write = many.len() / chunk.len();
    let mut left = parts.unwrap_or(usize::MAX) / per_write;
    while left > 0 {
        stream.write_all(many.as_bytes())?;
        left -= 1;
    }
    stream.write_all(b"0\r\n\r\n")?;
    Ok(true)
}

#[test]
fn bodies_without_end_and_heads_without_measure_take_a_bounded_part_of_the_memory() {
    let origin = Origin::start(
        |seen: &Seen, stream| match seen.path().split('?').next().unwrap_or_default() {
            "/endless" => chunks(stream, None, 0x1000),
            // Each byte for itself, which costs many times its size to hold.
            "/crumbs" => chunks(stream, Some(900_000), 1),
            "/fields" => {
                let fields: String = (0..5000).map(|n| format!("\r\nx-{n}: {n}")).collect();
                answer(stream, 200, &format!("{FRESH}{fields}"), "ok")
            }
            "/field" => answer(stream, 200, &format!("{FRESH}\r\nx: {}", "y".repeat(1 << 20)), "ok"),
            "/head" => answer(stream, 200, &format!("{FRESH}\r\nx: {}", "y".repeat(17 << 10)), "ok"),
            "/vary" => {
                let names: Vec<_> = (0..5000).map(|n| format!("x-{n}")).collect();
                answer(stream, 200, &format!("{FRESH}\r\nvary: {}", names.join(",")), "ok")
            }
            "/groups" => {
                let path = seen.path();
                let names: Vec<_> = (0..100).map(|n| format!("{path}-{n}-{}", "g".repeat(200))).collect();
                answer(
                    stream,
                    200,
                    &format!("{FRESH}\r\nsurrogate-key: {}", names.join(" ")),
                    "ok",
                )
            }
            path => answer(stream, 200, FRESH, path),
        },
    );
    let proxy = proxy(&origin);
    get(proxy.addr("web"), "/warm");
    let before = proxy.memory_kib();
    let mut endless: Vec<_> = (0..5)
        .map(|n| {
            let mut client = Client::connect(proxy.addr("web"));
            client.send(format!("GET /endless?{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
            client
        })
        .collect();
    for client in &mut endless {
        assert_eq!(client.head().status, 200);
        client.take(1 << 20).unwrap();
    }
    for n in 0..4 {
        assert!(get(proxy.addr("web"), &format!("/crumbs?{n}")).body.len() > 800_000);
    }
    for path in ["/fields", "/field", "/head", "/vary"] {
        for n in 0..20 {
            let mut client = Client::connect(proxy.addr("web"));
            client.send(format!("GET {path}?{n} HTTP/1.1\r\nHost: test\r\n\r\n"));
            if let Ok(reply) = client.try_reply(false) {
                assert!(
                    !reply.header("cache-status").contains("stored"),
                    "{path}: {}",
                    reply.header("cache-status")
                );
            }
        }
    }
    for n in 0..1500 {
        assert_eq!(get(proxy.addr("web"), &format!("/groups?{n}")).status, 200);
    }
    let bytes = proxy.metric("evenkeel_cache_bytes{");
    assert!(bytes <= (17 << 20) as f64, "{bytes} of 16 MiB, and one for groups");
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 64 << 10, "{grown} KiB for a cache of 16 MiB");
    drop(endless);
    eventually("the endless ones are let go", || {
        proxy.metric("evenkeel_cache_fills_active{") == 0.0
    });
}

#[test]
fn long_urls_and_many_variants_cost_what_they_may() {
    let origin = Origin::start(|seen, stream| {
        let vary = if seen.path() == "/many" { "\r\nvary: x-v" } else { "" };
        answer(stream, 200, &format!("{FRESH}{vary}"), &"b".repeat(1000))
    });
    let proxy = proxy(&origin);
    let long = format!("/{}", "k".repeat(8185));
    for _ in 0..2 {
        let told = get(proxy.addr("web"), &long).header("cache-status").to_owned();
        assert_eq!(told, "evenkeel; fwd=bypass; detail=key-too-long");
    }
    get(proxy.addr("web"), "/wanted");
    hit(&proxy, "/wanted");
    let mut client = Client::connect(proxy.addr("web"));
    for n in 0..3000 {
        client.send(format!(
            "GET /many HTTP/1.1\r\nHost: test\r\nX-V: {n}-{}\r\n\r\n",
            "v".repeat(3000)
        ));
        assert_eq!(client.reply().status, 200);
        if n % 100 == 0 {
            get(proxy.addr("web"), "/wanted");
        }
    }
    client.send(format!(
        "GET /many HTTP/1.1\r\nHost: test\r\nX-V: {}\r\n\r\n",
        "v".repeat(5000)
    ));
    assert!(client.reply().header("cache-status").contains("vary-too-many"));
    let bytes = proxy.metric("evenkeel_cache_bytes{");
    assert!(bytes <= (16 << 20) as f64, "{bytes} of 16 MiB");
    assert!(
        get(proxy.addr("web"), "/wanted")
            .header("cache-status")
            .contains("; hit"),
        "what is asked for stays"
    );
}

#[test]
fn ranges_by_the_thousand_and_over_each_other_send_no_byte_twice() {
    let origin = Origin::start(|_, stream| answer(stream, 200, FRESH, &"0123456789".repeat(1000)));
    let proxy = proxy(&origin);
    get(proxy.addr("web"), "/r");
    hit(&proxy, "/r");
    let range = |list: String| ask(&proxy, "GET", "/r", &format!("Range: bytes={list}\r\n"));
    let thousand: Vec<_> = (0..1000).map(|n| format!("{n}-{n}")).collect();
    let all: Vec<_> = (0..30).map(|_| "0-".to_owned()).collect();
    let nested: Vec<_> = (0..30).map(|n| format!("{n}-{}", 9999 - n)).collect();
    for list in [
        thousand.join(","),
        all.join(","),
        nested.join(","),
        "0-,-10000".to_owned(),
    ] {
        let reply = range(list);
        assert!(reply.body.len() <= 10_000 + 200, "{} bytes", reply.body.len());
    }
    for (list, status) in [
        ("9-1", 200),
        ("a-b", 200),
        ("-0", 416),
        ("99999999999999999999-", 416),
        ("0-0,0-0", 206),
    ] {
        assert_eq!(range(list.to_owned()).status, status, "{list}");
    }
}

#[test]
fn errors_that_one_provokes_are_not_served_to_others() {
    let origin = Origin::start(
        |seen, stream| match seen.headers.iter().any(|(name, _)| name == "x-oversized") {
            true => answer(stream, 400, "content-type: text/plain", "too much"),
            false => answer(stream, 200, FRESH, "page"),
        },
    );
    let proxy = proxy(&origin);
    for n in 0..5 {
        let path = format!("/{n}");
        let attack = ask(&proxy, "GET", &path, &format!("X-Oversized: {}\r\n", "o".repeat(8000)));
        assert_eq!(attack.status, 400);
        let victim = get(proxy.addr("web"), &path);
        assert_eq!((victim.status, victim.text().as_str()), (200, "page"));
    }
}

#[test]
fn a_name_for_the_host_that_is_read_in_two_ways_reaches_no_other_hosts_entry() {
    let origin = Origin::start(|seen, stream| answer(stream, 200, FRESH, seen.header("host")));
    let proxy = proxy(&origin);
    let hosts = [
        "shop",
        "SHOP",
        "shop:80",
        "shop:8080",
        "shop.",
        "shop%00",
        "shop@evil",
        "evil#shop",
        "shop,evil",
        "[::1]",
        "evil/shop",
        "",
    ];
    for host in hosts {
        for _ in 0..2 {
            let mut client = Client::connect(proxy.addr("web"));
            client.send(format!("GET /h HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            let reply = client.reply();
            if reply.status == 200 {
                // Case and the port that goes without saying make no difference.
                let same = |text: &str| text.to_ascii_lowercase().trim_end_matches(":80").to_owned();
                assert_eq!(same(&reply.text()), same(host));
            }
        }
    }
    for two in ["Host: shop\r\nHost: evil", "Host: shop\r\n Host: evil", "Host : evil"] {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!("GET /h HTTP/1.1\r\n{two}\r\n\r\n"));
        assert_eq!(client.reply().status, 400, "{two}");
    }
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET http://evil/h HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert!(!client.reply().text().contains("shop"));
    assert_eq!(get(proxy.addr("web"), "/h").text(), "test");
}

//! Every reason there is in Cache-Status, brought about and told.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::channel;

use evenkeel::cache::reason::Reason;

use crate::cache::{answer, ask, config, purge};
use crate::harness::origin::Seen;
use crate::harness::{Client, Origin, Proxy, eventually, get};

const FRESH: &str = "cache-control: max-age=600\r\netag: \"e\"";

/// What the origin says under a path of this name.
fn says(path: &str) -> (u16, String) {
    let fields = match path.trim_start_matches('/') {
        "no-store" => "cache-control: no-store".to_owned(),
        "private" => "cache-control: private".to_owned(),
        "set-cookie" => format!("{FRESH}\r\nset-cookie: a=b"),
        "status-not-understood" => "cache-control: must-understand, max-age=60".to_owned(),
        "no-lifetime" => "x: y".to_owned(),
        "vary-star" => format!("{FRESH}\r\nvary: *"),
        "vary-too-many" => format!(
            "{FRESH}\r\nvary: {}",
            (0..20).map(|n| format!("x{n},")).collect::<String>()
        ),
        "head-too-large" => format!("{FRESH}\r\nx: {}", "y".repeat(17 << 10)),
        "part-unusable" => format!("{FRESH}\r\ncontent-range: bytes 0-99/100"),
        "no-cache" => "cache-control: no-cache\r\netag: \"e\"".to_owned(),
        "stale" | "max-stale" | "stale-if-error" => "cache-control: max-age=0\r\netag: \"e\"".to_owned(),
        "stale-while-revalidate" => "cache-control: max-age=0, stale-while-revalidate=600".to_owned(),
        _ => FRESH.to_owned(),
    };
    let status = match path.trim_start_matches('/') {
        "status" => 416,
        "status-not-understood" => 599,
        "no-explicit-freshness" => 302,
        "part-unusable" => 206,
        _ => 200,
    };
    let fields = if status == 302 {
        "location: /".to_owned()
    } else {
        fields
    };
    (status, fields)
}

struct World {
    proxy: Proxy,
    told: BTreeSet<String>,
}

impl World {
    /// Asks, and expects this detail.
    #[track_caller]
    fn expect(&mut self, detail: &str, method: &str, path: &str, fields: &str) {
        let told = ask(&self.proxy, method, path, fields).header("cache-status").to_owned();
        self.note(detail, &told);
    }

    #[track_caller]
    fn note(&mut self, detail: &str, told: &str) {
        assert!(told.ends_with(&format!("; detail={detail}")), "{detail}: {told}");
        self.told.insert(detail.to_owned());
    }

    #[track_caller]
    fn stored(&self, path: &str) {
        get(self.proxy.addr("web"), path);
        eventually("it is stored", || {
            let seen = ask(&self.proxy, "GET", path, "Cache-Control: only-if-cached\r\n");
            !seen.header("cache-status").contains("fwd=uri-miss")
        });
    }
}

#[test]
fn every_reason_is_told_when_it_is_one() {
    let (go, wait) = channel::<()>();
    let (wait, failing) = (Mutex::new(wait), Arc::new(AtomicBool::new(false)));
    let (fails, turned) = (failing.clone(), AtomicBool::new(false));
    let origin = Origin::start(move |seen: &Seen, stream: &mut TcpStream| {
        let path = seen.path().to_owned();
        if fails.load(Relaxed) {
            return answer(stream, 503, "x: y", "down");
        }
        if path.starts_with("/held") {
            let size = 60_000;
            write!(
                stream,
                "HTTP/1.1 200 X\r\n{FRESH}\r\ncontent-length: {size}\r\n\r\n{}",
                "h".repeat(size - 1)
            )?;
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
            stream.write_all(b"h")?;
            return Ok(true);
        }
        if path == "/purged" {
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        if !seen.header("if-none-match").is_empty() {
            write!(stream, "HTTP/1.1 304 X\r\n{}\r\n\r\n", says(&path).1)?;
            return Ok(true);
        }
        let (status, mut fields) = says(&path);
        if path == "/hit-for-miss" && !turned.swap(true, Relaxed) {
            fields = "cache-control: private".to_owned();
        }
        let body = match path.as_str() {
            "/too-large" => "l".repeat(70_000),
            "/no-room" => "r".repeat(60_000),
            _ => "body".to_owned(),
        };
        answer(stream, status, &fields, &body)
    });
    let settings =
        "by_content = [\"query\", \"graphql\"]\nmax_content = \"1KiB\"\nrefresh_ahead = { last = 1.0, hits = 2 }";
    // 128 KiB for what is being fetched, 64 KiB for one of them.
    let config = config(&origin, settings).replace("16MiB", "1MiB");
    let mut world = World {
        proxy: Proxy::start(&config),
        told: BTreeSet::new(),
    };

    // The request.
    world.expect("method", "OPTIONS", "/method", "");
    world.expect("request-body", "GET", "/body", "Content-Length: 1\r\n\r\nx");
    world.expect("request-no-store", "GET", "/plain", "Cache-Control: no-store\r\n");
    world.expect(
        "request-override-field",
        "GET",
        "/plain",
        "X-HTTP-Method-Override: PUT\r\n",
    );
    world.expect("key-too-long", "GET", &format!("/{}", "k".repeat(8185)), "");
    let json = |body: &str| {
        format!(
            "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    world.expect("content-type", "QUERY", "/q", "Content-Length: 1\r\n\r\nx");
    world.expect("content-too-large", "POST", "/q", &json(&"x".repeat(2000)));
    world.expect("not-a-query", "POST", "/q", &json("{\"query\": \"mutation { a }\"}"));

    // The response.
    for detail in [
        "no-store",
        "private",
        "set-cookie",
        "status",
        "status-not-understood",
        "no-explicit-freshness",
        "no-lifetime",
        "vary-star",
        "vary-too-many",
        "head-too-large",
        "too-large",
        "part-unusable",
    ] {
        world.expect(detail, "GET", &format!("/{detail}"), "");
    }
    world.expect("authorization", "GET", "/authorization", "Authorization: a\r\n");
    // It was not to be stored a moment ago.
    world.expect("private", "GET", "/hit-for-miss", "");
    world.expect("hit-for-miss", "GET", "/hit-for-miss", "");

    // What is stored.
    for path in [
        "/stored",
        "/stale",
        "/no-cache",
        "/max-stale",
        "/stale-if-error",
        "/stale-while-revalidate",
        "/hot",
    ] {
        world.stored(path);
    }
    world.expect("stale", "GET", "/stale", "");
    world.expect("no-cache", "GET", "/no-cache", "");
    world.expect("request-no-cache", "GET", "/stored", "Cache-Control: no-cache\r\n");
    world.expect("request-max-age", "GET", "/stored", "Cache-Control: max-age=0\r\n");
    world.expect(
        "request-min-fresh",
        "GET",
        "/stored",
        "Cache-Control: min-fresh=10000\r\n",
    );
    world.expect("max-stale", "GET", "/max-stale", "Cache-Control: max-stale\r\n");
    world.expect("stale-while-revalidate", "GET", "/stale-while-revalidate", "");
    world.expect("only-if-cached", "GET", "/none", "Cache-Control: only-if-cached\r\n");
    eventually("it is hot", || {
        let told = get(world.proxy.addr("web"), "/hot").header("cache-status").to_owned();
        let renews = told.ends_with("; detail=refresh-ahead");
        if renews {
            world.told.insert("refresh-ahead".to_owned());
        }
        renews
    });

    // What happens meanwhile.
    let addr = world.proxy.addr("web");
    let begin = |path: &str| {
        let mut client = Client::connect(addr);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
        client
    };
    let mut late = begin("/purged");
    eventually("it is on its way", || {
        origin.seen().iter().any(|seen| seen.path() == "/purged")
    });
    purge(&world.proxy, "{\"url\": \"http://test/purged\"}");
    go.send(()).unwrap();
    let reply = late.reply();
    assert_eq!(reply.text(), "body");
    world.note("purged", reply.header("cache-status"));
    let mut held: Vec<_> = (0..2).map(|n| begin(&format!("/held/{n}"))).collect();
    for client in &mut held {
        assert_eq!(client.head().status, 200);
        client.take(59_000).unwrap();
    }
    world.expect("no-room", "GET", "/no-room", "");
    go.send(()).unwrap();
    go.send(()).unwrap();
    failing.store(true, Relaxed);
    world.expect("stale-if-error", "GET", "/stale-if-error", "");

    let there_are: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label().to_owned()).collect();
    assert_eq!(world.told, there_are);
}

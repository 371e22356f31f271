//! HTTP/1.1 from client to endpoint and back.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::harness::{Client, Origin, Proxy, get, origin, reply};

/// One listener, one route, one endpoint.
fn proxy(origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "origin"
        [upstreams.origin]
        endpoints = ["{}"]
        "#,
        origin.addr
    ))
}

#[test]
fn connections_are_kept_on_both_sides_and_requests_may_be_pipelined() {
    let origin = Origin::start(|seen, stream| reply(stream, 200, seen.path()));
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client
        .send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n");
    let texts = [(); 3].map(|()| client.reply().text());
    assert_eq!(texts, ["/1", "/2", "/3"]);
    assert_eq!(client.get("/4").text(), "/4");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn responses_without_a_body_have_none() {
    let origin = Origin::start(|seen, stream| {
        let head = match seen.path() {
            "/head" => "200 OK\r\ncontent-length: 1000",
            "/204" => "204 No Content",
            "/304" => "304 Not Modified\r\ncontent-length: 1000\r\netag: \"x\"",
            _ => "200 OK\r\ncontent-length: 2\r\n\r\nok",
        };
        let end = if head.ends_with("ok") { "" } else { "\r\n\r\n" };
        stream.write_all(format!("HTTP/1.1 {head}{end}").as_bytes())?;
        Ok(true)
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply_to_head().header("content-length"), "1000");
    let none = client.get("/204");
    assert_eq!(
        (
            none.status,
            none.header("content-length"),
            none.header("transfer-encoding")
        ),
        (204, "", "")
    );
    let same = client.get("/304");
    assert_eq!((same.status, same.header("etag")), (304, "\"x\""));
    assert_eq!(client.get("/after").text(), "ok");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn old_clients_get_what_they_understand() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n")?;
        Ok(true)
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.0\r\n\r\n");
    let all = String::from_utf8(client.rest().unwrap()).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap();
    assert!(!head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert_eq!(body, "abcdef");

    let origin = Origin::named("ok");
    let proxy = self::proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n");
    let kept = client.reply();
    assert_eq!((kept.text().as_str(), kept.header("connection")), ("ok", "keep-alive"));
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(client.reply().header("connection"), "close");
    client.expect_end();
}

#[test]
fn bodies_and_trailers_pass_in_both_directions() {
    let origin = Origin::start(|seen, stream| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let framing = format!("{}|{}", seen.header("content-length"), seen.header("transfer-encoding"));
        let (n, sum) = (body.len(), seen.header("x-sum"));
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\nX-Framing: {framing}\r\nX-Got: {sum}\r\n\r\n\
             {n:x}\r\n{body}\r\n0\r\nX-End: yes\r\n\r\n"
        )?;
        Ok(true)
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    let known = client.reply();
    assert_eq!((known.text().as_str(), known.header("x-framing")), ("hello", "5|"));
    assert_eq!(known.trailers, [("x-end".to_owned(), "yes".to_owned())]);
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n");
    client.send("3\r\nhel\r\n2;note=1\r\nlo\r\n0\r\nX-Sum: 5\r\n\r\n");
    let chunked = client.reply();
    assert_eq!(
        (chunked.text().as_str(), chunked.header("x-framing")),
        ("hello", "|chunked")
    );
    assert_eq!(chunked.header("x-got"), "5");
}

#[test]
fn informational_responses_pass_and_only_so_many() {
    let origin = Origin::start(|seen, stream| {
        let n = if seen.path() == "/flood" { 1000 } else { 2 };
        for _ in 0..n {
            stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n")?;
        }
        reply(stream, 200, "ok")
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    let hint = client.get("/");
    assert_eq!((hint.status, hint.header("link")), (103, "</a.css>"));
    assert_eq!(client.reply().status, 103);
    assert_eq!(client.reply().text(), "ok");
    let mut flood = client.get("/flood");
    while flood.status == 103 {
        flood = client.reply();
    }
    assert_eq!(flood.status, 502);
    // HTTP/1.0 knows no 1xx.
    let mut old = Client::connect(proxy.addr("web"));
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.reply().status, 200);
}

#[test]
fn expect_lets_the_endpoint_decide_before_the_body_is_sent() {
    let origin = Origin::raw(|stream, _| {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(seen) = origin::read_head(&mut reader)? {
            assert_eq!(seen.header("expect"), "100-continue");
            if seen.path() == "/no" {
                reply(stream, 403, "no")?;
                continue;
            }
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            let mut body = [0; 5];
            reader.read_exact(&mut body)?;
            reply(stream, 200, &String::from_utf8_lossy(&body))?;
        }
        Ok(())
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("POST /yes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.reply().status, 100);
    client.send("hello");
    assert_eq!(client.reply().text(), "hello");
    client.send("POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let refused = client.reply();
    assert_eq!((refused.status, refused.text().as_str()), (403, "no"));
}

#[test]
fn an_early_answer_reaches_a_client_that_still_sends() {
    let origin = Origin::raw(|stream, _| {
        let mut reader = BufReader::new(stream.try_clone()?);
        origin::read_head(&mut reader)?;
        stream.write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")?;
        // What is sent on is not read: only its end is waited for.
        stream.shutdown(Shutdown::Write)?;
        std::io::copy(&mut reader, &mut std::io::sink())?;
        Ok(())
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
    client.send(vec![b'x'; 100_000]);
    let reply = client.reply();
    assert_eq!(
        (reply.status, reply.text().as_str(), reply.header("connection")),
        (413, "big", "close")
    );
}

#[test]
fn a_response_flows_while_its_request_is_still_sent() {
    let origin = Origin::raw(|stream, _| {
        let mut reader = BufReader::new(stream.try_clone()?);
        origin::read_head(&mut reader)?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        let mut line = String::new();
        // Echoes chunk by chunk, as they come.
        while reader.read_line(&mut line)? > 0 {
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut data = vec![0; size + 2];
            reader.read_exact(&mut data)?;
            write!(stream, "{size:x}\r\n")?;
            stream.write_all(&data)?;
            if size == 0 {
                break;
            }
            line.clear();
        }
        Ok(())
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(client.head().status, 200);
    for word in ["one", "two", "three"] {
        let chunk = format!("{:x}\r\n{word}\r\n", word.len());
        client.send(&chunk);
        assert_eq!(client.take(chunk.len()).unwrap(), chunk.as_bytes());
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.take(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn events_flow_at_once() {
    let (next, events) = channel::<&'static str>();
    let events = Mutex::new(events);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        let events = events.lock().unwrap();
        while let Ok(event) = events.recv() {
            stream.write_all(event.as_bytes())?;
        }
        Ok(false)
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.head().header("content-type"), "text/event-stream");
    for event in ["data: 1\n\n", "data: 2\n\n"] {
        next.send(event).unwrap();
        let chunk = format!("{:x}\r\n{event}\r\n", event.len());
        assert_eq!(client.take(chunk.len()).unwrap(), chunk.as_bytes());
    }
    drop(next);
    assert_eq!(client.take(5).unwrap(), b"0\r\n\r\n");
}

#[test]
fn upgrades_become_tunnels_and_may_be_refused() {
    let origin = Origin::raw(|stream, seen| {
        let mut reader = BufReader::new(stream.try_clone()?);
        while let Some(request) = origin::read_head(&mut reader)? {
            seen.lock().unwrap().push(request.clone());
            if request.path() == "/refused" {
                reply(stream, 426, "no")?;
                continue;
            }
            // The first bytes of the tunnel may come with the 101.
            stream.write_all(
                b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Key: k\r\n\r\nhi:",
            )?;
            std::io::copy(&mut reader, stream)?;
            stream.write_all(b"bye")?;
            return Ok(());
        }
        Ok(())
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    let ask = |path| format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    client.send(ask("/refused"));
    assert_eq!(client.reply().status, 426);
    client.send(ask("/ws"));
    let switched = client.head();
    assert_eq!(
        (switched.status, switched.header("upgrade"), switched.header("x-key")),
        (101, "websocket", "k")
    );
    assert_eq!(switched.header("connection").to_lowercase(), "upgrade");
    assert_eq!(client.take(3).unwrap(), b"hi:");
    client.send("ping");
    assert_eq!(client.take(4).unwrap(), b"ping");
    // One side may end while the other still talks.
    client.stream().shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest().unwrap(), b"bye");
    assert_eq!(origin.last().header("upgrade"), "websocket");
}

/// An endpoint that agreed would speak HTTP/2 with the client behind the proxy's back.
#[test]
fn nobody_gets_around_the_routes_by_h2c() {
    let origin = Origin::named("plain");
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    for protocols in ["h2c", "websocket, H2C"] {
        client.send(format!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocols}\r\n\
             HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
        ));
        assert_eq!(client.reply().text(), "plain");
        for name in ["upgrade", "connection", "http2-settings"] {
            assert_eq!(origin.last().header(name), "", "{name}");
        }
    }
}

#[test]
fn hop_by_hop_fields_stay_on_their_hop() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nConnection: x-private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nX-Public: 1\r\n\
              Proxy-Connection: close\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n",
        )?;
        Ok(true)
    });
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-secret, keep-alive\r\nX-Secret: 1\r\nKeep-Alive: 5\r\nX-Open: 1\r\n\
         Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic x\r\nTE: trailers, gzip\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\n\r\n",
    );
    let reply = client.reply();
    for name in ["connection", "x-private", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(reply.header(name), "", "{name}");
    }
    assert_eq!(reply.header("x-public"), "1");
    let seen = origin.last();
    for name in ["connection", "x-secret", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(seen.header(name), "", "{name}");
    }
    assert_eq!(seen.header("x-open"), "1");
}

#[test]
fn nobody_can_name_fields_that_the_endpoint_relies_on_as_hop_by_hop() {
    let origin = Origin::named("ok");
    let proxy = proxy(&origin);
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: host, x-forwarded-for, content-length\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    let seen = origin.last();
    assert_eq!(
        (seen.header("host"), seen.header("x-forwarded-for")),
        ("a", "127.0.0.1")
    );
}

#[test]
fn forwarding_fields_are_ours_unless_the_client_is_a_trusted_proxy() {
    let origin = Origin::named("ok");
    let config = |trusted: &str| {
        format!(
            r#"
            [listeners.web]
            bind = "127.0.0.1:0"
            trusted_proxies = [{trusted}]
            [[routes]]
            upstream = "origin"
            [upstreams.origin]
            endpoints = ["{}"]
            "#,
            origin.addr
        )
    };
    let forged = "GET / HTTP/1.1\r\nHost: shop.example\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
                  X-Forwarded-Host: evil.example\r\nForwarded: for=10.0.0.1\r\nVia: 1.1 front\r\n\r\n";
    let proxy = Proxy::start(&config(""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(forged);
    assert_eq!(client.reply().status, 200);
    let seen = origin.last();
    assert_eq!(seen.header("x-forwarded-for"), "127.0.0.1");
    assert_eq!(seen.header("x-forwarded-proto"), "http");
    assert_eq!(seen.header("x-forwarded-host"), "shop.example");
    assert!(
        seen.header("forwarded").starts_with("for=127.0.0.1;"),
        "{:?}",
        seen.header("forwarded")
    );

    let proxy = Proxy::start(&config("\"127.0.0.0/8\""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(forged);
    assert_eq!(client.reply().status, 200);
    let seen = origin.last();
    let all = |name: &str| {
        let values = seen.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str());
        values.collect::<Vec<_>>().join(", ")
    };
    assert_eq!(all("x-forwarded-for"), "10.0.0.1, 127.0.0.1");
    assert_eq!(all("x-forwarded-proto"), "https");
    assert!(
        all("forwarded").starts_with("for=10.0.0.1, for=127.0.0.1"),
        "{}",
        all("forwarded")
    );
    assert_eq!(all("via"), "1.1 front, 1.1 evenkeel");
}

#[test]
fn routes_decide() {
    let (shop, any) = (Origin::named("shop"), Origin::named("any"));
    let proxy = Proxy::start(&format!(
        r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        name = "canary"
        hosts = ["shop.example", "*.shop.example"]
        path = "/api"
        methods = ["GET"]
        headers = {{ x-canary = "yes" }}
        query = {{ v = "2" }}
        cookies = {{ who = "me" }}
        sources = ["127.0.0.0/8"]
        upstream = "shop"
        [[routes]]
        path_exact = "/old"
        redirect = {{ to = "/new{{query}}", status = 301 }}
        [[routes]]
        path_exact = "/robots.txt"
        respond = {{ status = 200, body = "none\n", headers = {{ content-type = "text/plain" }} }}
        [[routes]]
        path_regex = "/[0-9]+"
        upstream = "any"
        [upstreams.shop]
        endpoints = ["{}"]
        [upstreams.any]
        endpoints = ["{}"]
        "#,
        shop.addr, any.addr
    ));
    let ask = |bytes: &str| {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(bytes);
        client.reply()
    };
    let canary = |host: &str, path: &str, canary: &str| {
        ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nX-Canary: {canary}\r\nCookie: a=b; who=me\r\n\r\n"
        ))
        .status
    };
    assert_eq!(canary("shop.example", "/api?v=2", "yes"), 200);
    assert_eq!(canary("Eu.Shop.Example:8080", "/api/x?v=2&w", "yes"), 200);
    assert_eq!(canary("shop.example", "/x/../api?v=2", "yes"), 200);
    assert_eq!(canary("shop.example", "/apix?v=2", "yes"), 404);
    assert_eq!(canary("shop.example", "/api?v=1", "yes"), 404);
    assert_eq!(canary("shop.example", "/api?v=2", "no"), 404);
    assert_eq!(canary("other.example", "/api?v=2", "yes"), 404);
    assert_eq!(shop.seen().len(), 3);
    let moved = ask("GET /old?a=b HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!((moved.status, moved.header("location")), (301, "/new?a=b"));
    let robots = ask("GET /robots.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(
        (robots.text().as_str(), robots.header("content-type")),
        ("none\n", "text/plain")
    );
    assert_eq!(ask("GET /42 HTTP/1.1\r\nHost: a\r\n\r\n").text(), "any");
    assert_eq!(ask("GET /42a HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
}

#[test]
fn a_route_has_a_deadline_for_all_attempts() {
    let origin = Origin::raw(|stream, _| {
        // Reads for ever, answers never.
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let proxy = Proxy::start(&format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "origin"
        timeout = "200ms"
        [upstreams.origin]
        endpoints = ["{}"]
        "#,
        origin.addr
    ));
    assert_eq!(get(proxy.addr("web"), "/").status, 504);
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

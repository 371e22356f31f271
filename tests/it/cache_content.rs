//! Requests that are stored by what they carry, with the real binary: QUERY, and GraphQL's POST.

use crate::cache::{answer, config, purge};
use crate::harness::client::Reply;
use crate::harness::{Client, Origin, Proxy, eventually};

/// An origin that answers with what it was sent.
fn echo(fields: &'static str) -> Origin {
    Origin::start(move |seen, stream| {
        let body = format!("{} {}", seen.line, String::from_utf8_lossy(&seen.body));
        answer(stream, 200, fields, &body)
    })
}

fn send(proxy: &Proxy, line: &str, fields: &str, body: &str) -> Reply {
    let mut client = Client::connect(proxy.addr("web"));
    let length = body.len();
    client.send(format!(
        "{line} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    ));
    client.reply()
}

fn is_hit(reply: &Reply) -> bool {
    reply.header("cache-status").contains("; hit;")
}

fn detail(reply: &Reply) -> String {
    let told = reply.header("cache-status");
    told.split("detail=").nth(1).unwrap_or_default().to_owned()
}

const JSON: &str = "Content-Type: application/json\r\n";

#[test]
fn a_query_is_stored_by_its_content() {
    let origin = echo("cache-control: max-age=60\r\netag: \"e\"");
    let proxy = Proxy::start(&config(&origin, "by_content = [\"query\"]\nmax_content = \"1KiB\""));
    let ask = |body: &str| send(&proxy, "QUERY /s", JSON, body);
    for body in ["a", "b", ""] {
        assert_eq!(ask(body).text(), format!("QUERY /s HTTP/1.1 {body}"));
        eventually("it is stored", || is_hit(&ask(body)));
        assert_eq!(ask(body).text(), format!("QUERY /s HTTP/1.1 {body}"));
    }
    let chunked = "QUERY /s HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n";
    let mut client = Client::connect(proxy.addr("web"));
    client.send(chunked);
    assert!(is_hit(&client.reply()), "the same content in another framing");
    let same = send(&proxy, "QUERY /s", &format!("{JSON}If-None-Match: \"e\"\r\n"), "a");
    assert_eq!(same.status, 304);
    assert!(!is_hit(&send(&proxy, "QUERY /s", "Content-Type: text/plain\r\n", "a")));
    assert_eq!(detail(&send(&proxy, "QUERY /s", "", "a")), "content-type");
    let forged = send(&proxy, "QUERY /s", &format!("{JSON}Evenkeel-Key-Content: x\r\n"), "c");
    assert_eq!(forged.text(), "QUERY /s HTTP/1.1 c");
    // More than is looked into goes on whole.
    let large = "x".repeat(100_000);
    let reply = ask(&large);
    assert_eq!(
        (reply.text(), detail(&reply)),
        (format!("QUERY /s HTTP/1.1 {large}"), "content-too-large".into())
    );
    client.send("QUERY /s HTTP/1.1\r\nHost: test\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n");
    for _ in 0..10 {
        client.send(format!("400\r\n{}\r\n", "y".repeat(1024)));
    }
    client.send("0\r\n\r\n");
    let reply = client.reply();
    assert_eq!((reply.body.len(), detail(&reply)), (10_258, "content-too-large".into()));
    assert!(
        origin
            .seen()
            .iter()
            .all(|seen| seen.header("evenkeel-key-content").is_empty())
    );
    // What changes the URL, and who purges it, means what was asked of it too.
    assert!(is_hit(&ask("a")));
    send(&proxy, "PUT /s", "", "new");
    assert!(!is_hit(&ask("a")));
    eventually("it is stored", || is_hit(&ask("a")));
    assert_eq!(purge(&proxy, "{\"url\": \"http://test/s\"}")["entries"], 1);
    assert!(!is_hit(&ask("a")));
    // POST is none of it.
    assert_eq!(
        detail(&send(&proxy, "POST /s", JSON, "{\"query\": \"{ a }\"}")),
        "method"
    );
}

#[test]
fn a_post_is_answered_from_the_store_only_when_it_is_a_query() {
    let origin = echo("cache-control: max-age=60");
    let extra = "by_content = [\"graphql\"]\noperations = [\"Known\"]";
    let proxy = Proxy::start(&config(&origin, extra));
    let post = |body: &str| send(&proxy, "POST /graphql", JSON, body);
    let known = r#"{"query": "query Known { a }", "variables": {"v": 1}}"#;
    let made_up = r#"{"query": "query MadeUp { a }"}"#;
    for body in [known, made_up] {
        assert_eq!(post(body).text(), format!("POST /graphql HTTP/1.1 {body}"));
        eventually("it is stored", || is_hit(&post(body)));
        assert_eq!(post(body).text(), format!("POST /graphql HTTP/1.1 {body}"));
    }
    for (body, why) in [
        (r#"{"query": "mutation { a }"}"#, "not-a-query"),
        (r#"[{"query": "{ a }"}]"#, "not-a-query"),
        (
            r#"{"extensions": {"persistedQuery": {"sha256Hash": "x"}}}"#,
            "not-a-query",
        ),
        ("", "not-a-query"),
    ] {
        for _ in 0..2 {
            let reply = post(body);
            assert_eq!(
                (reply.text(), detail(&reply)),
                (format!("POST /graphql HTTP/1.1 {body}"), why.into())
            );
        }
    }
    let form = send(
        &proxy,
        "POST /graphql",
        "Content-Type: application/x-www-form-urlencoded\r\n",
        "query={a}",
    );
    assert_eq!(detail(&form), "content-type");
    let conditional = send(&proxy, "POST /graphql", &format!("{JSON}If-None-Match: *\r\n"), known);
    assert_eq!(
        (conditional.status, detail(&conditional).as_str()),
        (200, "request-override-field")
    );
    let authorized = send(&proxy, "POST /graphql", &format!("{JSON}Authorization: a\r\n"), known);
    assert!(!is_hit(&authorized));
    assert!(is_hit(&post(known)), "mutations leave what is not named in a group");
    let counted = |operation: &str, result: &str| {
        proxy.metric(&format!(
            "evenkeel_cache_operations_total{{cache=\"pages\",operation=\"{operation}\",result=\"{result}\"}}"
        ))
    };
    // The second is the one with Authorization.
    assert_eq!(counted("Known", "miss"), 2.0);
    assert!(counted("Known", "hit") >= 2.0 && counted("other", "hit") >= 2.0);
    eventually("the log tells", || {
        let log = std::fs::read_to_string(proxy.dir.path().join("access.log")).unwrap();
        log.contains("\"cache\":\"hit\",\"operation\":\"MadeUp\"")
    });
    assert_eq!(purge(&proxy, "{\"url\": \"http://test/graphql\"}")["entries"], 1);
    assert!(!is_hit(&post(known)));
}

#[test]
fn the_same_query_at_once_is_asked_once_and_others_do_not_wait_for_it() {
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let origin = Origin::start(move |seen, stream| {
        if seen.body.ends_with(b"slow") {
            wait.lock().unwrap().recv().map_err(std::io::Error::other)?;
        }
        answer(
            stream,
            200,
            "cache-control: max-age=60",
            &String::from_utf8_lossy(&seen.body),
        )
    });
    let proxy = Proxy::start(&config(&origin, "by_content = [\"query\"]"));
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("QUERY /q HTTP/1.1\r\nHost: test\r\nContent-Type: a/b\r\nContent-Length: 4\r\n\r\nslow");
    }
    eventually("the origin is asked", || !origin.seen().is_empty());
    assert_eq!(send(&proxy, "QUERY /q", "Content-Type: a/b\r\n", "fast").text(), "fast");
    go.send(()).unwrap();
    for client in &mut clients {
        assert_eq!(client.reply().text(), "slow");
    }
    assert_eq!(origin.seen().len(), 2);
}

//! Requests that others might read differently: raw bytes, their class, and what each mode does with them.

use serde_json::Value;

use crate::harness::origin::Seen;
use crate::harness::{Client, Origin, Proxy, eventually, reply};

const MODES: [&str; 3] = ["strict", "defensive", "monitor"];

/// What a mode does.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Does {
    /// Passes; the connection goes on.
    Pass,
    /// Passes, and both connections close after the response.
    Last,
    /// Refuses with this status and closes; the endpoint never gets a whole request.
    Refuse(u16),
}
use Does::{Last, Pass, Refuse};

struct Row {
    bytes: &'static str,
    class: &'static str,
    reason: &'static str,
    /// In the order of `MODES`.
    does: [Does; 3],
    /// What the endpoint gets of it, where it gets it: first line, fields but the proxy's own, body.
    sent: &'static str,
}

const fn row(
    bytes: &'static str,
    class: &'static str,
    reason: &'static str,
    does: [Does; 3],
    sent: &'static str,
) -> Row {
    Row {
        bytes,
        class,
        reason,
        does,
        sent,
    }
}

const ALL: [Does; 3] = [Pass, Pass, Pass];
const AMBIGUOUS: [Does; 3] = [Refuse(400), Last, Last];
const READABLE: [Does; 3] = [Refuse(400), Refuse(400), Last];
const NONE: [Does; 3] = [Refuse(400); 3];

#[rustfmt::skip]
const ROWS: &[Row] = &[
    row("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "compliant", "", ALL, "GET / HTTP/1.1|host: a||"),
    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "compliant", "", ALL,
        "POST / HTTP/1.1|host: a|content-length: 3|abc"),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n", "compliant", "", ALL,
        "POST / HTTP/1.1|host: a|transfer-encoding: chunked|abc"),

    row("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "acceptable", "empty_line", ALL, "GET / HTTP/1.1|host: a||"),
    row("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "acceptable", "zero_length_get", ALL,
        "GET / HTTP/1.1|host: a|content-length: 0|"),
    row("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", "acceptable", "get_with_content", ALL,
        "GET / HTTP/1.1|host: a|content-length: 3|abc"),
    row("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "acceptable",
        "get_with_content", ALL, "GET / HTTP/1.1|host: a|transfer-encoding: chunked|abc"),
    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3, 3\r\n\r\nabc", "acceptable",
        "repeated_length", ALL, "POST / HTTP/1.1|host: a|content-length: 3|abc"),

    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "ambiguous", "both_framings", AMBIGUOUS, "POST / HTTP/1.1|host: a|transfer-encoding: chunked|abc"),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "ambiguous", "both_framings", AMBIGUOUS, "POST / HTTP/1.1|host: a|transfer-encoding: chunked|abc"),
    row("GET / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\n \t2\r\n\r\n", "ambiguous", "folded_field", AMBIGUOUS,
        "GET / HTTP/1.1|host: a|x-a: 1 2|"),
    row("GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 1\r\nX-A: 1\r\n\r\n", "ambiguous", "underscore", AMBIGUOUS,
        "GET / HTTP/1.1|host: a|x-a: 1|"),
    row("GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n", "ambiguous", "host_mismatch", AMBIGUOUS,
        "GET /x HTTP/1.1|host: b||"),
    row("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\nX_A: 1\r\n\r\n", "ambiguous", "underscore",
        AMBIGUOUS, "GET / HTTP/1.1|host: a||"),

    row("GET / HTTP/1.1\r\nHost: a\r\nHost: A\r\n\r\n", "severe", "repeated_host", READABLE, "GET / HTTP/1.1|host: a||"),
    row("GET / HTTP/1.1\r\nHost: a\r\nX-A : 1\r\n\r\n", "severe", "blank_before_colon", READABLE,
        "GET / HTTP/1.1|host: a|x-a: 1|"),

    row("POST / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\nabc", "severe", "disguised_field", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", "severe", "disguised_field", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", "severe", "misplaced_fold", NONE, ""),
    row("GET / HTTP/1.1\r\n X: y\r\nHost: a\r\n\r\n", "severe", "misplaced_fold", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n \r\nGET /s HTTP/1.1\r\n\r\n", "severe", "misplaced_fold", NONE, ""),
    row("GET / HTTP/1.1\nHost: a\n\n", "severe", "line_break", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n", "severe", "line_break", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nX: a\nContent-Length: 3\r\n\r\n", "severe", "line_break", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nX y: 1\r\n\r\n", "severe", "field_name", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nGET /s HTTP/1.1\r\n\r\n", "severe", "field_name", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", "severe", "field_value", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "severe", "field_value", NONE, ""),
    row("GET / a HTTP/1.1\r\nHost: a\r\n\r\n", "severe", "start_line", NONE, ""),
    row("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "severe", "start_line", NONE, ""),
    row("GET / HTTP/1.2\r\nHost: a\r\n\r\n", "severe", "version", [Refuse(505); 3], ""),
    row("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", "severe", "target", NONE, ""),
    row("GET / HTTP/1.1\r\n\r\n", "severe", "host", NONE, ""),
    row("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "severe", "host", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", "severe", "content_length", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", "severe", "content_length", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "severe",
        "content_length", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "severe", "transfer_encoding", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", "severe", "transfer_encoding",
        [Refuse(501); 3], ""),
    row("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "severe", "chunked_in_http10", NONE, ""),
    // The gravest counts, also where one that would pass is found first.
    row("POST / HTTP/1.0\r\nHost: a\r\nX_A: 1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "",
        "", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", "severe", "chunk", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "severe", "chunk", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n", "severe", "trailer", NONE, ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", "", "", NONE, ""),

    // Refused for what they want, not for how they are written: in no class.
    row("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", "", "", [Refuse(405); 3], ""),
    row("POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n", "", "", [Refuse(417); 3], ""),
];

/// One listener for each mode; access log as JSON.
fn proxy(endpoint: std::net::SocketAddr) -> Proxy {
    let listeners = MODES.map(|mode| format!("[listeners.{mode}]\nbind = \"127.0.0.1:0\"\ndesync = \"{mode}\"\n"));
    Proxy::start(&format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [access_log]
        format = "json"
        path = "{{DIR}}/access.log"
        {}
        [[routes]]
        upstream = "origin"
        [upstreams.origin]
        endpoints = ["{endpoint}"]
        retries = 0
        "#,
        listeners.concat()
    ))
}

const CLASSES: [&str; 4] = ["compliant", "acceptable", "ambiguous", "severe"];

fn counted(proxy: &Proxy, listener: &str) -> [u64; 4] {
    CLASSES.map(|class| {
        let series = format!("evenkeel_desync_requests_total{{listener=\"{listener}\",class=\"{class}\"}}");
        proxy.metric(&series) as u64
    })
}

/// The same as the status tells it.
fn told(proxy: &Proxy, listener: &str) -> [u64; 4] {
    let status = proxy.status();
    let listeners = status["listeners"].as_array().unwrap();
    let this = listeners.iter().find(|l| l["name"] == listener).unwrap();
    assert_eq!(this["desync"]["mode"], listener);
    CLASSES.map(|class| this["desync"]["requests"][class].as_u64().unwrap())
}

/// First line, fields but the proxy's own, body.
fn shown(seen: &Seen) -> String {
    let own = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
        "via",
    ];
    let mut fields = seen
        .headers
        .iter()
        .filter(|(name, _)| !own.contains(&&**name) && name != "connection");
    let next = |field: Option<&(String, String)>| field.map_or(String::new(), |(n, v)| format!("{n}: {v}"));
    let (host, other) = (next(fields.next()), next(fields.next()));
    assert!(fields.next().is_none(), "{seen:?}");
    format!("{}|{host}|{other}|{}", seen.line, String::from_utf8_lossy(&seen.body))
}

/// Sends one row and says what became of it.
fn observe(proxy: &Proxy, origin: &Origin, listener: &str, row: &Row) -> Result<(), String> {
    let before = origin.seen().len();
    let mut client = Client::connect(proxy.addr(listener));
    client.send(row.bytes);
    let reply = client.try_reply(false).map_err(|e| e.to_string())?;
    let mode = MODES.iter().position(|mode| *mode == listener).unwrap();
    if let Refuse(status) = row.does[mode] {
        if (reply.status, reply.header("connection")) != (status, "close") {
            return Err(format!("{} {}", reply.status, reply.header("connection")));
        }
        client.expect_end();
        return match origin.seen().len() - before {
            0 => Ok(()),
            _ => Err(format!("the endpoint got {:?}", origin.last())),
        };
    }
    if reply.status != 200 || origin.seen().len() != before + 1 {
        return Err(format!(
            "{}, the endpoint got {:?}",
            reply.status,
            &origin.seen()[before..]
        ));
    }
    let seen = origin.last();
    if shown(&seen) != row.sent {
        return Err(format!("sent on as {}", shown(&seen)));
    }
    let (closes, told) = (
        reply.header("connection") == "close",
        seen.header("connection") == "close",
    );
    if (closes, told) != (row.does[mode] == Last, row.does[mode] == Last) {
        return Err(format!("closes: {closes}, the endpoint is told so: {told}"));
    }
    if closes {
        client.expect_end();
    } else if client.get("/again").status != 200 {
        return Err("the connection does not go on".into());
    }
    Ok(())
}

#[test]
fn each_mode_does_with_each_deviation_what_the_table_says() {
    let origin = Origin::start(|_, stream| reply(stream, 200, "ok"));
    let proxy = proxy(origin.addr);
    let mut wrong = Vec::new();
    let mut logged = Vec::new();
    for (mode, listener) in MODES.into_iter().enumerate() {
        let mut expected = [0; 4];
        for row in ROWS {
            let shown = row.bytes.escape_debug();
            if let Err(e) = observe(&proxy, &origin, listener, row) {
                wrong.push(format!("{listener} {shown}: {e}"));
            }
            let class = CLASSES.iter().position(|class| *class == row.class);
            if let Some(class) = class {
                expected[class] += 1;
                logged.push((listener, row));
            }
            // The request behind it.
            expected[0] += u64::from(row.does[mode] == Pass);
        }
        let uncounted = ROWS.iter().filter(|row| row.class.is_empty()).count() as u64;
        eventually("all are counted", || {
            let counted = counted(&proxy, listener);
            // What has no class here is counted as ambiguous or severe by what the mode finds first, or not at all.
            (0..2).all(|class| counted[class] == expected[class])
                && (2..4).all(|class| (expected[class]..=expected[class] + uncounted).contains(&counted[class]))
        });
        assert_eq!(told(&proxy, listener), counted(&proxy, listener));
    }
    assert!(ROWS.len() >= 45);
    assert_eq!(wrong, [""; 0]);
    // The log says the same, and nothing of what is compliant. It is written by a thread of its own, which may be behind.
    let path = proxy.dir.path().join("access.log");
    let written = || -> Vec<Value> {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()
    };
    let missing = || {
        let lines = written();
        let stands = |listener: &str, row: &Row| {
            lines.iter().any(|line| {
                let same = |key: &str, value: &str| match value {
                    "" | "compliant" => line.get(key).is_none(),
                    _ => line[key] == value,
                };
                line["listener"] == listener && same("desync", row.class) && same("desync_reason", row.reason)
            })
        };
        let missing = logged.iter().filter(|(listener, row)| !stands(listener, row));
        missing
            .map(|(listener, row)| format!("{listener} {} {}", row.class, row.reason))
            .collect::<Vec<_>>()
    };
    eventually("every deviation stands in the log", || missing().is_empty());
    let lines = written();
    let strange = lines
        .iter()
        .filter(|line| line.get("desync").is_some() != line.get("desync_reason").is_some());
    assert_eq!(strange.count(), 0);
}

#[test]
fn an_ambiguous_request_has_the_connection_to_the_endpoint_for_itself() {
    let origin = Origin::start(|_, stream| reply(stream, 200, "ok"));
    let proxy = proxy(origin.addr);
    let both = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for n in 1..=3 {
        let mut client = Client::connect(proxy.addr("defensive"));
        // What is smuggled behind it is never read.
        client.send([both, "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
        assert_eq!(client.reply().status, 200);
        client.expect_end();
        eventually("its connection closes", || origin.open() == 0);
        assert_eq!(origin.accepted(), n);
    }
    assert!(
        origin.seen().iter().all(|seen| seen.path() == "/"),
        "{:?}",
        origin.seen()
    );
}

#[test]
fn a_reload_changes_the_mode_and_keeps_the_counts() {
    let origin = Origin::named("ok");
    let config = |mode: &str| {
        format!(
            "[listeners.web]\nbind = \"127.0.0.1:0\"\n{mode}\n[[routes]]\nupstream = \"o\"\n[upstreams.o]\nendpoints = [\"{}\"]\n\
             [admin]\nbind = \"127.0.0.1:0\"\n",
            origin.addr
        )
    };
    let proxy = Proxy::start(&config(""));
    let status = |proxy: &Proxy| {
        let mut client = Client::connect(proxy.addr("web"));
        client.send("GET / HTTP/1.1\r\nHost: a\r\nX_A: 1\r\n\r\n");
        client.reply().status
    };
    let ambiguous = "evenkeel_desync_requests_total{listener=\"web\",class=\"ambiguous\"}";
    assert_eq!(status(&proxy), 400);
    proxy.reload(&config("desync = \"defensive\""));
    assert_eq!(status(&proxy), 200);
    eventually("both are counted", || proxy.metric(ambiguous) == 2.0);
    let errors = proxy.reload_rejected(&config("desync = \"defensiv\""));
    assert!(errors.contains("`desync` cannot be `defensiv`"), "{errors}");
    assert!(errors.contains("defensive"), "{errors}");
    assert_eq!(status(&proxy), 200);
}

#[test]
fn an_old_request_without_host_is_sent_on_with_an_empty_one() {
    let origin = Origin::named("ok");
    let proxy = proxy(origin.addr);
    let mut client = Client::connect(proxy.addr("strict"));
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.reply().status, 200);
    assert!(
        origin.last().headers.contains(&("host".into(), String::new())),
        "{:?}",
        origin.last()
    );
}

/// The list in docs/operations.md is the table.
#[test]
fn every_reason_is_documented() {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let (_, section) = docs
        .split_once("## Requests that others might read differently")
        .unwrap();
    for row in &evenkeel::h1::desync::TABLE {
        let line = section.lines().find(|line| line.contains(&format!("`{}`", row.label)));
        let line = line.unwrap_or_else(|| panic!("{} is not documented", row.label));
        assert!(line.contains(row.class.label()), "{line}");
    }
}

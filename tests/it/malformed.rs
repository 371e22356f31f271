//! Requests and responses that break the protocol, byte for byte, and what must happen to each.

use std::io::Write;

use crate::harness::{Client, Origin, Proxy, reply};

/// An HTTP listener in front of one endpoint, with small limits.
fn proxy(endpoint: std::net::SocketAddr) -> Proxy {
    Proxy::start(&format!(
        r#"
        [listeners.web]
        bind = "127.0.0.1:0"
        max_head = "4KiB"
        max_target = "1KiB"
        max_headers = 20
        max_body = "1KiB"
        [[routes]]
        upstream = "origin"
        [upstreams.origin]
        endpoints = ["{endpoint}"]
        retries = 0
        "#
    ))
}

/// Refused by its head alone: status, an answer with `Connection: close`, the end; nothing reaches the endpoint.
const REFUSED: &[(&str, &[u8], u16)] = &[
    // Host (RFC 9112 section 3.2).
    ("no Host", b"GET / HTTP/1.1\r\n\r\n", 400),
    ("two Hosts", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (
        "the same Host twice",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        400,
    ),
    ("Host with a blank", b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    ("Host with a path", b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400),
    ("Host with a user", b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    ("Host with a list", b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    (
        "Host with a port out of range",
        b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        400,
    ),
    ("Host with an empty port", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400),
    (
        "Host with an open bracket",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        400,
    ),
    ("empty Host", b"GET / HTTP/1.1\r\nHost: \r\n\r\n", 400),
    (
        "Host against the target",
        b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        400,
    ),
    (
        "Host port against the target",
        b"GET http://a:1/ HTTP/1.1\r\nHost: a:2\r\n\r\n",
        400,
    ),
    (
        "absolute target without host",
        b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "absolute target with a user",
        b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "absolute target of another scheme",
        b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    // Framing (RFC 9112 section 6).
    (
        "length and chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "chunked and length",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        400,
    ),
    (
        "length 0 and chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "two lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
        400,
    ),
    (
        "a list of lengths",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 4\r\n\r\nabc",
        400,
    ),
    (
        "empty length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n",
        400,
    ),
    (
        "signed length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc",
        400,
    ),
    (
        "negative length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -3\r\n\r\nabc",
        400,
    ),
    (
        "hexadecimal length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\nabc",
        400,
    ),
    (
        "fraction of a length",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3.0\r\n\r\nabc",
        400,
    ),
    (
        "length with a blank",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\nabc",
        400,
    ),
    (
        "length beyond 64 bits",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551616\r\n\r\n",
        400,
    ),
    (
        "unknown coding",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        400,
    ),
    (
        "identity",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n",
        400,
    ),
    (
        "chunked before gzip",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        400,
    ),
    (
        "gzip before chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        400,
    ),
    (
        "chunked twice",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
        400,
    ),
    (
        "chunked in two fields",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    (
        "almost chunked",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        501,
    ),
    (
        "chunked after a vertical tab",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        400,
    ),
    (
        "chunked with a parameter",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n",
        400,
    ),
    (
        "empty coding",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n",
        400,
    ),
    (
        "chunked in 1.0",
        b"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
    ),
    // Fields (RFC 9112 section 5).
    ("blank before the colon", b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (
        "tab before the colon",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\t: b\r\n\r\n",
        400,
    ),
    ("folded field", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", 400),
    (
        "blank before the first field",
        b"GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        400,
    ),
    ("field without colon", b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", 400),
    ("field without name", b"GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", 400),
    (
        "name with a bracket",
        b"GET / HTTP/1.1\r\nHost: a\r\nX(y: b\r\n\r\n",
        400,
    ),
    (
        "name beyond ASCII",
        b"GET / HTTP/1.1\r\nHost: a\r\nX\xe9: b\r\n\r\n",
        400,
    ),
    (
        "name with an underscore",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent_Length: 3\r\n\r\n",
        400,
    ),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", 400),
    ("NUL in a name", b"GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n", 400),
    (
        "bare CR in a value",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n",
        400,
    ),
    (
        "bare CR at the end of a value",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n\r\n",
        400,
    ),
    (
        "control character in a value",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: b\x01\r\n\r\n",
        400,
    ),
    ("lines ended by LF", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("one line ended by LF", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("the last line ended by LF", b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
    // The request line (RFC 9112 section 3).
    ("no version", b"GET /\r\nHost: a\r\n\r\n", 400),
    ("HTTP/0.9", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    (
        "HTTP/2.0 without its preface",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        505,
    ),
    ("HTTP/1.10", b"GET / HTTP/1.10\r\nHost: a\r\n\r\n", 400),
    ("version in lower case", b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "two blanks after the method",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "two blanks after the target",
        b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "blank at the end of the line",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        400,
    ),
    ("blank at the start", b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("tabs instead of blanks", b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("blank in the target", b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("method that is no token", b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("no method", b" / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "two empty lines first",
        b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    ("fragment in the target", b"GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("target beyond ASCII", b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "control character in the target",
        b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    ("relative target", b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("asterisk for GET", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("authority for GET", b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("CONNECT", b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 405),
    ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    (
        "unknown expectation",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 0\r\n\r\n",
        417,
    ),
    ("TLS", b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00\r\n\r\n", 400),
    ("nothing like HTTP", b"\x00\x01\x02\x03\r\n\r\n", 400),
];

/// Refused after routing began: the connection may go on.
const ANSWERED: &[(&str, &[u8], u16)] = &[
    ("broken percent-encoding", b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("cut percent-encoding", b"GET /%4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("encoded NUL", b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ("out of the root", b"GET /../a HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (
        "out of the root, encoded",
        b"GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n",
        400,
    ),
    (
        "body longer than allowed",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1025\r\n\r\n",
        413,
    ),
];

#[test]
fn malformed_requests_are_refused_each_with_its_status() {
    let origin = Origin::named("reached");
    let proxy = proxy(origin.addr);
    let mut wrong = Vec::new();
    for (what, bytes, status) in REFUSED {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(bytes);
        match client.try_reply(false) {
            Ok(reply) if reply.status != *status => wrong.push(format!("{what}: {} for {status}", reply.status)),
            Ok(reply) if reply.header("connection") != "close" => wrong.push(format!("{what}: not closed")),
            Ok(_) => match client.rest() {
                Ok(rest) if rest.is_empty() => {}
                Ok(_) => wrong.push(format!("{what}: something follows")),
                Err(e) => wrong.push(format!("{what}: no orderly end: {e}")),
            },
            Err(e) => wrong.push(format!("{what}: {e}")),
        }
    }
    for (what, bytes, status) in ANSWERED {
        let reply = {
            let mut client = Client::connect(proxy.addr("web"));
            client.send(bytes);
            client.reply()
        };
        if reply.status != *status {
            wrong.push(format!("{what}: {} for {status}", reply.status));
        }
    }
    assert!(REFUSED.len() + ANSWERED.len() >= 60);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(origin.seen().len(), 0, "{:?}", origin.seen());
}

#[test]
fn heads_beyond_a_limit_are_refused() {
    let origin = Origin::named("reached");
    let proxy = proxy(origin.addr);
    let head = |extra: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{extra}\r\n");
    let cases = [
        (
            "a long target",
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(1024)),
            414,
        ),
        ("an endless target", format!("GET /{}", "a".repeat(5000)), 414),
        ("a long field", head(&format!("X: {}\r\n", "a".repeat(4096))), 431),
        (
            "an endless field",
            format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}", "a".repeat(5000)),
            431,
        ),
        ("many fields", head(&"X: y\r\n".repeat(20)), 431),
        ("an endless method", "A".repeat(5000), 431),
    ];
    for (what, bytes, status) in cases {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(bytes);
        let reply = client.reply();
        assert_eq!((reply.status, reply.header("connection")), (status, "close"), "{what}");
        client.expect_end();
    }
    // At the limits all is well.
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!(
        "GET /{} HTTP/1.1\r\nHost: a\r\n{}\r\n",
        "a".repeat(1023),
        "X: y\r\n".repeat(19)
    ));
    assert_eq!(client.reply().status, 200);
}

/// The head is right, the chunked body is not. What of it was sent on never looks whole to the endpoint.
const BROKEN_BODIES: &[(&str, &[u8])] = &[
    ("no size", b"\r\nabc\r\n0\r\n\r\n"),
    ("no number", b"xyz\r\nabc\r\n0\r\n\r\n"),
    ("negative", b"-3\r\nabc\r\n0\r\n\r\n"),
    ("signed", b"+3\r\nabc\r\n0\r\n\r\n"),
    ("0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
    ("beyond 64 bits", b"10000000000000003\r\nabc\r\n0\r\n\r\n"),
    ("blank before the size", b" 3\r\nabc\r\n0\r\n\r\n"),
    ("line ended by LF", b"3\nabc\r\n0\r\n\r\n"),
    ("line ended by CR", b"3\rabc\r\n0\r\n\r\n"),
    ("data longer than its size", b"3\r\nabcd\r\n0\r\n\r\n"),
    ("data ended by LF", b"3\r\nabc\n0\r\n\r\n"),
    ("bare CR in an extension", b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    ("NUL in an extension", b"3;a\0b\r\nabc\r\n0\r\n\r\n"),
    ("trailer without colon", b"3\r\nabc\r\n0\r\nx\r\n\r\n"),
    ("folded trailer", b"3\r\nabc\r\n0\r\nX: a\r\n b\r\n\r\n"),
    (
        "trailer with a blank before its colon",
        b"3\r\nabc\r\n0\r\nX : a\r\n\r\n",
    ),
];

#[test]
fn broken_chunks_never_look_like_a_whole_request() {
    let origin = Origin::named("whole");
    let proxy = proxy(origin.addr);
    for (what, body) in BROKEN_BODIES {
        let mut client = Client::connect(proxy.addr("web"));
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(body);
        let reply = client.reply();
        assert_eq!((reply.status, reply.header("connection")), (400, "close"), "{what}");
    }
    let mut client = Client::connect(proxy.addr("web"));
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send([b"400;a=b\r\n", &[b'x'; 1024][..], b"\r\n1\r\ny\r\n0\r\n\r\n"].concat());
    assert_eq!(client.reply().status, 413, "one byte more than allowed");
    assert_eq!(origin.seen().len(), 0, "{:?}", origin.seen());
}

#[test]
fn nothing_behind_a_refused_request_is_read_as_another() {
    let origin = Origin::named("reached");
    let proxy = proxy(origin.addr);
    let mut client = Client::connect(proxy.addr("web"));
    client.send(
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n\
          GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    );
    assert_eq!(client.reply().status, 400);
    client.expect_end();
    assert_eq!(origin.seen().len(), 0);
}

/// A client must get a 502 for each of these, and never a byte of them.
const BAD_RESPONSES: &[(&str, &[u8])] = &[
    ("nothing", b""),
    ("half a status line", b"HTTP/1.1 20"),
    ("half a head", b"HTTP/1.1 200 OK\r\nX: y\r\n"),
    ("another protocol", b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ("no version", b"200 OK\r\n\r\n"),
    ("HTTP/0.9", b"<html></html>"),
    ("HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("HTTP/1.2", b"HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("version in lower case", b"http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("two digits", b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n"),
    ("four digits", b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
    ("letters for a status", b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n"),
    ("status 000", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
    ("status 099", b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n"),
    ("no status", b"HTTP/1.1\r\nContent-Length: 0\r\n\r\n"),
    ("blank at the start", b" HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("NUL in the reason", b"HTTP/1.1 200 O\0K\r\nContent-Length: 0\r\n\r\n"),
    (
        "bare CR in the reason",
        b"HTTP/1.1 200 O\rK\r\nContent-Length: 0\r\n\r\n",
    ),
    ("lines ended by LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    (
        "length and chunked",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    ),
    (
        "a list of lengths",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3, 4\r\n\r\nabc",
    ),
    ("negative length", b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"),
    ("signed length", b"HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc"),
    (
        "length beyond 64 bits",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ),
    ("empty length", b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n"),
    (
        "unknown coding",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nabc",
    ),
    (
        "chunked twice",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked before gzip",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in 1.0",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "folded field",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "blank before the colon",
        b"HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
    ),
    (
        "field without colon",
        b"HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "field without name",
        b"HTTP/1.1 200 OK\r\n: x\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "NUL in a value",
        b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "bare CR in a value",
        b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "name with a blank",
        b"HTTP/1.1 200 OK\r\nX y: a\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "101 that nobody asked for",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ),
    ("only 1xx", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    (
        "a bad response after 1xx",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 abc\r\n\r\n",
    ),
];

#[test]
fn malformed_responses_become_502() {
    let (next, script) = std::sync::mpsc::channel::<&'static [u8]>();
    let script = std::sync::Mutex::new(script);
    let origin = Origin::start(move |_, stream| {
        stream.write_all(script.lock().unwrap().recv().unwrap())?;
        Ok(false)
    });
    let proxy = proxy(origin.addr);
    let mut wrong = Vec::new();
    for (what, bytes) in BAD_RESPONSES {
        next.send(bytes).unwrap();
        let mut client = Client::connect(proxy.addr("web"));
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut reply = client.reply();
        while reply.status == 103 {
            reply = client.reply();
        }
        if reply.status != 502 {
            wrong.push(format!("{what}: {}", reply.status));
        }
    }
    assert!(BAD_RESPONSES.len() >= 40);
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn a_response_with_an_endless_head_is_refused() {
    let origin = Origin::start(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
        loop {
            stream.write_all(b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n")?;
        }
    });
    let proxy = proxy(origin.addr);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/").status, 502);
}

#[test]
fn bodies_that_break_off_never_look_whole() {
    let cases: &[(&str, &[u8])] = &[
        (
            "shorter than its length",
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        ),
        (
            "no last chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        ),
        (
            "a bad chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n",
        ),
        (
            "a cut chunk",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
        ),
    ];
    for (what, bytes) in cases {
        let origin = Origin::start(move |_, stream| {
            stream.write_all(bytes)?;
            Ok(false)
        });
        let proxy = proxy(origin.addr);
        let mut client = Client::connect(proxy.addr("web"));
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let reply = client.try_reply(false);
        assert!(!matches!(&reply, Ok(r) if r.status == 200), "{what}: {reply:?}");
    }
}

#[test]
fn nothing_behind_a_response_is_taken_for_the_next() {
    let origin = Origin::start(|seen, stream| match seen.path() {
        "/first" => {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
            )?;
            Ok(true)
        }
        _ => reply(stream, 200, "good"),
    });
    let proxy = proxy(origin.addr);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/first").text(), "a");
    assert_eq!(client.get("/second").text(), "good");
    assert_eq!(origin.accepted(), 2, "the first connection is not used again");
}

//! HTTP/2 on both sides: what the protocol promises, and what must happen to those who break it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bytes::Bytes;
use h2::client::SendRequest;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::harness::h2_origin::H2Origin;
use crate::harness::h2_wire::*;
use crate::harness::tls::{Identity, tls_client};
use crate::harness::{Client, Origin, PATIENCE, Proxy, eventually, get, reply};

fn config(upstream: &str, endpoint: SocketAddr) -> String {
    format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        upstream = "u"
        [upstreams.u]
        endpoints = ["{endpoint}"]
        {upstream}
        "#
    )
}

/// Runs a client by prior knowledge within the patience of all tests.
pub fn with_client<F, T>(addr: SocketAddr, work: impl FnOnce(SendRequest<Bytes>) -> F) -> T
where
    F: Future<Output = T>,
{
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let work = async {
            let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
            // As many as the proxy allows, also before it has said so.
            let mut builder = h2::client::Builder::new();
            let (client, connection) = builder.initial_max_send_streams(100).handshake(tcp).await.unwrap();
            tokio::spawn(connection);
            work(client).await
        };
        tokio::time::timeout(PATIENCE, work).await.expect("in time")
    })
}

pub async fn whole(response: Response<h2::RecvStream>) -> (StatusCode, Vec<u8>, Option<HeaderMap>) {
    let status = response.status();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data.unwrap();
        body.flow_control().release_capacity(data.len()).unwrap();
        bytes.extend_from_slice(&data);
    }
    (status, bytes, body.trailers().await.unwrap())
}

fn ask(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://shop.example{path}"))
        .body(())
        .unwrap()
}

#[test]
fn many_streams_share_a_connection_and_meet_an_http1_endpoint() {
    let origin = Origin::start(|seen, stream| reply(stream, 200, seen.path()));
    let proxy = Proxy::start(&config("", origin.addr));
    with_client(proxy.addr("web"), |client| async move {
        let mut asked = Vec::new();
        for n in 0..300 {
            let mut client = client.clone().ready().await.unwrap();
            let (response, _) = client.send_request(ask("GET", &format!("/{n}")), true).unwrap();
            asked.push(tokio::spawn(async move { whole(response.await.unwrap()).await }));
        }
        for (n, answer) in asked.into_iter().enumerate() {
            let (status, body, _) = answer.await.unwrap();
            assert_eq!((status, body), (StatusCode::OK, format!("/{n}").into_bytes()));
        }
    });
    let seen = origin.last();
    assert_eq!(
        (seen.header("host"), seen.line.ends_with("HTTP/1.1")),
        ("shop.example", true)
    );
    assert!(seen.header("via").starts_with("2"), "{}", seen.header("via"));
    assert_eq!(proxy.metric("evenkeel_connections_total{listener=\"web\"}"), 1.0);
}

#[test]
fn bodies_and_trailers_pass_to_an_http1_endpoint_and_back() {
    let origin = Origin::start(|seen, stream| {
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{}\r\n0\r\nX-Sum: {}\r\n\r\n",
            seen.body.len(),
            String::from_utf8_lossy(&seen.body),
            seen.header("x-end")
        )?;
        Ok(true)
    });
    let proxy = Proxy::start(&config("", origin.addr));
    with_client(proxy.addr("web"), |client| async move {
        let mut client = client.ready().await.unwrap();
        let (response, mut body) = client.send_request(ask("POST", "/"), false).unwrap();
        body.send_data(Bytes::from_static(b"hello "), false).unwrap();
        body.send_data(Bytes::from_static(b"world"), false).unwrap();
        body.send_trailers(HeaderMap::from_iter([(
            "x-end".parse().unwrap(),
            "yes".parse().unwrap(),
        )]))
        .unwrap();
        let (_, body, trailers) = whole(response.await.unwrap()).await;
        assert_eq!(body, b"hello world");
        assert_eq!(trailers.unwrap()["x-sum"], "yes");
    });
}

/// As gRPC does: headers at once, messages both ways in turn, the status in trailers.
#[test]
fn streams_of_messages_flow_both_ways_over_http2() {
    let origin = H2Origin::start(None);
    let proxy = Proxy::start(&config("protocol = \"h2\"", origin.addr));
    with_client(proxy.addr("web"), |client| async move {
        let mut client = client.ready().await.unwrap();
        let mut request = ask("POST", "/grpc.Service/Both");
        request.headers_mut().insert("te", "trailers".parse().unwrap());
        request
            .headers_mut()
            .insert("content-type", "application/grpc".parse().unwrap());
        let (response, mut sending) = client.send_request(request, false).unwrap();
        let response = response.await.unwrap();
        assert_eq!(
            (response.status(), &response.headers()["x-te"]),
            (StatusCode::OK, &"trailers".parse::<http::HeaderValue>().unwrap())
        );
        let mut receiving = response.into_body();
        for message in ["one", "two", "three"] {
            sending.send_data(Bytes::from(message), false).unwrap();
            let echoed = receiving.data().await.unwrap().unwrap();
            receiving.flow_control().release_capacity(echoed.len()).unwrap();
            assert_eq!(echoed, message.as_bytes());
        }
        sending.send_data(Bytes::new(), true).unwrap();
        assert!(receiving.data().await.is_none());
        let trailers = receiving.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");
    });
    assert_eq!(proxy.metric("evenkeel_endpoint_active"), 0.0);
}

#[test]
fn http1_clients_reach_http2_endpoints() {
    let origin = H2Origin::start(None);
    let proxy = Proxy::start(&config("protocol = \"h2\"", origin.addr));
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..3 {
        client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "hello"));
        assert_eq!(reply.trailers, [("grpc-status".to_owned(), "0".to_owned())]);
    }
    assert_eq!(origin.accepted(), 1, "the streams share a connection");
}

#[test]
fn alpn_decides_on_both_sides() {
    let (front, back) = (Identity::of(&["shop.example"]), Identity::of(&["origin.example"]));
    let origin = H2Origin::start(Some(back.server(&[b"h2", b"http/1.1"])));
    let dir = front.dir();
    back.write(dir.path(), "ca");
    let proxy = Proxy::start_in(
        dir,
        &format!(
            r#"
            [listeners.web]
            bind = "127.0.0.1:0"
            tls.certificates = [{{ cert = "{{DIR}}/cert.pem", key = "{{DIR}}/key.pem" }}]
            [[routes]]
            upstream = "u"
            [upstreams.u]
            endpoints = ["{}"]
            protocol = "auto"
            tls = {{ ca = "{{DIR}}/ca.pem", server_name = "origin.example" }}
            "#,
            origin.addr
        ),
    );
    let mut old = tls_client(proxy.addr("web"), "shop.example", &front, &[b"http/1.1"]);
    assert_eq!(old.get("/").status, 200);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let tcp = tokio::net::TcpStream::connect(proxy.addr("web")).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(front.client(&[b"h2", b"http/1.1"]));
        let tls = connector
            .connect("shop.example".try_into().unwrap(), tcp)
            .await
            .unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let (client, connection) = h2::client::handshake(tls).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let (response, _) = client.send_request(ask("GET", "/"), true).unwrap();
        assert_eq!(whole(response.await.unwrap()).await.0, StatusCode::OK);
    });
}

#[test]
fn a_stream_that_is_reset_frees_its_endpoint() {
    let slow = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let proxy = Proxy::start(&config("", slow.addr));
    with_client(proxy.addr("web"), |client| async {
        let mut client = client.ready().await.unwrap();
        let (response, mut stream) = client.send_request(ask("GET", "/"), true).unwrap();
        tokio::task::spawn_blocking({
            let active = proxy.addr("admin");
            move || {
                eventually("it is under way", || {
                    get(active, "/metrics")
                        .text()
                        .contains("evenkeel_endpoint_active{upstream=\"u\",endpoint=\"")
                        && get(active, "/api/v1/status").text().contains("\"active\":1")
                })
            }
        })
        .await
        .unwrap();
        stream.send_reset(h2::Reason::CANCEL);
        drop(response);
        tokio::task::spawn_blocking({
            let admin = proxy.addr("admin");
            move || {
                eventually("it is over", || {
                    get(admin, "/api/v1/status").text().contains("\"active\":0")
                })
            }
        })
        .await
        .unwrap();
    });
    eventually("the connection to the endpoint is closed", || slow.open() == 0);
}

#[test]
fn connections_end_gracefully_when_the_process_drains() {
    let origin = Origin::named("ok");
    let mut proxy = Proxy::start(&config("", origin.addr));
    with_client(proxy.addr("web"), |client| async {
        let mut client = client.ready().await.unwrap();
        let (response, _) = client.send_request(ask("GET", "/"), true).unwrap();
        assert_eq!(whole(response.await.unwrap()).await.1, b"ok");
        proxy.signal(crate::harness::proxy::TERM);
        // GOAWAY ends the idle connection: no further request is taken.
        loop {
            match client.ready().await {
                Ok(ready) => client = ready,
                Err(_) => break,
            }
            tokio::task::yield_now().await;
        }
    });
    assert_eq!(proxy.wait_end().code(), Some(0));
}

// ---------------------------------------------------------------------------------------------------------------------
// Frames by hand (RFC 9113).

/// Literal fields without indexing (RFC 7541 section 6.2.2).
fn fields(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            out.push(text.len() as u8);
            out.extend(text.as_bytes());
        }
    }
    out
}

const GET: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":path", "/"),
    (":authority", "a"),
];

fn get_and(more: &[(&str, &str)]) -> Vec<u8> {
    fields(&[GET, more].concat())
}

fn get_frame(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &fields(GET))
}

fn post_frame(stream: u32, more: &[(&str, &str)]) -> Vec<u8> {
    let post = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a"),
    ];
    frame(HEADERS, END_HEADERS, stream, &fields(&[&post, more].concat()))
}

#[derive(Debug, PartialEq, Clone, Copy)]
enum Verdict {
    /// The connection ends with this code.
    Connection(u32),
    /// The stream is reset with this code.
    Stream(u32),
    /// Either, with any code: the specification allows both.
    Refused,
    /// A response whose status is this.
    Status(&'static str),
}

/// What the proxy says to `bytes` after the preface and empty settings.
fn verdict(addr: SocketAddr, bytes: &[u8]) -> Verdict {
    let mut stream = TcpStream::connect(addr).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat())
        .unwrap();
    // It may close before it has read everything.
    let _ = stream.write_all(bytes);
    loop {
        let mut head = [0; 9];
        if stream.read_exact(&mut head).is_err() {
            return Verdict::Connection(u32::MAX);
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if stream.read_exact(&mut payload).is_err() {
            return Verdict::Connection(u32::MAX);
        }
        let code = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
        match head[3] {
            GOAWAY => return Verdict::Connection(code(4)),
            RST_STREAM => return Verdict::Stream(code(0)),
            // Static table entries for :status (RFC 7541 appendix A).
            HEADERS => {
                return Verdict::Status(match payload[0] {
                    0x88 => "200",
                    0x8c => "400",
                    0x8d => "404",
                    0x8e => "500",
                    _ if payload.windows(3).any(|w| w == b"431") => "431",
                    _ => "another",
                });
            }
            _ => {}
        }
    }
}

#[test]
fn frames_that_break_the_protocol_end_what_they_broke() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&config("", origin.addr));
    let addr = proxy.addr("web");
    let headers = |flags, stream, payload: &[u8]| frame(HEADERS, flags, stream, payload);
    let both = END_STREAM | END_HEADERS;
    use Verdict::{Connection, Refused, Status, Stream};
    let cases: Vec<(&str, Vec<u8>, Verdict)> = vec![
        // All is well.
        ("a request", get_frame(1), Status("200")),
        (
            "an unknown frame before it",
            [frame(0xfa, 0xff, 0, b"x"), get_frame(1)].concat(),
            Status("200"),
        ),
        (
            "an unknown setting before it",
            [frame(SETTINGS, 0, 0, &[0xff, 0xff, 0, 0, 0, 1]), get_frame(1)].concat(),
            Status("200"),
        ),
        (
            "padding",
            headers(both | PADDED, 1, &[&[2][..], &fields(GET), &[0, 0]].concat()),
            Status("200"),
        ),
        (
            "headers in two frames",
            [
                headers(END_STREAM, 1, &fields(GET)[..9]),
                frame(CONTINUATION, END_HEADERS, 1, &fields(GET)[9..]),
            ]
            .concat(),
            Status("200"),
        ),
        // Section 4 and 5: frames and streams.
        (
            "a frame larger than allowed",
            frame(DATA, 0, 1, &[0; 16_385]),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("an even stream", get_frame(2), Connection(PROTOCOL_ERROR)),
        (
            "a stream below an earlier one",
            [get_frame(5), get_frame(3)].concat(),
            Refused,
        ),
        (
            "data on an idle stream",
            frame(DATA, 0, 1, b"x"),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a reset of an idle stream",
            frame(RST_STREAM, 0, 1, &[0, 0, 0, 8]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a window for an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a continuation out of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &[]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a frame amid headers",
            [headers(END_STREAM, 1, &fields(GET)[..9]), frame(PING, 0, 0, &[0; 8])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "another stream's continuation",
            [
                headers(END_STREAM, 1, &fields(GET)[..9]),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ]
            .concat(),
            Connection(PROTOCOL_ERROR),
        ),
        // Section 6: each kind of frame.
        (
            "data on the connection",
            frame(DATA, 0, 0, b"x"),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "data with too much padding",
            [post_frame(1, &[]), frame(DATA, PADDED, 1, &[9, 0])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "headers on the connection",
            headers(both, 0, &fields(GET)),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "headers with too much padding",
            headers(both | PADDED, 1, &[200, 0]),
            Connection(PROTOCOL_ERROR),
        ),
        ("a priority of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), Refused),
        (
            "a priority on the connection",
            frame(PRIORITY, 0, 0, &[0; 5]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a reset of three bytes",
            [post_frame(1, &[]), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "a reset of the connection",
            frame(RST_STREAM, 0, 0, &[0; 4]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "settings of five bytes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "settings of a stream",
            frame(SETTINGS, 0, 1, &[]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "an acknowledgement with settings",
            frame(SETTINGS, 1, 0, &[0, 3, 0, 0, 0, 1]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "a window of 2^31",
            frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]),
            Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "frames of 1 byte",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "push neither on nor off",
            frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a push from a client",
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a ping of seven bytes",
            frame(PING, 0, 0, &[0; 7]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "a ping of a stream",
            frame(PING, 0, 1, &[0; 8]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a goodbye of a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a window of nothing",
            frame(WINDOW_UPDATE, 0, 0, &[0; 4]),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "a window of nothing for a stream",
            [post_frame(1, &[]), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
            Refused,
        ),
        (
            "a window update of three bytes",
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
            Connection(FRAME_SIZE_ERROR),
        ),
        (
            "a window beyond 2^31",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            Connection(FLOW_CONTROL_ERROR),
        ),
        (
            "data after the end",
            [get_frame(1), frame(DATA, END_STREAM, 1, b"x")].concat(),
            Refused,
        ),
        ("headers after the end", [get_frame(1), get_frame(1)].concat(), Refused),
        // Section 8: requests.
        (
            "no such entry in the table",
            headers(both, 1, &[0xff, 0xff, 0xff]),
            Connection(COMPRESSION_ERROR),
        ),
        (
            "half a field",
            headers(both, 1, &[0, 5, b'a']),
            Connection(COMPRESSION_ERROR),
        ),
        (
            "no method",
            headers(both, 1, &fields(&GET[1..])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "no path",
            headers(both, 1, &fields(&[GET[0], GET[1], GET[3]])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "an empty path",
            headers(both, 1, &fields(&[GET[0], GET[1], (":path", ""), GET[3]])),
            Refused,
        ),
        (
            "two methods",
            headers(both, 1, &fields(&[GET[0], GET[0], GET[1], GET[2], GET[3]])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "two paths",
            headers(both, 1, &fields(&[GET[0], GET[1], GET[2], GET[2], GET[3]])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "a pseudo-field after another",
            headers(both, 1, &fields(&[GET[0], GET[1], GET[2], ("x", "y"), GET[3]])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "an unknown pseudo-field",
            headers(both, 1, &get_and(&[(":x", "y")])),
            Refused,
        ),
        (
            "a status in a request",
            headers(both, 1, &get_and(&[(":status", "200")])),
            Refused,
        ),
        (
            "a name in upper case",
            headers(both, 1, &get_and(&[("X", "y")])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "Connection",
            headers(both, 1, &get_and(&[("connection", "close")])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "Transfer-Encoding",
            headers(both, 1, &get_and(&[("transfer-encoding", "chunked")])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "TE other than trailers",
            headers(both, 1, &get_and(&[("te", "gzip")])),
            Stream(PROTOCOL_ERROR),
        ),
        (
            "a body shorter than its length",
            [
                post_frame(1, &[("content-length", "5")]),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Refused,
        ),
        (
            "a body longer than its length",
            [
                post_frame(1, &[("content-length", "1")]),
                frame(DATA, END_STREAM, 1, b"xyz"),
            ]
            .concat(),
            Refused,
        ),
        (
            "two lengths",
            [
                post_frame(1, &[("content-length", "1"), ("content-length", "2")]),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Refused,
        ),
        (
            "a length that is none",
            [
                post_frame(1, &[("content-length", "x")]),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
            Refused,
        ),
        (
            "a Host against :authority",
            headers(both, 1, &get_and(&[("host", "b")])),
            Status("400"),
        ),
        (
            "an authority with a user",
            headers(both, 1, &fields(&[GET[0], GET[1], GET[2], (":authority", "u@a")])),
            Refused,
        ),
        (
            "no authority at all",
            headers(both, 1, &fields(&GET[..3])),
            Status("400"),
        ),
        (
            "a line feed in a value",
            headers(both, 1, &get_and(&[("x", "a\r\nb: c")])),
            Refused,
        ),
        (
            "a name with an underscore",
            headers(both, 1, &get_and(&[("x_y", "z")])),
            Status("400"),
        ),
        (
            "a path out of the root",
            headers(both, 1, &fields(&[GET[0], GET[1], (":path", "/../x"), GET[3]])),
            Status("400"),
        ),
        (
            "CONNECT",
            headers(both, 1, &fields(&[(":method", "CONNECT"), (":authority", "a:80")])),
            Status("another"),
        ),
    ];
    let mut wrong = Vec::new();
    for (what, bytes, expected) in &cases {
        let got = verdict(addr, bytes);
        let right = match expected {
            Refused => matches!(got, Connection(_) | Stream(_) | Status("400")),
            // A connection may always be ended in place of a stream, and abruptly (RFC 9113 section 5.4).
            Stream(code) => got == Stream(*code) || got == Connection(*code),
            // The general code is as good as the particular one.
            Connection(code) => [*code, PROTOCOL_ERROR, u32::MAX].map(Connection).contains(&got),
            Status(_) => got == *expected,
        };
        if !right {
            wrong.push(format!("{what}: {got:?} for {expected:?}"));
        }
    }
    assert!(cases.len() >= 60);
    assert_eq!(wrong, [""; 0]);
    // Only what was right came through, and those that broke off amid a body.
    eventually("nothing is under way", || {
        proxy.metric("evenkeel_endpoint_active") == 0.0
    });
    let reached = origin.seen();
    assert!(reached.iter().all(|s| s.line.starts_with("GET / ")), "{reached:?}");
}

#[test]
fn floods_are_stopped() {
    let origin = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let proxy = Proxy::start(&config("", origin.addr));
    let addr = proxy.addr("web");
    let before = proxy.memory_kib();
    let mut resets = Vec::new();
    for n in 0..5000 {
        resets.extend(get_frame(2 * n + 1));
        resets.extend(frame(RST_STREAM, 0, 2 * n + 1, &[0, 0, 0, 8]));
    }
    assert_eq!(
        verdict(addr, &resets),
        Verdict::Connection(ENHANCE_YOUR_CALM),
        "rapid reset (CVE-2023-44487)"
    );
    let mut endless = frame(HEADERS, 0, 1, &get_and(&[]));
    for _ in 0..5000 {
        endless.extend(frame(
            CONTINUATION,
            0,
            1,
            &fields(&[("x", "yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy")]),
        ));
    }
    let verdict_of_endless = verdict(addr, &endless);
    assert!(
        matches!(verdict_of_endless, Verdict::Connection(_)),
        "{verdict_of_endless:?} for endless CONTINUATION"
    );
    let grown = proxy.memory_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB");
    eventually("nothing is under way", || {
        proxy.metric("evenkeel_endpoint_active") == 0.0
    });
}

#[test]
fn only_so_many_streams_at_once() {
    let slow = Origin::raw(|stream, _| {
        std::io::copy(stream, &mut std::io::sink())?;
        Ok(())
    });
    let text = config("", slow.addr).replace("[listeners.web]", "[listeners.web]\n        max_streams = 10");
    let proxy = Proxy::start(&text);
    let bytes: Vec<u8> = (0..11).flat_map(|n| get_frame(2 * n + 1)).collect();
    let refused = verdict(proxy.addr("web"), &bytes);
    assert!(
        matches!(refused, Verdict::Stream(7) | Verdict::Connection(PROTOCOL_ERROR)),
        "{refused:?}"
    );
}

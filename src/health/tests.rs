//! Probes against real endpoints on loopback sockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::{HttpProbe, Probe, ProbeTls, Spec, Target};
use crate::net::addr::{DialAddr, EndpointAddr};

/// Longer than any test takes.
const PATIENCE: Duration = Duration::from_secs(30);

fn endpoint(addr: SocketAddr, configured: &str) -> Target {
    Target {
        addr: DialAddr::Ip(addr),
        configured: EndpointAddr::parse(configured).unwrap(),
    }
}

fn at(addr: SocketAddr) -> Target {
    endpoint(addr, &addr.to_string())
}

/// As the probe of the same name, with the reason alone.
async fn probe(target: &Target, spec: &Spec, tls: Option<&ProbeTls>, h2: bool) -> Result<(), String> {
    let answer = super::probe(target, spec, tls, h2).await;
    answer.map_err(|failed| failed.to_string())
}

fn spec(probe: Probe) -> Spec {
    Spec {
        probe,
        agent: None,
        interval: PATIENCE,
        interval_down: PATIENCE,
        interval_changing: PATIENCE,
        jitter: 0.0,
        timeout: PATIENCE,
        rise: 1,
        fall: 1,
        port: None,
    }
}

fn get(path: &str) -> HttpProbe {
    HttpProbe {
        path: path.into(),
        host: None,
        method: Method::GET,
        headers: Vec::new(),
        expect_status: vec![(200, 399)],
        expect_body: None,
    }
}

async fn ask(addr: SocketAddr, http: HttpProbe) -> Result<(), String> {
    probe(&at(addr), &spec(Probe::Http(http)), None, false).await
}

/// Serves every connection that comes in by `serve`.
async fn listen<F: Future<Output = ()> + Send>(serve: impl Fn(TcpStream) -> F + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            serve(stream).await;
        }
    });
    addr
}

/// Reads one request in full (it has no body) and writes `answer`.
async fn origin(answer: &'static [u8]) -> SocketAddr {
    listen(move |mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n") {
            assert_ne!(stream.read_buf(&mut seen).await.unwrap(), 0);
        }
        stream.write_all(answer).await.unwrap();
    })
    .await
}

/// Answers with what it saw: version, method, path and the fields that matter.
async fn echo(request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let field = |name: &str| request.headers().get(name).map_or("none", |v| v.to_str().unwrap());
    let seen = format!(
        "{:?} {} {} host={} agent={} connection={} x-key={}",
        request.version(),
        request.method(),
        request.uri(),
        field("host"),
        field("user-agent"),
        field("connection"),
        field("x-key"),
    );
    Ok(Response::new(Full::from(seen)))
}

async fn serve_h1(io: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(echo);
    // The prober may leave first.
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(io), service)
        .await;
}

async fn serve_h2(io: impl AsyncRead + AsyncWrite + Unpin) {
    let service = service_fn(echo);
    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(io), service)
        .await;
}

/// An address nobody listens at: bound, so that nobody else can, for as long as the socket lives.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

#[tokio::test]
async fn tcp_passes_where_somebody_listens_and_says_why_not_elsewhere() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    assert_eq!(probe(&at(addr), &spec(Probe::Tcp), None, false).await, Ok(()));
    let (_socket, closed) = nobody();
    let refused = probe(&at(closed), &spec(Probe::Tcp), None, false).await;
    assert_eq!(refused, Err("connection refused".into()));
    let by_port = Spec {
        port: Some(addr.port()),
        ..spec(Probe::Tcp)
    };
    assert_eq!(probe(&at(closed), &by_port, None, false).await, Ok(()));
}

#[tokio::test]
async fn http_judges_status_and_body() {
    let ok = origin(b"HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\nall is well").await;
    assert_eq!(ask(ok, get("/")).await, Ok(()));
    let expecting = |text: &str| HttpProbe {
        expect_body: Some(text.into()),
        ..get("/")
    };
    assert_eq!(ask(ok, expecting("is we")).await, Ok(()));
    assert_eq!(ask(ok, expecting("ok")).await, Err("body lacks `ok`".into()));
    let created = HttpProbe {
        expect_status: vec![(201, 201), (300, 302)],
        ..get("/")
    };
    assert_eq!(ask(ok, created).await, Err("status 200, expected 201, 300-302".into()));

    let down = origin(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(ask(down, get("/")).await, Err("status 503, expected 200-399".into()));
    let until_closed = origin(b"HTTP/1.0 200 OK\r\n\r\nfine").await;
    assert_eq!(ask(until_closed, expecting("fine")).await, Ok(()));
}

#[tokio::test]
async fn http_refuses_answers_that_are_none_or_not_whole() {
    for (answer, reason) in [
        (&b"SSH-2.0-OpenSSH_9.9\r\n"[..], "not HTTP"),
        (b"", "ended before"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "ended before"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "end"),
    ] {
        let result = ask(origin(answer).await, get("/")).await;
        assert!(result.as_ref().is_err_and(|e| e.contains(reason)), "{result:?}");
    }
}

#[tokio::test]
async fn http_remembers_no_more_than_its_bounds() {
    let endless_head = listen(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
    })
    .await;
    let result = ask(endless_head, get("/")).await;
    assert!(result.as_ref().is_err_and(|e| e.contains("not HTTP")), "{result:?}");
    // The body never ends: the first 64 KiB decide.
    let endless_body = listen(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.read(&mut [0; 4096]).await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
        while stream.write_all(&[b'a'; 4096]).await.is_ok() {}
    })
    .await;
    assert_eq!(ask(endless_body, get("/")).await, Ok(()));
}

#[tokio::test]
async fn silence_fails_at_the_deadline() {
    let silent = listen(|mut stream| async move {
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let spec = Spec {
        timeout: Duration::from_millis(50),
        ..spec(Probe::Http(get("/")))
    };
    for h2 in [false, true] {
        let result = probe(&at(silent), &spec, None, h2).await;
        assert_eq!(result, Err("no answer within 50ms".into()));
    }
}

#[tokio::test]
async fn the_request_is_what_the_configuration_says() {
    let addr = listen(serve_h1).await;
    let agent = concat!("agent=evenkeel-health/", env!("CARGO_PKG_VERSION"));
    let seen = |text: String| HttpProbe {
        expect_body: Some(text),
        ..get("/health?deep=1")
    };
    let plain = format!("HTTP/1.1 GET /health?deep=1 host={addr} {agent} connection=close x-key=none");
    assert_eq!(ask(addr, seen(plain)).await, Ok(()));

    let named = "HTTP/1.1 OPTIONS /health?deep=1 host=shop.example agent=mine connection=close x-key=1";
    let named = HttpProbe {
        method: Method::OPTIONS,
        host: Some("shop.example".into()),
        headers: vec![
            (HeaderName::from_static("x-key"), HeaderValue::from_static("1")),
            (HeaderName::from_static("user-agent"), HeaderValue::from_static("mine")),
        ],
        ..seen(named.into())
    };
    assert_eq!(ask(addr, named).await, Ok(()));
    let head = HttpProbe {
        method: Method::HEAD,
        ..get("/")
    };
    assert_eq!(ask(addr, head).await, Ok(()));
}

#[tokio::test]
async fn http2_in_the_clear() {
    let addr = listen(serve_h2).await;
    let seen = HttpProbe {
        expect_body: Some(format!("{:?} GET http://{addr}/ host=none", Version::HTTP_2)),
        ..get("/")
    };
    assert_eq!(
        probe(&at(addr), &spec(Probe::Http(seen.clone())), None, true).await,
        Ok(())
    );
    let h1 = listen(serve_h1).await;
    let result = probe(&at(h1), &spec(Probe::Http(seen)), None, true).await;
    assert!(result.is_err());
}

/// An HTTPS endpoint for `name`, and the TLS of an upstream that trusts exactly it.
async fn https(name: &str, alpn: &'static [u8]) -> (SocketAddr, ProbeTls) {
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![alpn.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(tls) = TlsAcceptor::from(Arc::new(config.clone())).accept(stream).await else {
                continue;
            };
            if alpn == b"h2" {
                serve_h2(tls).await;
            } else {
                serve_h1(tls).await;
            }
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    (addr, probe_tls(Some(Arc::new(roots)), true))
}

fn probe_tls(ca: Option<Arc<rustls::RootCertStore>>, verify: bool) -> ProbeTls {
    let spec = crate::tls::ClientSpec {
        ca,
        ca_path: None,
        server_name: None,
        client_certificate: None,
        verify,
        handshake_timeout: None,
    };
    ProbeTls {
        config: crate::tls::client::config(&spec, &[b"h2", b"http/1.1"]).unwrap(),
        server_name: None,
    }
}

#[tokio::test]
async fn tls_is_verified_and_alpn_decides_the_protocol() {
    for (alpn, version) in [(&b"http/1.1"[..], "HTTP/1.1"), (b"h2", "HTTP/2.0")] {
        let (addr, tls) = https("endpoint.example", alpn).await;
        let (_, other_ca) = https("endpoint.example", alpn).await;
        let http = spec(Probe::Http(HttpProbe {
            expect_body: Some(version.into()),
            ..get("/")
        }));
        let named = endpoint(addr, "endpoint.example:443");
        for what in [&http, &spec(Probe::Tcp)] {
            assert_eq!(probe(&named, what, Some(&tls), false).await, Ok(()));
            let result = probe(&named, what, Some(&other_ca), false).await;
            assert!(
                result
                    .as_ref()
                    .is_err_and(|e| e.contains("TLS") && e.contains("certificate")),
                "{result:?}"
            );
            let result = probe(&at(addr), what, Some(&tls), false).await;
            assert!(result.is_err_and(|e| e.contains("certificate")), "the name is verified");
            assert_eq!(
                probe(&at(addr), what, Some(&probe_tls(None, false)), false).await,
                Ok(())
            );
        }
        let by_name = ProbeTls {
            server_name: Some("endpoint.example".try_into().unwrap()),
            ..tls
        };
        assert_eq!(probe(&at(addr), &http, Some(&by_name), false).await, Ok(()));
    }
}

/// A server of `grpc.health.v1` as its specification says: one message of a request, one of an answer, trailers.
async fn serve_grpc(io: TcpStream) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        assert_eq!(request.headers()["content-type"], "application/grpc");
        assert_eq!(request.headers()["te"], "trailers");
        tokio::spawn(async move {
            let asked = request.into_body().data().await.unwrap().unwrap();
            let status = match &asked[..] {
                [0, 0, 0, 0, 0] | b"\0\0\0\0\x06\x0a\x04shop" => 1,
                b"\0\0\0\0\x05\x0a\x03ill" => 2,
                // In the head alone, as servers answer what they do not know.
                _ => {
                    let answer = Response::builder().header("content-type", "application/grpc");
                    let answer = answer.header("grpc-status", "5").header("grpc-message", "no such");
                    respond.send_response(answer.body(()).unwrap(), true).unwrap();
                    return;
                }
            };
            let mut body = respond.send_response(Response::new(()), false).unwrap();
            body.send_data(vec![0, 0, 0, 0, 2, 8, status].into(), false).unwrap();
            let trailers = [("grpc-status", "0")].map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap()));
            body.send_trailers(trailers.into_iter().collect()).unwrap();
        });
    }
}

#[tokio::test]
async fn grpc_passes_where_the_service_serves() {
    let addr = listen(serve_grpc).await;
    let ask = async |service: &str| {
        let service = service.to_owned();
        probe(&at(addr), &spec(Probe::Grpc { service }), None, false).await
    };
    assert_eq!(ask("").await, Ok(()));
    assert_eq!(ask("shop").await, Ok(()));
    assert_eq!(ask("ill").await, Err("status NOT_SERVING".into()));
    let unknown = "gRPC status 5 (unknown service): no such";
    assert_eq!(ask("other").await, Err(unknown.into()));
}

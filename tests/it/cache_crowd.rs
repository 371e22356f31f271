//! Ten thousand clients that ask for one thing at once: the origin is asked once, and everybody gets all of it.

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use h2::client::{ResponseFuture, SendRequest};
use http::{Request, StatusCode};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::cache::{config, purge};
use crate::harness::{Client, Origin, PATIENCE, Proxy, eventually, get};

const CLIENTS: usize = 10_000;
/// What a process has open beside its clients.
const OTHER_FILES: u64 = 300;
/// Of HTTP/2, on one connection.
const STREAMS: usize = 100;

/// As many clients as this process, and the proxy it starts, may have. Where that is less than ten thousand, the test over
/// HTTP/2 has all of them.
fn clients() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let room = maximum.unwrap_or(u64::MAX).saturating_sub(OTHER_FILES);
    CLIENTS.min(usize::try_from(room).unwrap())
}

/// They all come from one address here.
fn start(origin: &Origin) -> Proxy {
    let plain = config(origin, "");
    let many = plain.replace(
        "[listeners.web]",
        &format!("[listeners.web]\nmax_connections_per_source = {}", 2 * CLIENTS),
    );
    assert_ne!(plain, many);
    Proxy::start(&many)
}

/// An origin that answers `/stale` at once when it is asked first, and everything else when it is told to: half of a body
/// before that, or to `/stale` that it is current.
fn halting() -> (Origin, Sender<()>) {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let origin = Origin::start(move |seen, stream| {
        let head = "cache-control: max-age=600\r\netag: \"e\"\r\n";
        let validates = !seen.header("if-none-match").is_empty();
        let held = || wait.lock().unwrap().recv().map_err(std::io::Error::other);
        match (seen.path(), validates) {
            ("/stale", true) => {
                held()?;
                write!(stream, "HTTP/1.1 304 X\r\n{head}\r\n")?;
            }
            ("/stale" | "/replaced", false) => {
                write!(stream, "HTTP/1.1 200 X\r\n{head}content-length: 10\r\n\r\nfirst-last")?;
            }
            _ => {
                write!(stream, "HTTP/1.1 200 X\r\n{head}content-length: 10\r\n\r\nfirst")?;
                held()?;
                stream.write_all(b"-last")?;
            }
        }
        Ok(true)
    });
    (origin, go)
}

/// All of them have sent their request.
fn crowd(addr: SocketAddr, path: &str) -> Vec<Client> {
    let mut clients: Vec<_> = (0..clients()).map(|_| Client::connect(addr)).collect();
    for client in &mut clients {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    clients
}

fn all_get_it_as_it_comes(clients: &mut [Client], go: &Sender<()>) {
    for client in &mut *clients {
        assert_eq!(client.head().status, 200);
        assert_eq!(client.take(5).unwrap(), b"first");
    }
    go.send(()).unwrap();
    for client in clients {
        assert_eq!(client.take(5).unwrap(), b"-last");
    }
}

fn stored(proxy: &Proxy, path: &str) {
    get(proxy.addr("web"), path);
    eventually("it is stored", || {
        get(proxy.addr("web"), path).header("cache-status").contains("; hit")
    });
    purge(proxy, "{\"all\": true, \"soft\": true}");
}

#[test]
fn ten_thousand_that_ask_for_what_is_missing_are_one_request_to_the_origin() {
    let (origin, go) = halting();
    let proxy = start(&origin);
    let before = proxy.memory_kib();
    let mut clients = crowd(proxy.addr("web"), "/missing");
    all_get_it_as_it_comes(&mut clients, &go);
    assert_eq!(origin.seen().len(), 1);
    let each = (proxy.memory_kib() - before) * 1024 / clients.len() as u64;
    assert!(each < 32 * 1024, "{each} bytes for each who waits");
    drop(clients);
    eventually("nothing is under way", || {
        proxy.metric("evenkeel_cache_fills_active{") == 0.0
    });
}

#[test]
fn ten_thousand_that_ask_for_what_is_stale_are_one_request_to_the_origin() {
    let (origin, go) = halting();
    let proxy = start(&origin);
    stored(&proxy, "/stale");
    let mut clients = crowd(proxy.addr("web"), "/stale");
    eventually("it is being validated", || origin.seen().len() == 2);
    go.send(()).unwrap();
    for client in &mut clients {
        let reply = client.reply();
        assert_eq!((reply.status, reply.text().as_str()), (200, "first-last"));
    }
    drop(clients);
    // The same where the answer is a newer one.
    stored(&proxy, "/replaced");
    let mut clients = crowd(proxy.addr("web"), "/replaced");
    all_get_it_as_it_comes(&mut clients, &go);
    assert_eq!(origin.seen().len(), 4);
}

#[test]
fn ten_thousand_streams_that_ask_for_what_is_missing_are_one_request_to_the_origin() {
    let (origin, go) = halting();
    let proxy = start(&origin);
    let addr = proxy.addr("web");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let work = async {
        let mut answers = Vec::new();
        for _ in 0..CLIENTS / STREAMS {
            let mut client = connected(addr).await;
            for _ in 0..STREAMS {
                client = client.ready().await.unwrap();
                answers.push(ask(&mut client, "/missing"));
            }
        }
        let mut bodies = Vec::new();
        for answer in answers {
            let answer = answer.await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            bodies.push(answer.into_body());
        }
        for body in &mut bodies {
            assert_eq!(body.data().await.unwrap().unwrap(), "first");
        }
        go.send(()).unwrap();
        for body in &mut bodies {
            assert_eq!(body.data().await.unwrap().unwrap(), "-last");
        }
    };
    runtime.block_on(async { tokio::time::timeout(2 * PATIENCE, work).await.expect("in time") });
    assert_eq!(origin.seen().len(), 1);
}

async fn connected(addr: SocketAddr) -> SendRequest<bytes::Bytes> {
    let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
    let mut builder = h2::client::Builder::new();
    let (client, connection) = builder.initial_max_send_streams(STREAMS).handshake(tcp).await.unwrap();
    tokio::spawn(connection);
    client
}

fn ask(client: &mut SendRequest<bytes::Bytes>, path: &str) -> ResponseFuture {
    let request = Request::get(format!("http://test{path}")).body(()).unwrap();
    client.send_request(request, true).unwrap().0
}

//! `max_connections_per_endpoint`: never more, whoever needs one gets one, and who cannot is told.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{RecvFlags, recv};

use crate::harness::h2_origin::H2Origin;
use crate::harness::tls::Identity;
use crate::harness::{Client, Origin, Proxy, eventually, get, one_upstream, reply};

/// Stands before an origin and counts the connections that are open at the same time.
struct Gate {
    addr: SocketAddr,
    most: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
}

impl Gate {
    fn before(origin: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (most, total) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (highest, count) = (most.clone(), total.clone());
        thread::spawn(move || {
            let mut open: Vec<TcpStream> = Vec::new();
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                count.fetch_add(1, Relaxed);
                open.push(stream.try_clone().unwrap());
                // What the other side has closed before it opened this one may take a moment to arrive here.
                let until = Instant::now() + Duration::from_millis(100);
                loop {
                    open.retain(is_open);
                    if open.len() <= highest.load(Relaxed) || Instant::now() > until {
                        break;
                    }
                    thread::yield_now();
                }
                highest.fetch_max(open.len(), Relaxed);
                let to = TcpStream::connect(origin).unwrap();
                stream.set_nodelay(true).unwrap();
                to.set_nodelay(true).unwrap();
                copy(stream.try_clone().unwrap(), to.try_clone().unwrap());
                copy(to, stream);
            }
        });
        Self { addr, most, total }
    }

    fn most(&self) -> usize {
        self.most.load(Relaxed)
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    thread::spawn(move || {
        // Broken or ended: the other side is told that it is over.
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
}

fn is_open(stream: &TcpStream) -> bool {
    match recv(stream, &mut [0u8][..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((n, _)) => n > 0,
        Err(e) => e == rustix::io::Errno::AGAIN,
    }
}

fn config(workers: usize, settings: &str, endpoint: SocketAddr) -> String {
    one_upstream(settings, &[endpoint]).replace("workers = 1", &format!("workers = {workers}"))
}

/// Many clients at once, each with many requests; all are to be answered.
fn burst(web: SocketAddr, clients: usize, requests: usize) {
    thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::connect(web);
                for _ in 0..requests {
                    assert_eq!(client.get("/").status, 200);
                }
            });
        }
    });
}

#[test]
fn a_burst_from_many_clients_never_makes_more_and_all_are_answered() {
    let origin = Origin::start(|_, stream| {
        thread::sleep(Duration::from_millis(1));
        reply(stream, 200, "ok")
    });
    // More workers than connections.
    for most in [1, 2, 5] {
        let gate = Gate::before(origin.addr);
        let settings = format!("max_connections_per_endpoint = {most}\nqueue.timeout = \"20s\"\nretries = 0");
        let proxy = Proxy::start(&config(3, &settings, gate.addr));
        burst(proxy.addr("web"), 24, 15);
        assert_eq!(gate.most(), most);
        let status = &proxy.status()["upstreams"][0]["endpoints"][0];
        assert_eq!(status["connections_limit"], most);
        assert!(status["connections"].as_u64().unwrap() <= most as u64, "{status:#}");
        assert_eq!(status["attempts"]["success"], 24 * 15, "{status:#}");
    }
}

#[test]
fn a_connection_at_rest_is_given_up_for_another_worker() {
    let origin = Origin::named("ok");
    let gate = Gate::before(origin.addr);
    let settings = "max_connections_per_endpoint = 1\npool_idle_timeout = \"1h\"\nretries = 0";
    let proxy = Proxy::start(&config(4, settings, gate.addr));
    // Connections of clients are spread over the workers.
    let mut clients: Vec<_> = (0..12).map(|_| Client::connect(proxy.addr("web"))).collect();
    let begun = Instant::now();
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "somebody waited for a time-out"
    );
    assert_eq!(gate.most(), 1);
    let total = gate.total.load(Relaxed);
    assert!(
        (2..=12).contains(&total),
        "{total} connections: one for each change of workers"
    );
    assert_eq!(proxy.metric("evenkeel_endpoint_connections{upstream=\"u\""), 1.0);
}

#[test]
fn http_2_carries_all_on_as_many_as_may_be() {
    let origin = H2Origin::start(None);
    for most in [1, 2] {
        let gate = Gate::before(origin.addr);
        let settings = format!("protocol = \"h2\"\nmax_connections_per_endpoint = {most}\nretries = 0");
        let proxy = Proxy::start(&config(3, &settings, gate.addr));
        burst(proxy.addr("web"), 24, 10);
        assert_eq!(gate.most(), most);
    }
}

#[test]
fn a_long_stream_keeps_its_connection_and_who_finds_none_is_told_to_come_back() {
    let origin = H2Origin::start(None);
    let gate = Gate::before(origin.addr);
    let settings = "protocol = \"h2\"\nmax_connections_per_endpoint = 1\nconnect_timeout = \"500ms\"";
    let proxy = Proxy::start(&config(2, settings, gate.addr));
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(proxy.addr("web"))).collect();
    let mut long = clients.remove(0);
    long.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na");
    eventually("the stream is there", || gate.total.load(Relaxed) == 1);
    let replies: Vec<_> = clients.iter_mut().map(|client| client.get("/")).collect();
    let (same, other): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.status == 200);
    assert!(!same.is_empty(), "its worker uses it on");
    assert!(!other.is_empty(), "clients are spread over the workers");
    for reply in other {
        assert_eq!((reply.status, reply.header("retry-after")), (503, "1"));
    }
    let attempts = &proxy.status()["upstreams"][0]["endpoints"][0]["attempts"];
    assert!(attempts["connections_full"].as_u64().unwrap() > 0, "{attempts:#}");
    long.send("b");
    assert_eq!(long.reply().text(), "ab");
    // Nobody needs it any more: the other worker gets its turn.
    for client in &mut clients {
        assert_eq!(client.get("/").status, 200);
    }
    assert_eq!(gate.most(), 1);
}

#[test]
fn layer_4_waits_until_a_connection_ends() {
    let origin = Origin::named("ok");
    let gate = Gate::before(origin.addr);
    let listener = "[listeners.l4]\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\nupstream = \"u\"";
    let settings = format!("max_connections_per_endpoint = 2\nqueue.timeout = \"15s\"\n{listener}");
    let proxy = Proxy::start(&config(3, &settings, gate.addr));
    let l4 = proxy.addr("l4");
    let (mut first, mut second) = (Client::connect(l4), Client::connect(l4));
    assert_eq!((first.get("/").status, second.get("/").status), (200, 200));
    let mut third = Client::connect(l4);
    third.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("the third waits", || {
        proxy.metric("evenkeel_upstream_waiting{upstream=\"u\"}") == 1.0
    });
    // Layer 7 is counted with them.
    let mut web = Client::connect(proxy.addr("web"));
    web.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("so does the fourth", || {
        proxy.metric("evenkeel_upstream_waiting{upstream=\"u\"}") == 2.0
    });
    drop(first);
    assert_eq!(third.reply().status, 200);
    drop(second);
    assert_eq!(web.reply().status, 200);
    assert_eq!(gate.most(), 2);
}

#[test]
fn what_is_over_a_lower_limit_closes_and_an_endpoint_that_comes_back_has_no_more() {
    let held = Arc::new(Mutex::new(()));
    let hold = held.clone();
    let origin = Origin::start(move |_, stream| {
        drop(hold.lock().unwrap());
        reply(stream, 200, "ok")
    });
    let gate = Gate::before(origin.addr);
    let limit =
        |n| format!("max_connections_per_endpoint = {n}\npool_idle_timeout = \"1h\"\nconnect_timeout = \"300ms\"");
    let proxy = Proxy::start(&config(2, &limit(6), gate.addr));
    let mut clients: Vec<_> = (0..6).map(|_| Client::connect(proxy.addr("web"))).collect();
    let connections = || proxy.metric("evenkeel_endpoint_connections{upstream=\"u\"");
    let holding = held.lock().unwrap();
    clients
        .iter_mut()
        .for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    eventually("there are six", || connections() == 6.0);
    drop(holding);
    clients
        .iter_mut()
        .for_each(|client| assert_eq!(client.reply().status, 200));
    proxy.reload(&config(2, &limit(1), gate.addr));
    eventually("one is left", || connections() <= 1.0);
    // It leaves with a request under way, and comes back.
    let holding = held.lock().unwrap();
    let mut before = Client::connect(proxy.addr("web"));
    before.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is at work", || {
        proxy.metric("evenkeel_endpoint_active{upstream=\"u\"") == 1.0
    });
    proxy.reload(&config(2, &limit(1), origin.addr));
    proxy.reload(&config(2, &limit(1), gate.addr));
    let refused = get(proxy.addr("web"), "/");
    assert_eq!((refused.status, refused.header("retry-after")), (503, "1"));
    drop(holding);
    assert_eq!(before.reply().status, 200);
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
}

#[test]
fn all_who_wait_for_a_connection_share_its_failure() {
    // It accepts, and never shakes hands.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let identity = Identity::of(&["localhost"]);
    let ca = identity.dir();
    let settings = format!(
        "protocol = \"h2\"\nconnect_timeout = \"1s\"\nretries = 0\ntls = {{ ca = \"{}\", server_name = \"localhost\" }}",
        ca.path().join("cert.pem").display()
    );
    let proxy = Proxy::start(&config(1, &settings, silent.local_addr().unwrap()));
    let begun = Instant::now();
    let mut clients: Vec<_> = (0..8).map(|_| Client::connect(proxy.addr("web"))).collect();
    clients
        .iter_mut()
        .for_each(|client| client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    // Who began it leaves: the others do not have to begin anew.
    drop(clients.remove(0));
    for client in &mut clients {
        assert_eq!(client.reply().status, 504);
    }
    assert!(begun.elapsed() < Duration::from_millis(2_500), "{:?}", begun.elapsed());
    silent.set_nonblocking(true).unwrap();
    let dialled = std::iter::from_fn(|| silent.accept().ok()).count();
    assert!(dialled <= 2, "{dialled} connections");
}

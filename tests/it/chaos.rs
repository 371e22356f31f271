//! Eight endpoints under steady load while one after the other is killed, frozen, slowed, made to reset, to answer 500,
//! to break off halfway, to stay mute, and brought back, and the configuration reloads all the time: no client that asks
//! for something idempotent notices, and nothing that is counted is left over.

use std::collections::HashMap;
use std::io::{self, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::harness::{Client, Proxy, eventually, get, origin};

const BODY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const CLIENTS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Fault {
    None,
    Slow,
    Reset,
    Error,
    Cut,
    Mute,
    Killed,
    Frozen,
}

/// An endpoint with a fault, whose health check lies about it where it can.
struct Faulty {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    fault: AtomicU8,
    stopped: AtomicBool,
    ids: AtomicUsize,
    open: Mutex<HashMap<usize, TcpStream>>,
}

impl Faulty {
    fn start() -> Self {
        let mut all = Self {
            addr: "127.0.0.1:0".parse().unwrap(),
            shared: Arc::default(),
        };
        all.listen();
        all
    }

    fn listen(&mut self) {
        let listener = TcpListener::bind(self.addr).unwrap();
        self.addr = listener.local_addr().unwrap();
        let shared = self.shared.clone();
        shared.stopped.store(false, Relaxed);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Relaxed) {
                    break;
                }
                let Ok(stream) = stream else { continue };
                let (shared, id) = (shared.clone(), shared.ids.fetch_add(1, Relaxed));
                shared.open.lock().unwrap().insert(id, stream.try_clone().unwrap());
                std::thread::spawn(move || {
                    // The proxy may be gone.
                    let _ = serve(stream, &shared);
                    shared.open.lock().unwrap().remove(&id);
                });
            }
        });
    }

    fn set(&mut self, fault: Fault) {
        let before = self.shared.fault.swap(fault as u8, Relaxed);
        if fault == Fault::Killed {
            self.kill();
        } else if before == Fault::Killed as u8 {
            self.listen();
        }
        if before == Fault::Mute as u8 {
            self.cut_all();
        }
    }

    fn kill(&self) {
        if self.shared.stopped.swap(true, Relaxed) {
            return;
        }
        drop(TcpStream::connect(self.addr));
        eventually("the endpoint is gone", || TcpStream::connect(self.addr).is_err());
        self.cut_all();
    }

    fn cut_all(&self) {
        for stream in self.shared.open.lock().unwrap().values() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn open(&self) -> usize {
        self.shared.open.lock().unwrap().len()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", BODY.len());
    while let Some(request) = origin::read_head(&mut reader)? {
        let fault = shared.fault.load(Relaxed);
        let lies = request.path() == "/healthz" && fault != Fault::Mute as u8;
        let is = |it: Fault| fault == it as u8 && !lies;
        if is(Fault::Slow) {
            std::thread::sleep(Duration::from_millis(60));
        } else if is(Fault::Reset) {
            // Closed with bytes unread it is reset, so ask for one more first.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
            shared
                .open
                .lock()
                .unwrap()
                .retain(|_, open| open.peer_addr().ok() != stream.peer_addr().ok());
            return Ok(());
        } else if is(Fault::Error) {
            stream.write_all(b"HTTP/1.1 500 Broken\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        } else if is(Fault::Cut) {
            stream.write_all(format!("{head}{}", &BODY[..20]).as_bytes())?;
            return stream.shutdown(Shutdown::Both);
        } else if is(Fault::Mute) {
            // Until it is cut.
            while stream.peek(&mut [0])? > 0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            return Ok(());
        }
        stream.write_all(format!("{head}{BODY}").as_bytes())?;
    }
    Ok(())
}

fn config(endpoints: &[SocketAddr], turn: usize) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(|addr| format!("\"{addr}\"")).collect();
    format!(
        r#"
        [server]
        workers = 2
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        name = "all"
        upstream = "u"
        [[routes]]
        name = "turn-{turn}"
        path_exact = "/turn"
        respond = {{ status = 204 }}
        [upstreams.u]
        balance = "least_connections"
        endpoints = [{}]
        connect_timeout = "2s"
        pool_idle_timeout = "{}s"
        [upstreams.u.retries]
        max = 2
        on = ["connect_failure", "reset", "timeout", "bad_response", "5xx"]
        per_try_timeout = "1s"
        [upstreams.u.health]
        http = "/healthz"
        interval = "250ms"
        fall = 2
        rise = 1
        "#,
        endpoints.join(", "),
        // Every other reload throws all connections away.
        1 + turn % 2,
    )
}

/// Ends the threads of the test, also when it fails.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

#[derive(Default)]
struct Tally {
    asked: AtomicUsize,
    failed: Mutex<Vec<String>>,
}

/// Asks until told to end, as a client that keeps its connection does.
fn ask(web: SocketAddr, seed: usize, end: &AtomicBool, tally: &Tally) {
    let mut client = Client::connect(web);
    let mut chance = seed;
    while !end.load(Relaxed) {
        tally.asked.fetch_add(1, Relaxed);
        let begun = Instant::now();
        let sent = client.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let wrong = match sent.and_then(|()| client.try_reply(false)) {
            Ok(reply) if reply.status == 200 && reply.body == BODY.as_bytes() => None,
            Ok(reply) => Some(format!("{} {}", reply.status, reply.text())),
            Err(e) => Some(e.to_string()),
        };
        if let Some(wrong) = wrong {
            let after = begun.elapsed();
            tally.failed.lock().unwrap().push(format!("{wrong} after {after:?}"));
            client = Client::connect(web);
        }
        chance = chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        std::thread::sleep(Duration::from_millis(1 + (chance >> 33) as u64 % 6));
    }
}

fn files(proxy: &Proxy) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count()
}

#[test]
fn no_idempotent_request_fails_whatever_one_endpoint_does() {
    let mut faulty: Vec<Faulty> = (0..7).map(|_| Faulty::start()).collect();
    // The eighth is a process, which can be frozen.
    let frozen = Proxy::start(&format!(
        "[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\nrespond = {{ status = 200, body = \"{BODY}\" }}"
    ));
    let mut addrs: Vec<SocketAddr> = faulty.iter().map(|f| f.addr).collect();
    addrs.push(frozen.addr("web"));
    let proxy = Proxy::start(&config(&addrs, 1));
    let web = proxy.addr("web");
    eventually("all are up", || proxy.metric("evenkeel_endpoint_up{") == 8.0);
    let files_before = files(&proxy);
    let (tally, end) = (Tally::default(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _end = End(&end);
        for seed in 0..CLIENTS {
            let (tally, end) = (&tally, &end);
            scope.spawn(move || ask(web, seed, end, tally));
        }
        scope.spawn(|| {
            let mut turn = 1;
            while !end.load(Relaxed) {
                turn += 1;
                proxy.reload(&config(&addrs, turn));
                std::thread::sleep(Duration::from_millis(250));
            }
        });
        let asked = |n: usize| {
            let before = tally.asked.load(Relaxed);
            eventually("requests go on", || tally.asked.load(Relaxed) >= before + n);
        };
        asked(100);
        use Fault::{Cut, Error, Frozen, Killed, Mute, None, Reset, Slow};
        for (n, fault) in [Killed, Frozen, Slow, Reset, Error, Cut, Mute].into_iter().enumerate() {
            let failed = tally.failed.lock().unwrap().len();
            match fault {
                Frozen => frozen.signal(STOP),
                fault => faulty[n].set(fault),
            }
            asked(300);
            std::thread::sleep(Duration::from_millis(400));
            match fault {
                Frozen => frozen.signal(CONT),
                _ => faulty[n].set(None),
            }
            asked(100);
            let failed = tally.failed.lock().unwrap().split_off(failed);
            assert!(failed.is_empty(), "{fault:?}: {failed:#?}");
        }
    });
    let asked = tally.asked.load(Relaxed);
    assert!(asked > 2_500, "{asked}");
    assert!(proxy.metric("evenkeel_retries_total{") > 20.0);

    eventually("nothing is under way", || {
        proxy.metric("evenkeel_endpoint_active{") == 0.0
            && proxy.metric("evenkeel_connections_active{") == 0.0
            && proxy.metric("evenkeel_endpoint_idle_connections{") == 0.0
    });
    // But probes.
    eventually("no connection is left", || {
        faulty.iter().map(Faulty::open).sum::<usize>() <= 7
    });
    eventually("no file is left open", || files(&proxy) <= files_before + 8);
    assert_eq!(proxy.status()["leaving"], serde_json::json!([]));
    assert_eq!(get(web, "/").text(), BODY);
}

const STOP: i32 = 19;
const CONT: i32 = 18;

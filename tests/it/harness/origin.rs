//! A scripted HTTP/1 origin: a thread per connection, every request remembered.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

/// A request as the origin got it.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method, target, version.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    /// The only value of a field; empty when there is none.
    #[track_caller]
    pub fn header(&self, name: &str) -> &str {
        let values: Vec<_> = self.headers.iter().filter(|(n, _)| n == name).collect();
        assert!(values.len() <= 1, "{name} stands {} times", values.len());
        values.first().map_or("", |(_, v)| v)
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// A listening origin; stops when dropped.
pub struct Origin {
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    accepted: AtomicUsize,
    open: AtomicUsize,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl Origin {
    /// Every request is read whole, then `answer` writes what it wants; `Ok(true)` keeps the connection.
    pub fn start(answer: impl Fn(&Seen, &mut TcpStream) -> io::Result<bool> + Send + Sync + 'static) -> Self {
        Self::raw(move |stream, shared| {
            let mut reader = BufReader::new(stream.try_clone()?);
            while let Some(seen) = read(&mut reader)? {
                shared.lock().unwrap().push(seen.clone());
                if !answer(&seen, stream)? {
                    break;
                }
            }
            Ok(())
        })
    }

    /// `serve` has each connection to itself.
    pub fn raw(serve: impl Fn(&mut TcpStream, &Mutex<Vec<Seen>>) -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    /// Answers 200 with its address, listening there. `None`: somebody else does.
    pub fn at(addr: &str) -> Option<Self> {
        let listener = TcpListener::bind(addr).ok()?;
        let name = listener.local_addr().unwrap().to_string();
        Some(Self::on(listener, move |stream, _| {
            let mut reader = BufReader::new(stream.try_clone()?);
            while read(&mut reader)?.is_some() && reply(stream, 200, &name)? {}
            Ok(())
        }))
    }

    fn on(
        listener: TcpListener,
        serve: impl Fn(&mut TcpStream, &Mutex<Vec<Seen>>) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (all, serve) = (shared.clone(), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if all.stopped.load(Relaxed) {
                    break;
                }
                let Ok(mut stream) = stream else { continue };
                stream.set_nodelay(true).unwrap();
                all.accepted.fetch_add(1, Relaxed);
                all.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, serve) = (all.clone(), serve.clone());
                shared.open.fetch_add(1, Relaxed);
                std::thread::spawn(move || {
                    // An error is the proxy closing the connection, which tests see elsewhere.
                    let _ = serve(&mut stream, &shared.seen);
                    let _ = stream.shutdown(Shutdown::Both);
                    shared.open.fetch_sub(1, Relaxed);
                });
            }
        });
        Self { addr, shared }
    }

    /// Answers 200 with `name` as the body and the request's head in `x-seen-*` of what matters.
    pub fn named(name: &'static str) -> Self {
        Self::start(move |_, stream| reply(stream, 200, name))
    }

    /// An address where nobody listens.
    pub fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    /// Requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// The newest request.
    #[track_caller]
    pub fn last(&self) -> Seen {
        self.seen().pop().expect("a request")
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Relaxed)
    }

    /// Connections open now.
    pub fn open(&self) -> usize {
        self.shared.open.load(Relaxed)
    }

    /// As SIGKILL would: the socket is closed, every connection reset.
    pub fn kill(&self) {
        if self.shared.stopped.swap(true, Relaxed) {
            return;
        }
        // Wakes the accepting thread, which then closes the socket.
        drop(TcpStream::connect(self.addr));
        super::eventually("the origin is gone", || TcpStream::connect(self.addr).is_err());
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Relaxed);
        drop(TcpStream::connect(self.addr));
        for stream in self.shared.connections.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Writes a response with a length and keeps the connection.
pub fn reply(stream: &mut TcpStream, status: u16, body: &str) -> io::Result<bool> {
    let length = body.len();
    stream.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes())?;
    Ok(true)
}

/// One request; `None` at the end of the connection.
pub fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let Some(mut seen) = read_head(reader)? else {
        return Ok(None);
    };
    if seen.header("transfer-encoding") == "chunked" {
        loop {
            let size = usize::from_str_radix(line(reader)?.trim(), 16).map_err(io::Error::other)?;
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk)?;
            seen.body.extend(chunk);
            if size == 0 {
                // Trailers are remembered as fields.
                while let Some((name, value)) = line(reader)?.split_once(": ") {
                    seen.headers.push((name.to_ascii_lowercase(), value.to_owned()));
                }
                break;
            }
            line(reader)?;
        }
    } else if let Ok(length) = seen.header("content-length").parse() {
        seen.body = vec![0; length];
        reader.read_exact(&mut seen.body)?;
    }
    Ok(Some(seen))
}

/// One request's head.
pub fn read_head(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Seen>> {
    let first = line(reader)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = Vec::new();
    while let Some((name, value)) = line(reader)?.split_once(": ") {
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
    Ok(Some(Seen {
        line: first,
        headers,
        body: Vec::new(),
    }))
}

fn line(reader: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end_matches("\r\n").to_owned())
}

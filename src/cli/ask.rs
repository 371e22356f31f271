//! Asking the admin listener of a running evenkeel: one request, one answer, over TCP or a Unix socket.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::Args;

use crate::net::addr::EndpointAddr;

/// Where the running evenkeel is asked.
#[derive(Debug, Args)]
pub struct Admin {
    /// The admin listener: `address:port`, `:port` or `unix:/path`.
    #[arg(
        long = "admin",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9900",
        env = "EVENKEEL_ADMIN"
    )]
    pub address: String,
}

pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

const CONNECT: Duration = Duration::from_secs(3);
/// No answer is longer.
const MAX_ANSWER: u64 = 64 << 20;

impl Admin {
    /// Sends one request and reads the answer, within `patience` for each read. `body`: JSON.
    pub fn ask(&self, method: &str, path: &str, body: Option<&str>, patience: Duration) -> Result<Answer, String> {
        let answer = match EndpointAddr::parse(&self.address)? {
            EndpointAddr::Ip(addr) => tcp(&addr, method, path, body, patience),
            EndpointAddr::Name { host, port } => tcp(&(&*host, port), method, path, body, patience),
            EndpointAddr::Unix(at) => UnixStream::connect(at).and_then(|stream| {
                stream.set_read_timeout(Some(patience))?;
                exchange(stream, method, path, body)
            }),
        };
        let answer = answer.map_err(|e| match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
            _ => e.to_string(),
        })?;
        parse(&answer).ok_or_else(|| "what answers is no HTTP server".to_owned())
    }

    /// What to say where there is no answer.
    pub fn failed(&self, error: &str) -> String {
        format!("evenkeel: cannot ask {}: {error}\n", self.address)
    }
}

/// Tries every address of a name.
fn tcp(
    at: &impl ToSocketAddrs,
    method: &str,
    path: &str,
    body: Option<&str>,
    patience: Duration,
) -> io::Result<Vec<u8>> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for addr in at.to_socket_addrs()? {
        match TcpStream::connect_timeout(&addr, CONNECT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(patience))?;
                return exchange(stream, method, path, body);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

fn exchange(mut stream: impl Read + Write, method: &str, path: &str, body: Option<&str>) -> io::Result<Vec<u8>> {
    let body = body.unwrap_or_default();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: evenkeel\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer)
}

/// Status and body of an answer whose end is that of its connection.
fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let status = answer.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
    Some(Answer {
        status: std::str::from_utf8(status).ok()?.parse().ok()?,
        body: answer.get(end + 4..)?.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_have_a_status_and_a_body() {
        let answer = parse(b"HTTP/1.1 422 Unprocessable\r\na: b\r\n\r\n{}\r\n\r\n").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (422, &b"{}\r\n\r\n"[..]));
        for bad in [&b""[..], b"HTTP/1.1 200 OK\r\n", b"SSH-2.0\r\n\r\n\r\n"] {
            assert!(parse(bad).is_none());
        }
    }
}

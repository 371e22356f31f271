//! `evenkeel healthz`: a health check for images that have no curl.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::complain;
use crate::net::addr::EndpointAddr;

#[derive(Debug, Args)]
pub struct Options {
    /// The admin listener: `address:port`, `:port` or `unix:/path`.
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:9900",
        env = "EVENKEEL_ADMIN"
    )]
    admin: String,
}

const TIMEOUT: Duration = Duration::from_secs(3);
/// Of the answer; the status line is all that matters.
const MAX_ANSWER: u64 = 4096;

pub fn healthz(options: &Options) -> ExitCode {
    match ask(&options.admin) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            complain(format_args!("evenkeel: {} is not ready\n", options.admin));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(format_args!("evenkeel: cannot ask {}: {error}\n", options.admin));
            ExitCode::FAILURE
        }
    }
}

fn ask(admin: &str) -> Result<bool, String> {
    let answer = match EndpointAddr::parse(admin)? {
        EndpointAddr::Ip(addr) => TcpStream::connect_timeout(&addr, TIMEOUT).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }),
        EndpointAddr::Unix(path) => UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(TIMEOUT))?;
            exchange(stream)
        }),
        EndpointAddr::Name { .. } => return Err("expected an IP address or a Unix socket".to_owned()),
    };
    answer.map_err(|e| e.to_string())
}

fn exchange(mut stream: impl Read + Write) -> io::Result<bool> {
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: evenkeel\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

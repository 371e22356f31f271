//! The access log: one line per request or connection, written off the data path, bounded, counted when dropped.

mod render;
mod writer;

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::{Duration, SystemTime};

pub use self::render::Format;
pub use self::writer::{AccessLog, Output, start};

/// One request (or Layer-4 connection).
#[derive(Debug, Clone)]
pub struct Line {
    /// When its first byte came.
    pub time: SystemTime,
    pub listener: Arc<str>,
    /// Address and port of the other end, or the address that a trusted proxy told.
    pub client: String,
    pub method: String,
    /// The request's host; at Layer 4 the server name of a ClientHello.
    pub host: String,
    pub target: String,
    /// `HTTP/1.0`, `HTTP/1.1`, `HTTP/2.0` or `TCP`.
    pub protocol: &'static str,
    /// 0 at Layer 4.
    pub status: u16,
    /// Body bytes from the client, and what was written to it (over HTTP/1 with the head); at Layer 4 all bytes.
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    /// The last one tried.
    pub endpoint: Option<Arc<str>>,
    pub attempts: u32,
    /// How long it waited for an endpoint with room.
    pub queued: Option<Duration>,
    /// From the first byte to the last.
    pub total: Duration,
    /// Of the last attempt: until the connection was made, absent when one was reused.
    pub connect: Option<Duration>,
    /// From the start to the response's head.
    pub response: Option<Duration>,
    /// Why it failed.
    pub error: Option<Cow<'static, str>>,
    /// What the cache did.
    pub cache: Option<&'static str>,
    /// GraphQL's name of what was asked for.
    pub operation: Option<Box<str>>,
    /// What became of the cookie that binds the client to an endpoint.
    pub sticky: Option<&'static str>,
    /// Class and reason of a request that is not compliant.
    pub desync: Option<(&'static str, &'static str)>,
    pub user_agent: Option<String>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            listener: Arc::default(),
            client: String::new(),
            method: String::new(),
            host: String::new(),
            target: String::new(),
            protocol: "",
            status: 0,
            bytes_in: 0,
            bytes_out: 0,
            route: None,
            upstream: None,
            endpoint: None,
            attempts: 0,
            queued: None,
            total: Duration::ZERO,
            connect: None,
            response: None,
            error: None,
            cache: None,
            operation: None,
            sticky: None,
            desync: None,
            user_agent: None,
        }
    }
}

/// Hands lines to the writer. The default one throws them away.
#[derive(Debug, Clone, Default)]
pub struct Sender(Option<(SyncSender<writer::Message>, Arc<writer::Shared>)>);

impl Sender {
    /// Lines that could not be written.
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |(_, shared)| shared.dropped())
    }

    /// Hands a line over; never waits: when the writer is too far behind, the line is dropped and counted.
    pub fn send(&self, line: Box<Line>) {
        let Some((queue, shared)) = &self.0 else { return };
        match queue.try_send(writer::Message::Line(line)) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => shared.drop_lines(1),
        }
    }
}

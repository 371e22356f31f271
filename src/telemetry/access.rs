//! The access log: one line per request or connection, written off the data path, bounded.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// One request (or Layer-4 connection).
#[derive(Debug, Clone)]
pub struct Line {
    pub time: SystemTime,
    pub listener: Arc<str>,
    pub client: String,
    pub method: String,
    pub host: String,
    pub target: String,
    pub protocol: &'static str,
    pub status: u16,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub endpoint: Option<Arc<str>>,
    pub attempts: u32,
    pub total: Duration,
    pub connect: Option<Duration>,
    pub response: Option<Duration>,
    pub error: Option<Cow<'static, str>>,
    pub user_agent: Option<String>,
}

impl Default for Line {
    fn default() -> Self {
        Self {
            time: SystemTime::UNIX_EPOCH,
            listener: "".into(),
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
            total: Duration::ZERO,
            connect: None,
            response: None,
            error: None,
            user_agent: None,
        }
    }
}

/// Where lines go.
#[derive(Debug, Clone, Default)]
pub struct Sender;

impl Sender {
    /// Hands a line over.
    pub fn send(&self, _line: Box<Line>) {}
}

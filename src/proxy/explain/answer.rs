//! What is told of a request: read by people over the command line, by machines as JSON.

use std::net::{IpAddr, Ipv4Addr};

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// What becomes of a request, in the order in which it happens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Explanation {
    pub method: String,
    pub url: String,
    pub from: IpAddr,
    pub listener: Listener,
    /// `null`: the listener ends no TLS.
    pub certificate: Option<Certificate>,
    pub path: Option<Path>,
    pub route: Option<Route>,
    /// Routes that are not taken, the closest first.
    pub others: Vec<Other>,
    pub others_left_out: usize,
    pub action: Option<Action>,
    pub cache: Option<Cache>,
    /// Of a split all that may be taken.
    pub upstreams: Vec<Upstream>,
    /// It ends before it comes to an action.
    pub ends: Option<Ends>,
    pub notes: Vec<String>,
}

impl Default for Explanation {
    fn default() -> Self {
        Self {
            method: String::new(),
            url: String::new(),
            from: Ipv4Addr::UNSPECIFIED.into(),
            listener: Listener::default(),
            certificate: None,
            path: None,
            route: None,
            others: Vec::new(),
            others_left_out: 0,
            action: None,
            cache: None,
            upstreams: Vec::new(),
            ends: None,
            notes: Vec::new(),
        }
    }
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Listener {
    pub name: String,
    /// `http` or `tcp`.
    pub protocol: String,
    pub tls: bool,
    pub addresses: Vec<String>,
    /// Why this one.
    pub why: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    pub file: String,
    pub names: Vec<String>,
    /// RFC 3339.
    pub not_after: String,
    /// Why this one.
    pub why: String,
    /// A client that verifies takes it: it is for the name, and its time is not over.
    pub fits: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Path {
    pub received: String,
    pub query: Option<String>,
    /// What routes are matched against.
    pub route: String,
    /// What endpoints get.
    pub forward: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Route {
    pub name: String,
    /// What it asks of requests.
    pub predicates: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Other {
    pub route: String,
    pub why: String,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Action {
    /// `forward`, `redirect`, `respond`, or `relay` at Layer 4.
    pub kind: String,
    pub status: Option<u16>,
    pub location: Option<String>,
    pub details: Vec<String>,
}

impl Action {
    pub fn of(kind: &str, details: impl IntoIterator<Item = String>) -> Self {
        Self {
            kind: kind.to_owned(),
            details: details.into_iter().collect(),
            ..Self::default()
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cache {
    pub name: String,
    /// `null`: it would be too long.
    pub key: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Upstream {
    pub name: String,
    /// Of the route's requests, from 0 to 1.
    pub share: f64,
    /// What picks.
    pub algorithm: String,
    /// The algorithm was not configured, but chosen by who uses the upstream.
    pub auto: bool,
    /// What is hashed, where something is.
    pub hashed: Option<Hashed>,
    /// What the client's cookie says, where clients are bound.
    pub sticky: Option<String>,
    /// How many endpoints one request may be tried at.
    pub attempts: u32,
    /// What decides the order of `endpoints`.
    pub order: String,
    /// Those that are asked, the first to be asked first; then the others.
    pub endpoints: Vec<Endpoint>,
    pub endpoints_left_out: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Hashed {
    /// As configured.
    pub key: String,
    /// The request has it.
    pub found: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    pub address: String,
    /// The how-manieth that is asked; `null`: not at all.
    pub turn: Option<usize>,
    /// Of the upstream's requests by weight alone, from 0 to 1.
    pub share: f64,
    /// `checking`, `up` or `down`.
    pub health: String,
    pub weight: u16,
    pub active: u32,
    /// How many may be.
    pub limit: Option<u32>,
    pub priority: u8,
    pub zone: Option<String>,
    pub backup: bool,
    /// Why it is asked so early, or not at all; empty: nothing to say beyond the order.
    pub why: String,
}

/// A request that evenkeel ends by itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ends {
    /// `null`: the connection ends without an answer.
    pub status: Option<u16>,
    pub why: String,
}

impl Ends {
    pub fn with(status: StatusCode, why: impl Into<String>) -> Self {
        Self {
            status: Some(status.as_u16()),
            why: why.into(),
        }
    }

    pub fn closed(why: impl Into<String>) -> Self {
        Self {
            status: None,
            why: why.into(),
        }
    }
}

//! Which route a request takes: predicates, precedence, and a table whose lookup cost does not grow
//! with the number of routes.

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use regex::Regex;

/// A route's predicates, all of which must hold. Precedence as in the Kubernetes Gateway API.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// Any of these; empty: every host.
    pub hosts: Vec<HostPattern>,
    pub path: PathMatch,
    /// Any of these; empty: every method.
    pub methods: Vec<Method>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub query: Vec<(String, String)>,
    pub cookies: Vec<(String, String)>,
    /// The client's address is in one of these; empty: every address.
    pub sources: Vec<IpNet>,
    /// Higher wins over every other rule; default 0.
    pub priority: i32,
}

/// A host name, lower case, without port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// `*.shop.example` as `shop.example`: one or more labels before it.
    Wildcard(String),
}

/// How the path is matched, after normalisation, without the query.
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Whole segments: `/api` matches `/api` and `/api/x`. `/` matches everything.
    Prefix(String),
    Exact(String),
    /// Anchored at both ends by the compiler of the configuration.
    Regex(Regex),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

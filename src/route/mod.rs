//! Which route a request takes: predicates, precedence, and a table whose lookup cost does not grow
//! with the number of routes.
//!
//! Of the routes that match, `priority` decides, then the host (exact over longer wildcard over
//! shorter wildcard over any), then the path (exact over longest prefix over regex), then whether
//! the method is named, then more headers, more query predicates, more cookies, whether sources are
//! named, and at last the order of the file. As in the Kubernetes Gateway API (HTTPRouteRule), to
//! which cookies, sources, regexes' place and `priority` are added.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, Method};
use ipnet::IpNet;
use regex::Regex;

use crate::fields::Fields;

pub use self::normalise::{Normalised, PathError, normalise};
pub use self::predicates::Lack;
pub use self::table::Table;
pub use self::trace::{Considered, Lost};
pub use self::unreachable::unreachable;

mod host;
mod normalise;
mod path;
mod predicates;
#[cfg(test)]
mod reference;
mod regexes;
mod table;
mod trace;
mod unreachable;

/// A route's predicates, all of which must hold. Precedence as in the Kubernetes Gateway API.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    /// Any of these; empty: every host.
    pub hosts: Vec<HostPattern>,
    pub path: PathMatch,
    /// Any of these; empty: every method.
    pub methods: Vec<Method>,
    /// For each, one of the fields with that name is exactly this value.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// For each, one of the parameters with that name is this value; both are compared decoded.
    pub query: Vec<(String, String)>,
    /// For each, one of the cookies with that name is exactly this value.
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

/// How the path is matched, after normalisation, without the query. So a path here should itself be as
/// [`normalise`] gives it (`Normalised::route`).
#[derive(Debug, Clone)]
pub enum PathMatch {
    /// Whole segments: `/api` (or `/api/`) matches `/api`, `/api/` and `/api/x`. `/` matches everything.
    Prefix(String),
    Exact(String),
    /// Anchored at both ends by the compiler of the configuration. Flags stand in the pattern (`(?i)`), not beside it.
    Regex(Regex),
}

impl Default for PathMatch {
    fn default() -> Self {
        Self::Prefix("/".into())
    }
}

/// What of a request decides its route.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub method: &'a Method,
    /// Lower case, without port and without a dot at the end.
    pub host: &'a str,
    /// Normalised (`Normalised::route`).
    pub path: &'a str,
    /// Without its `?`.
    pub query: Option<&'a str>,
    pub headers: &'a Fields,
    pub source: IpAddr,
}

//! Why a request takes its route and no other: the table is asked again and again, each time without those it has named.

use std::cmp::Ordering;
use std::fmt;

use super::path::{Entry, bare};
use super::predicates::{Lack, Rank};
use super::{HostPattern, Matcher, PathMatch, Request, Table};

/// A route whose host and path match a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Considered<'t> {
    /// Its place among the routes the table was made for.
    pub route: usize,
    /// How many of the host patterns that match are more specific than its own.
    pub host: usize,
    /// The first of its other predicates that does not hold. `None`: it matches.
    pub lacks: Option<Lack<'t>>,
}

/// Why a route is not the one that is taken.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lost<'t> {
    Lacks(Lack<'t>),
    /// Its priority, and that of the route that is taken.
    Priority(i32, i32),
    /// A more specific host is named there.
    Host,
    /// A more specific path is.
    Path,
    /// More is asked for there.
    AsksLess,
    /// It stands later in the file.
    Later,
}

impl fmt::Display for Lost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lacks(lack) => write!(f, "the request lacks {lack}"),
            Self::Priority(own, taken) => write!(f, "matches too, but has priority {own}, not {taken}"),
            Self::Host => f.write_str("matches too, but names the host less closely"),
            Self::Path => f.write_str("matches too, but names the path less closely"),
            Self::AsksLess => f.write_str("matches too, but asks for less"),
            Self::Later => f.write_str("matches too, but stands later in the file"),
        }
    }
}

impl Table {
    /// The routes whose host and path match, at most `most` of them, in the order in which they would be taken: the
    /// first of them that lacks nothing is what [`Table::find`] answers. Costs a look-up for each.
    pub fn considered(&self, request: &Request<'_>, most: usize) -> Vec<Considered<'_>> {
        let mut all: Vec<Considered<'_>> = Vec::new();
        while all.len() < most {
            let mut best: Option<(usize, &Entry)> = None;
            for (host, paths) in self.hosts.matching(request.host).enumerate() {
                let before = best.map(|(_, entry)| entry);
                let is_new = |entry: &Entry| all.iter().all(|known| known.route != entry.route as usize);
                let found = paths.better(request.path, before, is_new);
                match (before, found) {
                    (Some(before), Some(found)) if std::ptr::eq(before, found) => {}
                    (_, found) => best = found.map(|entry| (host, entry)),
                }
            }
            let Some((host, entry)) = best else { break };
            let condition = entry.condition.and_then(|at| self.conditions.get(at as usize));
            all.push(Considered {
                route: entry.route as usize,
                host,
                lacks: condition.and_then(|condition| condition.lacks(request)),
            });
        }
        all
    }
}

impl<'t> Considered<'t> {
    /// Why this route is not taken, but `taken`. `matcher` and `takes` are their predicates.
    pub fn lost(&self, matcher: &Matcher, taken: &Self, takes: &Matcher) -> Lost<'t> {
        if let Some(lack) = self.lacks {
            Lost::Lacks(lack)
        } else if matcher.priority != takes.priority {
            Lost::Priority(matcher.priority, takes.priority)
        } else if self.host != taken.host {
            Lost::Host
        } else if closeness(&matcher.path) != closeness(&takes.path) {
            Lost::Path
        } else if Rank::of(matcher).cmp(&Rank::of(takes)) == Ordering::Less {
            Lost::AsksLess
        } else {
            Lost::Later
        }
    }
}

/// Greater for what is looked at first.
fn closeness(path: &PathMatch) -> (u8, usize) {
    match path {
        PathMatch::Exact(_) => (2, 0),
        PathMatch::Prefix(prefix) => (1, bare(prefix).len()),
        PathMatch::Regex(_) => (0, 0),
    }
}

impl Matcher {
    /// Whether its hosts have `host` among them, which is written as in a [`Request`].
    pub fn takes_host(&self, request: &Request<'_>) -> bool {
        let hosts = Matcher {
            hosts: self.hosts.clone(),
            ..Matcher::default()
        };
        Table::new(&[&hosts]).find(request).is_some()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(parent) => write!(f, "*.{parent}"),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(path) => write!(f, "path {path}"),
            Self::Exact(path) => write!(f, "path_exact {path}"),
            Self::Regex(regex) => {
                // Without the anchors that the compiler of the configuration has put around it.
                let text = regex.as_str();
                let written = text.strip_prefix("^(?:").and_then(|text| text.strip_suffix(")$"));
                write!(f, "path_regex {}", written.unwrap_or(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::super::reference;
    use super::*;
    use crate::fields::Fields;

    fn route(host: Option<&str>, path: PathMatch) -> Matcher {
        Matcher {
            hosts: host.map(|host| HostPattern::Exact(host.into())).into_iter().collect(),
            path,
            ..Matcher::default()
        }
    }

    #[test]
    fn says_why_each_of_the_others_is_not_taken() {
        let prefix = |path: &str| PathMatch::Prefix(path.into());
        let mut routes = [
            route(Some("a.example"), prefix("/api")),
            route(Some("a.example"), prefix("/api")),
            route(Some("a.example"), prefix("/api")),
            route(Some("a.example"), prefix("/")),
            route(None, PathMatch::Exact("/api".into())),
            route(Some("a.example"), PathMatch::Exact("/api".into())),
            route(Some("b.example"), prefix("/api")),
            route(Some("a.example"), prefix("/other")),
        ];
        routes[0].methods = vec![Method::POST];
        routes[1].methods = vec![Method::GET];
        routes[5].priority = -1;
        let fields = Fields::default();
        let request = Request {
            method: &Method::GET,
            host: "a.example",
            path: "/api",
            query: None,
            headers: &fields,
            source: [192, 0, 2, 1].into(),
        };
        let table = Table::new(&routes.iter().collect::<Vec<_>>());
        let all = table.considered(&request, 100);
        assert_eq!(table.find(&request), Some(1));
        let taken = all.iter().find(|one| one.route == 1).unwrap();
        let lost: Vec<_> = all
            .iter()
            .filter(|one| one.route != 1)
            .map(|one| (one.route, one.lost(&routes[one.route], taken, &routes[1]).to_string()))
            .collect();
        let lost: Vec<_> = lost.iter().map(|(route, why)| (*route, why.as_str())).collect();
        assert_eq!(
            lost,
            [
                (0, "the request lacks the method POST"),
                (2, "matches too, but asks for less"),
                (3, "matches too, but names the path less closely"),
                (4, "matches too, but names the host less closely"),
                (5, "matches too, but has priority -1, not 0"),
            ]
        );
        assert!(!routes[6].takes_host(&request) && routes[7].takes_host(&request));
        assert_eq!(table.considered(&request, 2).len(), 2);
    }

    proptest! {
        #[test]
        fn the_first_that_lacks_nothing_is_what_is_found(
            routes in reference::routes(), requests in prop::collection::vec(reference::request(), 1..10),
        ) {
            let routes: Vec<&Matcher> = routes.iter().collect();
            let table = Table::new(&routes);
            for request in &requests {
                let all = table.considered(&request.as_ref(), usize::MAX);
                let first = all.iter().find(|one| one.lacks.is_none());
                prop_assert_eq!(first.map(|one| one.route), table.find(&request.as_ref()));
                let mut named: Vec<usize> = all.iter().map(|one| one.route).collect();
                named.sort_unstable();
                named.dedup();
                prop_assert_eq!(named.len(), all.len());
            }
        }
    }
}

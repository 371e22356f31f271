//! The routing table: from a request to its route.
//!
//! A lookup asks a few hash maps: for the host and each of its parent domains, and under each
//! pattern that exists for the path and each of its prefixes at a segment's end, all from the most to
//! the least specific. So it costs what the request is long, however many routes there are; only routes
//! with the same host and path are looked at one by one. It ends at the first route that holds, unless
//! a less specific one has a higher priority: each map knows the highest within.

use std::cmp::Reverse;

use super::host::Hosts;
use super::path::{Entry, Paths};
use super::predicates::{Predicates, Rank};
use super::{Matcher, PathMatch, Request};

/// Routes made ready for lookup. Never changes: another is built for another set of routes.
#[derive(Debug)]
pub struct Table {
    pub(super) hosts: Hosts<Box<Paths>>,
    /// Of the routes that have any.
    pub(super) conditions: Box<[Predicates]>,
}

impl Table {
    /// A table for `routes` in the order of the file; [`Self::find`] answers with an index into them.
    pub fn new(routes: &[&Matcher]) -> Self {
        let mut ranked: Vec<(u32, &Matcher, Rank)> = (0..)
            .zip(routes)
            .map(|(route, matcher)| (route, *matcher, Rank::of(matcher)))
            .collect();
        ranked.sort_unstable_by_key(|(route, matcher, rank)| (Reverse((matcher.priority, *rank)), *route));

        let mut conditions = Vec::new();
        let mut hosts: Hosts<Vec<(&PathMatch, Entry)>> = Hosts::default();
        for (place, (route, matcher, rank)) in (0..).zip(ranked) {
            let condition = (!rank.is_unconditional()).then_some(conditions.len() as u32);
            if condition.is_some() {
                conditions.push(Predicates::of(matcher));
            }
            let entry = Entry {
                route,
                priority: matcher.priority,
                place,
                condition,
            };
            if matcher.hosts.is_empty() {
                hosts.entry(None).push((&matcher.path, entry));
            }
            for host in &matcher.hosts {
                hosts.entry(Some(host)).push((&matcher.path, entry));
            }
        }
        Self {
            hosts: hosts.map(|routes| Box::new(Paths::new(&routes))),
            conditions: conditions.into(),
        }
    }

    /// The route `request` takes, if it has one.
    ///
    /// Allocates nothing, but for a few bytes where a request gets as far as several regular expressions of one host
    /// and one of them matches.
    pub fn find(&self, request: &Request<'_>) -> Option<usize> {
        let accepted = |entry: &Entry| match entry.condition {
            None => true,
            Some(at) => self
                .conditions
                .get(at as usize)
                .is_some_and(|condition| condition.hold(request)),
        };
        let mut best = None;
        for paths in self.hosts.matching(request.host) {
            best = paths.better(request.path, best, accepted);
        }
        best.map(|entry| entry.route as usize)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use regex::Regex;

    use super::super::HostPattern::{self, Exact, Wildcard};
    use super::super::reference;
    use super::*;

    fn host(pattern: &str) -> HostPattern {
        match pattern.strip_prefix("*.") {
            Some(name) => Wildcard(name.into()),
            None => Exact(pattern.into()),
        }
    }

    /// `"host path"`, path `=/exact`, `~regex` or `/prefix`; `-` for every host.
    fn route(text: &str) -> Matcher {
        let (hosts, path) = text.split_once(' ').unwrap();
        Matcher {
            hosts: hosts.split(',').filter(|name| *name != "-").map(host).collect(),
            path: match (path.strip_prefix('='), path.strip_prefix('~')) {
                (Some(path), _) => PathMatch::Exact(path.into()),
                (_, Some(pattern)) => PathMatch::Regex(Regex::new(&format!("^(?:{pattern})$")).unwrap()),
                _ => PathMatch::Prefix(path.into()),
            },
            ..Matcher::default()
        }
    }

    fn find(routes: &[Matcher], method: Method, host: &str, path: &str) -> Option<usize> {
        Table::new(&routes.iter().collect::<Vec<_>>()).find(&Request {
            method: &method,
            host,
            path,
            query: None,
            headers: &crate::fields::Fields::default(),
            source: [192, 0, 2, 1].into(),
        })
    }

    #[test]
    fn the_most_specific_route_wins_wherever_it_stands() {
        let routes = [
            "- /",
            "*.example /",
            "*.shop.example /",
            "a.shop.example /",
            "a.shop.example /api",
            "a.shop.example /api/v1/",
            "a.shop.example =/api/v1/x",
            "b.shop.example ~/re.*",
            "b.shop.example ~/re/x",
            "b.shop.example /re/y",
        ]
        .map(route);
        for (host, path, expected) in [
            ("other", "/", 0),
            ("x.example", "/api", 1),
            ("x.y.shop.example", "/api", 2),
            ("a.shop.example", "/", 3),
            ("a.shop.example", "/apix", 3),
            ("a.shop.example", "/api", 4),
            ("a.shop.example", "/api/v1x", 4),
            ("a.shop.example", "/api/v1", 5),
            ("a.shop.example", "/api/v1/y", 5),
            ("a.shop.example", "/api/v1/x", 6),
            ("a.shop.example", "/api/v1/x/", 5),
            ("b.shop.example", "/re/x", 7),
            ("b.shop.example", "/re/y/z", 9),
            // Nothing for that path at the host itself: the next pattern has its turn.
            ("b.shop.example", "/", 2),
        ] {
            assert_eq!(find(&routes, Method::GET, host, path), Some(expected), "{host}{path}");
        }
    }

    #[test]
    fn a_route_whose_predicates_fail_gives_way_to_the_next() {
        let mut routes = ["a.example =/x", "a.example /x", "*.example /x", "- ~/x"].map(route);
        for (only, route) in [Method::PUT, Method::POST, Method::GET].into_iter().zip(&mut routes) {
            route.methods.push(only);
        }
        for (method, expected) in [(Method::PUT, 0), (Method::POST, 1), (Method::GET, 2), (Method::HEAD, 3)] {
            assert_eq!(find(&routes, method, "a.example", "/x"), Some(expected));
        }
        assert_eq!(find(&routes, Method::HEAD, "a.example", "/y"), None);
    }

    #[test]
    fn priority_overrides_everything() {
        let mut routes = ["a.example =/x", "a.example /", "- ~/x", "- /"].map(route);
        for (priority, expected) in [
            ([0, 0, 0, 0], 0),
            ([0, 1, 0, 0], 1),
            ([0, 1, 2, 0], 2),
            ([-1, -2, -2, -1], 0),
        ] {
            for (route, priority) in routes.iter_mut().zip(priority) {
                route.priority = priority;
            }
            assert_eq!(
                find(&routes, Method::GET, "a.example", "/x"),
                Some(expected),
                "{priority:?}"
            );
        }
    }

    #[test]
    fn no_routes_match_nothing() {
        assert_eq!(find(&[], Method::GET, "a.example", "/"), None);
        assert_eq!(
            find(&[route("a.example,a.example /")], Method::GET, "a.example", "/"),
            Some(0)
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn finds_what_a_linear_scan_by_the_rules_finds(
            routes in reference::routes(), requests in prop::collection::vec(reference::request(), 1..30),
        ) {
            let routes: Vec<&Matcher> = routes.iter().collect();
            let table = Table::new(&routes);
            for request in &requests {
                prop_assert_eq!(table.find(&request.as_ref()), reference::find(&routes, &request.as_ref()), "{:?}", request);
            }
        }
    }
}

//! Routes that no request can reach, because another covers them and always wins.

use std::cmp::{Ordering, Reverse};

use foldhash::HashMap;

use super::host::parents;
use super::path::{bare, prefixes};
use super::predicates::{Predicates, Rank};
use super::{HostPattern, Matcher, PathMatch};

/// Other routes looked at for each route, which bounds the time for very many routes with one host and path.
const LOOKED_AT: usize = 1024;

/// Pairs of a route that no request can reach and the route that takes all its requests, as indexes into `routes`.
///
/// What is reported is certain. Not everything is found: routes that only several others together cover, regular
/// expressions covered by others than themselves or `/`, and covers beyond the 1,024 routes looked at for each.
pub fn unreachable(routes: &[&Matcher]) -> Vec<(usize, usize)> {
    let routes: Vec<Route<'_>> = routes.iter().map(|matcher| Route::of(matcher)).collect();
    let mut by_place: HashMap<(Host<'_>, Path<'_>), Vec<usize>> = HashMap::default();
    let mut regexes: HashMap<Host<'_>, Vec<usize>> = HashMap::default();
    for (index, route) in routes.iter().enumerate() {
        for host in route.hosts() {
            by_place.entry((host, route.path)).or_default().push(index);
            if let Path::Regex(_) = route.path {
                regexes.entry(host).or_default().push(index);
            }
        }
    }
    let cover_of = |(index, route): (usize, &Route<'_>)| {
        // Whoever covers the route covers its first host, so it is kept there or at a wildcard above.
        let host = route.hosts().next()?;
        let places = host
            .covering()
            .flat_map(|host| route.path.covering().map(move |path| (host, path)));
        let by_place = places.filter_map(|place| by_place.get(&place)).flatten();
        let by_regex = host.covering().filter_map(|host| regexes.get(&host)).flatten();
        by_place
            .chain(by_regex)
            .filter(|other| **other != index)
            .take(LOOKED_AT)
            .find(|other| {
                routes
                    .get(**other)
                    .is_some_and(|by| by.always_beats(**other, route, index))
            })
            .map(|other| (index, *other))
    };
    routes.iter().enumerate().filter_map(cover_of).collect()
}

/// A host pattern as it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Host<'a> {
    Any,
    Wildcard(&'a str),
    Exact(&'a str),
}

/// A path as it is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Path<'a> {
    Exact(&'a str),
    Prefix(&'a str),
    Regex(&'a str),
}

struct Route<'a> {
    matcher: &'a Matcher,
    path: Path<'a>,
    predicates: Predicates,
    rank: Rank,
}

impl<'a> Route<'a> {
    fn of(matcher: &'a Matcher) -> Self {
        Self {
            matcher,
            path: match &matcher.path {
                PathMatch::Exact(path) => Path::Exact(path),
                PathMatch::Prefix(prefix) => Path::Prefix(bare(prefix)),
                PathMatch::Regex(regex) => Path::Regex(regex.as_str()),
            },
            predicates: Predicates::of(matcher),
            rank: Rank::of(matcher),
        }
    }

    fn hosts(&self) -> impl Iterator<Item = Host<'a>> + use<'a> {
        let any = self.matcher.hosts.is_empty().then_some(Host::Any);
        any.into_iter()
            .chain(self.matcher.hosts.iter().map(|pattern| match pattern {
                HostPattern::Exact(name) => Host::Exact(name),
                HostPattern::Wildcard(name) => Host::Wildcard(name),
            }))
    }

    /// Whether each request that matches `other` matches this route too, and prefers it.
    fn always_beats(&self, place: usize, other: &Route<'_>, other_place: usize) -> bool {
        self.predicates.cover(&other.predicates)
            && match self.matcher.priority.cmp(&other.matcher.priority) {
                Ordering::Less => false,
                // More specific or not, this one wins.
                Ordering::Greater => {
                    other
                        .hosts()
                        .all(|host| self.hosts().any(|own| host.covering().any(|wide| wide == own)))
                        && self.covers_path(other)
                }
                // A pattern that covers another is less specific, so this one must have the very same ones.
                Ordering::Equal => {
                    let first_of_both = || (self.rank, Reverse(place)) > (other.rank, Reverse(other_place));
                    other.hosts().all(|host| self.hosts().any(|own| own == host))
                        && match (self.path, other.path) {
                            (Path::Prefix(""), Path::Regex(_)) => true,
                            (own, path) => own == path && first_of_both(),
                        }
                }
            }
    }

    fn covers_path(&self, other: &Route<'_>) -> bool {
        match (&self.matcher.path, other.path) {
            (PathMatch::Regex(regex), Path::Exact(path)) => regex.is_match(path),
            _ => other.path.covering().any(|path| path == self.path),
        }
    }
}

impl<'a> Host<'a> {
    /// The patterns that match every host that this one matches, itself first.
    fn covering(self) -> impl Iterator<Item = Self> {
        let name = match self {
            Self::Any => "",
            Self::Wildcard(name) | Self::Exact(name) => name,
        };
        let any = (self != Self::Any).then_some(Self::Any);
        std::iter::once(self)
            .chain(parents(name, name.len()).map(Self::Wildcard))
            .chain(any)
    }
}

impl<'a> Path<'a> {
    /// The exact paths and prefixes that match every path that this one matches, itself first.
    fn covering(self) -> impl Iterator<Item = Self> {
        let path = match self {
            Self::Exact(path) | Self::Prefix(path) => path,
            Self::Regex(_) => "",
        };
        std::iter::once(self).chain(
            prefixes(path, path.len())
                .map(Self::Prefix)
                .filter(move |prefix| *prefix != self),
        )
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;
    use regex::Regex;

    use super::super::reference;
    use super::*;

    fn route(hosts: &[&str], path: PathMatch) -> Matcher {
        let pattern = |name: &&str| match name.strip_prefix("*.") {
            Some(name) => HostPattern::Wildcard(name.into()),
            None => HostPattern::Exact((*name).into()),
        };
        Matcher {
            hosts: hosts.iter().map(pattern).collect(),
            path,
            ..Matcher::default()
        }
    }

    fn prefix(path: &str) -> PathMatch {
        PathMatch::Prefix(path.into())
    }

    fn exact(path: &str) -> PathMatch {
        PathMatch::Exact(path.into())
    }

    fn regex(pattern: &str) -> PathMatch {
        PathMatch::Regex(Regex::new(pattern).unwrap())
    }

    fn found(routes: &[Matcher]) -> Vec<(usize, usize)> {
        unreachable(&routes.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_second_of_two_alike_is_never_reached() {
        assert_eq!(found(&[route(&[], prefix("/a")), route(&[], prefix("/a/"))]), [(1, 0)]);
        assert_eq!(found(&[route(&["a"], exact("/a")), route(&["a"], prefix("/a"))]), []);
        assert_eq!(
            found(&[route(&["a", "b"], exact("/a")), route(&["b"], exact("/a"))]),
            [(1, 0)]
        );
        assert_eq!(
            found(&[route(&["b"], exact("/a")), route(&["a", "b"], exact("/a"))]),
            []
        );
        assert_eq!(found(&[route(&[], regex("^/a$")), route(&[], regex("^/a$"))]), [(1, 0)]);
    }

    #[test]
    fn less_specific_routes_do_not_cover() {
        let routes = [
            route(&[], prefix("/")),
            route(&[], prefix("/a")),
            route(&["*.example"], prefix("/")),
            route(&["a.example"], prefix("/")),
        ];
        assert_eq!(found(&routes), []);
    }

    #[test]
    fn a_prefix_of_everything_hides_regexes_of_its_host() {
        let routes = [
            route(&["a"], regex("^/x$")),
            route(&["b"], regex("^/x$")),
            route(&["a"], prefix("/")),
        ];
        assert_eq!(found(&routes), [(0, 2)]);
    }

    #[test]
    fn a_higher_priority_covers_more_specific_routes() {
        let mut routes = [
            route(&["*.a.example"], exact("/a/b")),
            route(&["b.example", "c.example"], prefix("/a/b/c")),
            route(&["b.example", "c.test"], prefix("/a")),
            route(&["b.example"], prefix("/ab")),
            route(&["*.example"], prefix("/a")),
        ];
        routes[4].priority = 1;
        assert_eq!(found(&routes), [(0, 4), (1, 4)]);
        routes[4] = Matcher {
            priority: 1,
            ..route(&[], regex("^/a/.$"))
        };
        assert_eq!(found(&routes), [(0, 4)]);
    }

    #[test]
    fn predicates_decide_as_well() {
        let with = |methods: &[Method]| Matcher {
            methods: methods.to_vec(),
            ..route(&["a"], prefix("/"))
        };
        assert_eq!(
            found(&[with(&[Method::GET, Method::PUT]), with(&[Method::PUT])]),
            [(1, 0)]
        );
        assert_eq!(found(&[with(&[Method::PUT]), with(&[Method::GET, Method::PUT])]), []);
        // Naming a method is more specific than naming none, wherever it stands.
        assert_eq!(found(&[with(&[]), with(&[Method::PUT])]), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn what_is_reported_is_never_reached(
            routes in reference::routes(), requests in prop::collection::vec(reference::request(), 40),
        ) {
            let routes: Vec<&Matcher> = routes.iter().collect();
            for (route, by) in unreachable(&routes) {
                prop_assert!(route != by);
                for request in &requests {
                    prop_assert_ne!(reference::find(&routes, &request.as_ref()), Some(route), "by {}: {:?}", by, request);
                    // The one that is named does take what the other matches.
                    let pair = [routes[route.min(by)], routes[route.max(by)]];
                    prop_assert_ne!(reference::find(&pair, &request.as_ref()), Some(usize::from(route > by)));
                }
            }
        }

        #[test]
        fn a_repeated_route_is_always_reported(routes in reference::routes(), again: prop::sample::Index) {
            let mut routes: Vec<&Matcher> = routes.iter().collect();
            if !routes.is_empty() {
                routes.push(routes[again.index(routes.len())]);
                let last = routes.len() - 1;
                prop_assert!(unreachable(&routes).iter().any(|(route, _)| *route == last));
            }
        }
    }
}

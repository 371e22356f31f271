//! For tests: the rules of routing written down plainly, and random routes and requests from few names, so that they
//! often meet.

use std::cmp::Reverse;
use std::net::IpAddr;
use std::sync::LazyLock;

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;
use regex::Regex;

use super::{HostPattern, Matcher, PathMatch, Request};
use crate::fields::{Fields, Known};

/// The route `request` takes: a scan of all with the comparison of the module's documentation.
pub fn find(routes: &[&Matcher], request: &Request<'_>) -> Option<usize> {
    let matching = routes.iter().enumerate().filter_map(|(index, route)| {
        let host = host_rank(route, request.host)?;
        let path = path_rank(&route.path, request.path)?;
        predicates_hold(route, request).then_some((
            (
                route.priority,
                host,
                path,
                !route.methods.is_empty(),
                route.headers.len(),
                route.query.len(),
                route.cookies.len(),
                !route.sources.is_empty(),
                Reverse(index),
            ),
            index,
        ))
    });
    matching.max().map(|(_, index)| index)
}

/// Exact over longer wildcard over shorter wildcard over any.
fn host_rank(route: &Matcher, host: &str) -> Option<(u8, usize)> {
    if route.hosts.is_empty() {
        return Some((0, 0));
    }
    let ranks = route.hosts.iter().filter_map(|pattern| match pattern {
        HostPattern::Exact(name) => (name == host).then_some((2, 0)),
        HostPattern::Wildcard(name) => {
            let before = host.strip_suffix(name.as_str())?;
            (before.len() > 1 && before.ends_with('.')).then_some((1, name.len()))
        }
    });
    ranks.max()
}

/// Exact over longest prefix over regex.
fn path_rank(path: &PathMatch, given: &str) -> Option<(u8, usize)> {
    match path {
        PathMatch::Exact(path) => (path == given).then_some((2, 0)),
        PathMatch::Prefix(prefix) => {
            let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
            let whole = given == prefix || given.starts_with(&format!("{prefix}/"));
            whole.then_some((1, prefix.len()))
        }
        PathMatch::Regex(regex) => regex.is_match(given).then_some((0, 0)),
    }
}

fn predicates_hold(route: &Matcher, request: &Request<'_>) -> bool {
    let headers =
        |(name, value): &(HeaderName, HeaderValue)| request.headers.named(name).any(|v| v == value.as_bytes());
    let parameters: Vec<(String, String)> = request
        .query
        .unwrap_or_default()
        .split('&')
        .map(|piece| piece.split_once('=').unwrap_or((piece, "")))
        .map(|(name, value)| (plain(name), plain(value)))
        .collect();
    let cookies: Vec<(String, String)> = request
        .headers
        .all(Known::Cookie)
        .flat_map(|field| std::str::from_utf8(field).unwrap().split(';'))
        .filter_map(|piece| piece.trim().split_once('='))
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    let source = match request.source {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4),
        v4 => v4,
    };
    (route.methods.is_empty() || route.methods.iter().any(|method| method == request.method))
        && route.headers.iter().all(headers)
        && route.query.iter().all(|asked| parameters.contains(asked))
        && route.cookies.iter().all(|asked| cookies.contains(asked))
        && (route.sources.is_empty() || route.sources.iter().any(|network| network.contains(&source)))
}

fn plain(encoded: &str) -> String {
    let spaces = encoded.replace('+', " ");
    percent_encoding::percent_decode_str(&spaces)
        .decode_utf8_lossy()
        .into_owned()
}

/// A [`Request`] that owns its parts.
#[derive(Debug, Clone)]
pub struct Owned {
    method: Method,
    host: &'static str,
    path: String,
    query: Option<String>,
    headers: Fields,
    source: IpAddr,
}

impl Owned {
    pub fn as_ref(&self) -> Request<'_> {
        Request {
            method: &self.method,
            host: self.host,
            path: &self.path,
            query: self.query.as_deref(),
            headers: &self.headers,
            source: self.source,
        }
    }
}

fn paths() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("/".to_owned()),
        prop::collection::vec(prop::sample::select(vec!["a", "b", "ab"]), 1..4)
            .prop_map(|s| format!("/{}", s.join("/"))),
        prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..3).prop_map(|s| format!("/{}/", s.join("/"))),
    ]
}

fn method() -> impl Strategy<Value = Method> {
    prop::sample::select(vec![Method::GET, Method::POST, Method::PUT])
}

/// Compiled once: that takes longer than all the rest of a test case.
static REGEXES: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let patterns = ["^/a.*$", "^/(a|b)/?$", "^/.*b$", "^/ab/[ab]$"];
    patterns.map(|pattern| Regex::new(pattern).unwrap()).to_vec()
});

fn path_match() -> impl Strategy<Value = PathMatch> {
    let regex = prop::sample::select(REGEXES.as_slice());
    prop_oneof![
        3 => paths().prop_map(PathMatch::Prefix),
        2 => paths().prop_map(PathMatch::Exact),
        1 => regex.prop_map(PathMatch::Regex),
    ]
}

fn pair() -> impl Strategy<Value = (&'static str, &'static str)> {
    (
        prop::sample::select(vec!["p", "q"]),
        prop::sample::select(vec!["1", "2 3", "é"]),
    )
}

/// A few of them, most often none.
fn few<T: Strategy>(of: T) -> impl Strategy<Value = Vec<T::Value>>
where
    T::Value: Clone,
{
    prop_oneof![3 => Just(Vec::new()), 1 => prop::collection::vec(of, 1..3)]
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let host = prop_oneof![
        prop::sample::select(vec!["x.test", "a.x.test", "b.a.x.test"]).prop_map(|n| HostPattern::Exact(n.into())),
        prop::sample::select(vec!["test", "x.test", "a.x.test"]).prop_map(|n| HostPattern::Wildcard(n.into())),
    ];
    let owned = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
    let header =
        pair().prop_map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    let source = prop::sample::select(vec!["10.0.0.0/8", "10.1.0.0/16", "2001:db8::/32", "0.0.0.0/0"]);
    (
        prop_oneof![1 => Just(Vec::new()), 3 => prop::collection::vec(host, 1..4)],
        path_match(),
        few(method()),
        few(header),
        few(pair().prop_map(owned)),
        few(pair().prop_map(owned)),
        few(source.prop_map(|network| network.parse().unwrap())),
        prop_oneof![4 => Just(0), 1 => -1..2],
    )
        .prop_map(
            |(hosts, path, methods, headers, query, cookies, sources, priority)| Matcher {
                hosts,
                path,
                methods,
                headers,
                query,
                cookies,
                sources,
                priority,
            },
        )
}

/// Up to some twenty routes.
pub fn routes() -> impl Strategy<Value = Vec<Matcher>> {
    prop::collection::vec(matcher(), 0..20)
}

/// A request that has a good chance to match some of them.
pub fn request() -> impl Strategy<Value = Owned> {
    let host = prop::sample::select(vec![
        "x.test",
        "a.x.test",
        "b.a.x.test",
        "c.x.test",
        "test",
        "other",
        "",
    ]);
    let source = prop::sample::select(vec![
        "10.1.2.3",
        "10.9.9.9",
        "::ffff:10.1.2.3",
        "2001:db8::1",
        "192.0.2.1",
    ]);
    let path = prop_oneof![4 => paths(), 1 => paths().prop_map(|path| path + "b")];
    (method(), host, path, few(pair()), few(pair()), few(pair()), source).prop_map(
        |(method, host, path, query, fields, cookies, source)| {
            let mut headers = Fields::default();
            for (name, value) in fields {
                headers.append_named(&HeaderName::from_static(name), &HeaderValue::from_str(value).unwrap());
            }
            for (name, value) in cookies.into_iter().filter(|(_, value)| value.is_ascii()) {
                headers.append(Known::Cookie, format!("z=0; {name}={value}").as_bytes());
            }
            let encoded = |(name, value): &(&str, &str)| match *value {
                "é" => format!("{name}=%c3%A9"),
                value => format!("{name}={}", value.replace(' ', "+")),
            };
            Owned {
                method,
                host,
                path,
                query: (!query.is_empty()).then(|| query.iter().map(encoded).collect::<Vec<_>>().join("&")),
                headers,
                source: source.parse().unwrap(),
            }
        },
    )
}

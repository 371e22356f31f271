//! What finding a route and normalising a path cost: `cargo bench --bench route`.

use std::hint::black_box;
use std::net::Ipv4Addr;

use divan::Bencher;
use evenkeel::fields::Fields;
use evenkeel::route::{HostPattern, Matcher, PathMatch, Request, Table, normalise, unreachable};
use http::{HeaderName, HeaderValue, Method};
use regex::Regex;

const ROUTES: [usize; 3] = [10, 1_000, 100_000];

fn main() {
    divan::main();
}

fn prefix(path: String) -> PathMatch {
    PathMatch::Prefix(path)
}

fn of_host(host: &str, path: PathMatch) -> Matcher {
    Matcher {
        hosts: vec![HostPattern::Exact(host.into())],
        path,
        ..Matcher::default()
    }
}

/// `count` routes on ten hosts and their common wildcard, and one for everything else.
fn routes(count: usize) -> Vec<Matcher> {
    let route = |i: usize| match i % 11 {
        10 => Matcher {
            hosts: vec![HostPattern::Wildcard("shop.example".into())],
            path: prefix(format!("/api/v1/service-{i}")),
            ..Matcher::default()
        },
        host => of_host(&format!("h{host}.shop.example"), prefix(format!("/api/v1/service-{i}"))),
    };
    (1..count).map(route).chain([Matcher::default()]).collect()
}

fn table(routes: &[Matcher]) -> Table {
    Table::new(&routes.iter().collect::<Vec<_>>())
}

fn find(bencher: Bencher<'_, '_>, routes: &[Matcher], host: &str, path: &str, expected: usize) {
    let table = table(routes);
    let mut headers = Fields::default();
    for name in ["accept", "user-agent", "accept-encoding", "cookie", "x-canary"] {
        headers.append_named(&HeaderName::from_static(name), &HeaderValue::from_static("yes"));
    }
    let request = Request {
        method: &Method::GET,
        host,
        path,
        query: Some("page=2&sort=asc"),
        headers: &headers,
        source: Ipv4Addr::LOCALHOST.into(),
    };
    assert_eq!(table.find(&request), Some(expected));
    bencher.bench(|| table.find(black_box(&request)));
}

#[divan::bench(args = ROUTES)]
fn find_by_prefix(bencher: Bencher<'_, '_>, count: usize) {
    find(
        bencher,
        &routes(count),
        "h7.shop.example",
        "/api/v1/service-7/users/17",
        6,
    );
}

#[divan::bench(args = ROUTES)]
fn find_by_wildcard(bencher: Bencher<'_, '_>, count: usize) {
    let mut routes = routes(count);
    routes[0].hosts = vec![HostPattern::Wildcard("shop.example".into())];
    find(bencher, &routes, "any.shop.example", "/api/v1/service-1/users/17", 0);
}

#[divan::bench(args = ROUTES)]
fn find_nothing_but_the_default(bencher: Bencher<'_, '_>, count: usize) {
    find(
        bencher,
        &routes(count),
        "h7.shop.example",
        "/static/css/site.css",
        count - 1,
    );
}

#[divan::bench(args = ROUTES)]
fn find_among_many_hosts(bencher: Bencher<'_, '_>, count: usize) {
    let routes: Vec<_> = (0..count)
        .map(|i| of_host(&format!("h{i}.example"), prefix("/".into())))
        .collect();
    find(
        bencher,
        &routes,
        &format!("h{}.example", count / 2),
        "/a/b/c",
        count / 2,
    );
}

#[divan::bench]
fn find_by_predicates(bencher: Bencher<'_, '_>) {
    let mut routes = routes(10);
    let mut canary = routes[6].clone();
    canary.methods = vec![Method::POST, Method::GET];
    canary.headers = vec![(HeaderName::from_static("x-canary"), HeaderValue::from_static("yes"))];
    canary.query = vec![("sort".into(), "asc".into())];
    canary.sources = vec!["127.0.0.0/8".parse().expect("a network")];
    routes.push(canary);
    find(bencher, &routes, "h7.shop.example", "/api/v1/service-7/users/17", 10);
}

#[divan::bench(args = [1, 10, 1_000])]
fn find_by_regex(bencher: Bencher<'_, '_>, count: usize) {
    let regex = |i| PathMatch::Regex(Regex::new(&format!("^/users-{i}/[0-9]+/posts$")).expect("a regex"));
    let routes: Vec<_> = (0..count).map(|i| of_host("a.example", regex(i))).collect();
    find(
        bencher,
        &routes,
        "a.example",
        &format!("/users-{}/1234/posts", count / 2),
        count / 2,
    );
}

#[divan::bench(args = ROUTES, sample_count = 10)]
fn build(bencher: Bencher<'_, '_>, count: usize) {
    let routes = routes(count);
    bencher.bench(|| table(&routes));
}

#[divan::bench(args = ROUTES, sample_count = 10)]
fn find_unreachable(bencher: Bencher<'_, '_>, count: usize) {
    let routes = routes(count);
    bencher.bench(|| unreachable(&routes.iter().collect::<Vec<_>>()));
}

#[divan::bench(args = ["/", "/api/v1/users/1234/posts", "/a/%7Eb/c%2Fd", "/a/b/../c//d"])]
fn normalise_path(path: &str) -> bool {
    normalise(black_box(path)).is_ok()
}

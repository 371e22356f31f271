//! What a route asks beyond host and path, and which of two routes asks more.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderName, HeaderValue, Method};
use ipnet::{IpNet, Ipv4Net};

use super::{Matcher, Request};
use crate::base::pairs;
use crate::fields::Known;

/// Methods, headers, query, cookies and sources of one route, made ready for matching.
#[derive(Debug)]
pub struct Predicates {
    methods: Box<[Method]>,
    headers: Box<[(HeaderName, HeaderValue)]>,
    query: Box<[(String, String)]>,
    cookies: Box<[(String, String)]>,
    /// Sorted, and none within another: the only one that can hold an address is the last that begins at or before it.
    sources: Box<[IpNet]>,
}

/// What a route asks beyond host and path and a request does not have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Lack<'a> {
    /// It is none of these.
    Method(&'a [Method]),
    Header(&'a HeaderName, &'a HeaderValue),
    Query(&'a str, &'a str),
    Cookie(&'a str, &'a str),
    /// It comes from none of these.
    Source(&'a [IpNet]),
}

impl fmt::Display for Lack<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn list(f: &mut fmt::Formatter<'_>, what: &str, items: &[impl fmt::Display]) -> fmt::Result {
            write!(f, "{what} ")?;
            for (n, item) in items.iter().take(MOST_TOLD).enumerate() {
                let before = if n > 0 { ", " } else { "" };
                write!(f, "{before}{item}")?;
            }
            match items.len().checked_sub(MOST_TOLD) {
                None | Some(0) => Ok(()),
                Some(more) => write!(f, " or {more} more"),
            }
        }
        match self {
            Self::Method(methods) => list(f, "the method", methods),
            Self::Header(name, value) => write!(f, "the field `{name}: {}`", String::from_utf8_lossy(value.as_bytes())),
            Self::Query(name, value) => write!(f, "the parameter `{name}={value}`"),
            Self::Cookie(name, value) => write!(f, "the cookie `{name}={value}`"),
            Self::Source(networks) => list(f, "a source in", networks),
        }
    }
}

/// Of a list of methods or networks, so many are told.
const MOST_TOLD: usize = 5;

/// What decides between routes that agree in priority, host and path: the greater wins, then the earlier in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    method: bool,
    headers: usize,
    query: usize,
    cookies: usize,
    source: bool,
}

impl Rank {
    pub fn of(matcher: &Matcher) -> Self {
        Self {
            method: !matcher.methods.is_empty(),
            headers: matcher.headers.len(),
            query: matcher.query.len(),
            cookies: matcher.cookies.len(),
            source: !matcher.sources.is_empty(),
        }
    }

    /// Asks nothing: every request with the right host and path matches.
    pub fn is_unconditional(&self) -> bool {
        *self
            == Self {
                method: false,
                headers: 0,
                query: 0,
                cookies: 0,
                source: false,
            }
    }
}

impl Predicates {
    pub fn of(matcher: &Matcher) -> Self {
        Self {
            methods: matcher.methods.as_slice().into(),
            headers: matcher.headers.as_slice().into(),
            query: matcher.query.as_slice().into(),
            cookies: matcher.cookies.as_slice().into(),
            sources: networks(&matcher.sources),
        }
    }

    /// Whether all hold. Allocates nothing.
    #[inline]
    pub fn hold(&self, request: &Request<'_>) -> bool {
        self.lacks(request).is_none()
    }

    /// The first that does not hold. Allocates nothing.
    #[inline]
    pub fn lacks(&self, request: &Request<'_>) -> Option<Lack<'_>> {
        if !self.methods.is_empty() && !self.methods.contains(request.method) {
            return Some(Lack::Method(&self.methods));
        }
        if let Some((name, value)) = self.headers.iter().find(|asked| !header_holds(asked, request)) {
            return Some(Lack::Header(name, value));
        }
        if let Some((name, value)) = self.query.iter().find(|asked| !parameter_holds(asked, request)) {
            return Some(Lack::Query(name, value));
        }
        if let Some((name, value)) = self.cookies.iter().find(|asked| !cookie_holds(asked, request)) {
            return Some(Lack::Cookie(name, value));
        }
        (!self.source_holds(request.source)).then_some(Lack::Source(&self.sources))
    }

    fn source_holds(&self, source: IpAddr) -> bool {
        if self.sources.is_empty() {
            return true;
        }
        let source = source.to_canonical();
        let after = self.sources.partition_point(|network| network.network() <= source);
        let before = after.checked_sub(1).and_then(|last| self.sources.get(last));
        before.is_some_and(|network| network.contains(&source))
    }

    /// Whether every request for which `other` holds is one for which these hold.
    pub fn cover(&self, other: &Self) -> bool {
        (self.methods.is_empty() || within(&other.methods, |method| self.methods.contains(method)))
            && self.headers.iter().all(|header| other.headers.contains(header))
            && self.query.iter().all(|parameter| other.query.contains(parameter))
            && self.cookies.iter().all(|cookie| other.cookies.contains(cookie))
            && (self.sources.is_empty()
                || within(&other.sources, |theirs| {
                    self.sources.iter().any(|ours| ours.contains(theirs))
                }))
    }
}

fn header_holds((name, value): &(HeaderName, HeaderValue), request: &Request<'_>) -> bool {
    request.headers.named(name).any(|field| field == value.as_bytes())
}

fn parameter_holds((name, value): &(String, String), request: &Request<'_>) -> bool {
    pairs::parameters(request.query.unwrap_or_default())
        .any(|(key, given)| pairs::decodes_to(key, name.as_bytes()) && pairs::decodes_to(given, value.as_bytes()))
}

fn cookie_holds((name, value): &(String, String), request: &Request<'_>) -> bool {
    pairs::cookies(request.headers.all(Known::Cookie))
        .any(|(key, given)| key == name.as_bytes() && given == value.as_bytes())
}

/// All of them and at least one: an empty list of alternatives means everything.
fn within<T>(alternatives: &[T], covered: impl Fn(&T) -> bool) -> bool {
    !alternatives.is_empty() && alternatives.iter().all(covered)
}

/// The same addresses in the fewest networks, sorted. IPv4 addresses written as IPv6 (`::ffff:10.0.0.0/104`) are IPv4.
fn networks(written: &[IpNet]) -> Box<[IpNet]> {
    let mut networks: Vec<IpNet> = written.iter().map(|network| canonical(network.trunc())).collect();
    networks = IpNet::aggregate(&networks);
    networks.sort_unstable_by_key(|network| (network.network(), network.prefix_len()));
    networks.into()
}

fn canonical(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let mapped: Option<Ipv4Addr> = v6.network().to_ipv4_mapped();
    let v4 = mapped
        .zip(v6.prefix_len().checked_sub(96))
        .and_then(|(address, prefix)| Ipv4Net::new(address, prefix).ok());
    v4.map_or(network, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fields::Fields;

    fn request(headers: &Fields) -> Request<'_> {
        Request {
            method: &Method::GET,
            host: "",
            path: "/",
            query: None,
            headers,
            source: [192, 0, 2, 1].into(),
        }
    }

    fn hold(matcher: &Matcher, request: &Request<'_>) -> bool {
        Predicates::of(matcher).hold(request)
    }

    #[test]
    fn any_field_line_may_be_the_value() {
        let canary = HeaderName::from_static("x-canary");
        let mut headers = Fields::default();
        headers.append_named(&canary, &HeaderValue::from_static("no"));
        headers.append_named(&canary, &HeaderValue::from_static("yes"));
        for (value, expected) in [("yes", true), ("no", true), ("YES", false), ("", false)] {
            let matcher = Matcher {
                headers: vec![(canary.clone(), value.parse().unwrap())],
                ..Matcher::default()
            };
            assert_eq!(hold(&matcher, &request(&headers)), expected, "{value}");
        }
    }

    #[test]
    fn query_values_are_compared_decoded() {
        let matcher = Matcher {
            query: vec![("a b".into(), "c+d".into()), ("e".into(), String::new())],
            ..Matcher::default()
        };
        for (query, expected) in [
            (Some("a+b=c%2bd&e"), true),
            (Some("e=&x=y&a%20b=no&a%20b=c%2Bd"), true),
            (Some("a+b=c+d&e"), false),
            (Some("a+b=c%2bd"), false),
            (None, false),
        ] {
            assert_eq!(
                hold(
                    &matcher,
                    &Request {
                        query,
                        ..request(&Fields::default())
                    }
                ),
                expected,
                "{query:?}"
            );
        }
    }

    #[test]
    fn cookies_are_compared_as_sent() {
        let mut headers = Fields::default();
        headers.append(Known::Cookie, b"a=1; group=beta");
        for (name, value, expected) in [("group", "beta", true), ("Group", "beta", false), ("a", "2", false)] {
            let matcher = Matcher {
                cookies: vec![(name.into(), value.into())],
                ..Matcher::default()
            };
            assert_eq!(hold(&matcher, &request(&headers)), expected, "{name}");
        }
    }

    #[test]
    fn an_ipv4_address_is_the_same_in_either_family() {
        for network in ["10.1.2.3/8", "::ffff:10.0.0.0/104"] {
            let matcher = Matcher {
                sources: vec![network.parse().unwrap()],
                ..Matcher::default()
            };
            for (source, expected) in [
                ("10.9.9.9", true),
                ("::ffff:10.9.9.9", true),
                ("11.0.0.0", false),
                ("::a09:909", false),
            ] {
                let source = source.parse().unwrap();
                assert_eq!(
                    hold(
                        &matcher,
                        &Request {
                            source,
                            ..request(&Fields::default())
                        }
                    ),
                    expected,
                    "{network} {source}"
                );
            }
        }
    }

    fn network() -> impl Strategy<Value = IpNet> {
        // Few distinct bits, so that networks nest and touch.
        let v4 = (0u32..16, 0u8..=8)
            .prop_map(|(bits, prefix)| IpNet::V4(Ipv4Net::new((bits << 28 | bits << 24).into(), prefix).unwrap()));
        let v6 = (0u128..16, 0u8..=4)
            .prop_map(|(bits, prefix)| IpNet::V6(ipnet::Ipv6Net::new((bits << 124).into(), prefix).unwrap()));
        prop_oneof![v4, v6]
    }

    proptest! {
        #[test]
        fn a_source_is_found_as_by_looking_at_each(
            sources in prop::collection::vec(network(), 1..8), v4: u32, v6: u128, as_v4: bool,
        ) {
            let source: IpAddr = if as_v4 { IpAddr::V4(v4.into()) } else { IpAddr::V6(v6.into()) };
            let expected = sources.iter().any(|network| network.contains(&source));
            let matcher = Matcher { sources, ..Matcher::default() };
            prop_assert_eq!(hold(&matcher, &Request { source, ..request(&Fields::default()) }), expected);
        }
    }

    #[test]
    fn fewer_predicates_cover_more_of_them() {
        let methods = |methods: &[Method]| Matcher {
            methods: methods.to_vec(),
            ..Matcher::default()
        };
        let sources = |networks: &[&str]| Matcher {
            sources: networks.iter().map(|network| network.parse().unwrap()).collect(),
            ..Matcher::default()
        };
        let any = Matcher::default();
        for (wide, narrow, expected) in [
            (&any, &methods(&[Method::GET]), true),
            (&methods(&[Method::GET]), &any, false),
            (&methods(&[Method::GET, Method::POST]), &methods(&[Method::POST]), true),
            (&methods(&[Method::GET]), &methods(&[Method::GET, Method::POST]), false),
            (
                &sources(&["10.0.0.0/8"]),
                &sources(&["10.1.0.0/16", "10.2.0.0/16"]),
                true,
            ),
            (
                &sources(&["10.0.0.0/9", "10.128.0.0/9"]),
                &sources(&["10.0.0.0/8"]),
                true,
            ),
            (
                &sources(&["10.0.0.0/8"]),
                &sources(&["10.1.0.0/16", "11.0.0.0/16"]),
                false,
            ),
            (&sources(&["10.0.0.0/8"]), &any, false),
        ] {
            assert_eq!(
                Predicates::of(wide).cover(&Predicates::of(narrow)),
                expected,
                "{wide:?} over {narrow:?}"
            );
        }
    }
}

//! Host patterns: from a host name to what is kept for each pattern that matches it.

use foldhash::HashMap;
use memchr::memchr_iter;

use super::HostPattern;

/// Something for each host pattern of a set of routes.
#[derive(Debug)]
pub struct Hosts<T> {
    exact: HashMap<Box<str>, T>,
    /// By the name after `*.`.
    wildcard: HashMap<Box<str>, T>,
    /// The length of the longest such name: a client's host may be longer, and is not looked up in vain.
    longest: usize,
    any: Option<T>,
}

impl<T> Default for Hosts<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::default(),
            wildcard: HashMap::default(),
            longest: 0,
            any: None,
        }
    }
}

impl<T> Hosts<T> {
    /// What is kept for `pattern` (`None`: every host).
    pub fn entry(&mut self, pattern: Option<&HostPattern>) -> &mut T
    where
        T: Default,
    {
        match pattern {
            Some(HostPattern::Exact(name)) => self.exact.entry(name.as_str().into()).or_default(),
            Some(HostPattern::Wildcard(name)) => {
                self.longest = self.longest.max(name.len());
                self.wildcard.entry(name.as_str().into()).or_default()
            }
            None => self.any.get_or_insert_default(),
        }
    }

    /// The same patterns with what `change` makes of each one's.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> Hosts<U> {
        Hosts {
            exact: self
                .exact
                .into_iter()
                .map(|(name, kept)| (name, change(kept)))
                .collect(),
            wildcard: self
                .wildcard
                .into_iter()
                .map(|(name, kept)| (name, change(kept)))
                .collect(),
            longest: self.longest,
            any: self.any.map(change),
        }
    }

    /// What is kept for the patterns that match `host`, the most specific first.
    pub fn matching(&self, host: &str) -> impl Iterator<Item = &T> {
        let wildcards = parents(host, self.longest).filter_map(|parent| self.wildcard.get(parent));
        self.exact.get(host).into_iter().chain(wildcards).chain(&self.any)
    }
}

/// The names of at most `limit` bytes that a wildcard matching `host` may have after its `*.`, the longest first.
pub fn parents(host: &str, limit: usize) -> impl Iterator<Item = &str> {
    // Not at 0: `.example` has no label before the dot.
    let first = host.len().saturating_sub(limit.saturating_add(1)).max(1);
    let rest = host.as_bytes().get(first..).unwrap_or_default();
    memchr_iter(b'.', rest).filter_map(move |dot| host.get(first + dot + 1..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_longer_than_any_there_is_are_left_out() {
        let of = |limit| parents("a.bc.d", limit).collect::<Vec<_>>();
        assert_eq!(of(0), [""; 0]);
        assert_eq!(of(1), ["d"]);
        assert_eq!(of(3), ["d"]);
        assert_eq!(of(4), ["bc.d", "d"]);
        assert_eq!(of(usize::MAX), ["bc.d", "d"]);
    }

    #[test]
    fn the_most_specific_comes_first() {
        let mut hosts: Hosts<&str> = Hosts::default();
        let wildcard = |name: &str| HostPattern::Wildcard(name.into());
        *hosts.entry(None) = "any";
        *hosts.entry(Some(&wildcard("example"))) = "*.example";
        *hosts.entry(Some(&HostPattern::Exact("a.shop.example".into()))) = "exact";
        *hosts.entry(Some(&wildcard("shop.example"))) = "*.shop.example";
        for (host, expected) in [
            ("a.shop.example", &["exact", "*.shop.example", "*.example", "any"][..]),
            ("a.b.shop.example", &["*.shop.example", "*.example", "any"]),
            ("shop.example", &["*.example", "any"]),
            (".shop.example", &["*.example", "any"]),
            ("example", &["any"]),
            (".example", &["any"]),
            ("", &["any"]),
        ] {
            assert_eq!(hosts.matching(host).copied().collect::<Vec<_>>(), expected, "{host}");
        }
    }
}

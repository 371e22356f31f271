//! Host patterns: from a host name to what is kept for each pattern that matches it.

use foldhash::HashMap;

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
        let short = parents(host).filter(|parent| parent.len() <= self.longest);
        let wildcards = short.filter_map(|parent| self.wildcard.get(parent));
        self.exact.get(host).into_iter().chain(wildcards).chain(&self.any)
    }
}

/// The names that a wildcard matching `host` may have after its `*.`, the longest first.
pub fn parents(host: &str) -> impl Iterator<Item = &str> {
    let splits = std::iter::successors(host.split_once('.'), |(_, rest)| rest.split_once('.'));
    // `.example` has no label before the dot.
    splits.map(|(_, rest)| rest).filter(|rest| host.len() > rest.len() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

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

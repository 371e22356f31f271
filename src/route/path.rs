//! Paths of one host pattern: from a path to the best route whose path matches.

use foldhash::HashMap;
use memchr::memrchr;
use regex::Regex;

use super::PathMatch;
use super::regexes::Regexes;

/// One route under one host pattern and path.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub route: u32,
    pub priority: i32,
    /// Its place among all routes, the best first, were it for priority, predicates and file order alone.
    pub place: u32,
    /// Where its predicates beyond host and path are kept, if it has any.
    pub condition: Option<u32>,
}

/// The routes of one host pattern.
#[derive(Debug)]
pub struct Paths {
    /// The highest priority among them.
    top: i32,
    exact: HashMap<Box<str>, Box<[Entry]>>,
    /// By the prefix without a slash at its end: that of `/` is empty.
    prefix: HashMap<Box<str>, Box<[Entry]>>,
    longest_prefix: usize,
    regex: Regexes,
}

impl Paths {
    /// For routes in the order of their places.
    pub fn new(routes: &[(&PathMatch, Entry)]) -> Self {
        let mut exact: HashMap<&str, Vec<Entry>> = HashMap::default();
        let mut prefix: HashMap<&str, Vec<Entry>> = HashMap::default();
        let mut regex: Vec<(&Regex, Entry)> = Vec::new();
        for (path, entry) in routes {
            match path {
                PathMatch::Exact(path) => exact.entry(path).or_default().push(*entry),
                PathMatch::Prefix(path) => prefix.entry(bare(path)).or_default().push(*entry),
                PathMatch::Regex(pattern) => regex.push((pattern, *entry)),
            }
        }
        Self {
            top: routes.iter().map(|(_, entry)| entry.priority).max().unwrap_or(i32::MIN),
            longest_prefix: prefix.keys().map(|prefix| prefix.len()).max().unwrap_or(0),
            exact: kept(exact),
            prefix: kept(prefix),
            regex: Regexes::new(&regex),
        }
    }

    /// The best of the routes whose path is `path` and that are `accepted`, if it is better than `best`, which is of a
    /// more specific host; else `best`.
    pub fn better<'t>(
        &'t self,
        path: &str,
        best: Option<&'t Entry>,
        accepted: impl Fn(&Entry) -> bool,
    ) -> Option<&'t Entry> {
        if !may_beat(self.top, best) {
            return best;
        }
        let mut best = best;
        if let Some(entries) = self.exact.get(path) {
            best = first_above(best, entries, &accepted).or(best);
        }
        for prefix in prefixes(path, self.longest_prefix) {
            if !may_beat(self.top, best) {
                return best;
            }
            if let Some(entries) = self.prefix.get(prefix) {
                best = first_above(best, entries, &accepted).or(best);
            }
        }
        if !may_beat(self.regex.top(), best) {
            return best;
        }
        // All regexes are equally specific: their places decide.
        let mut found: Option<&Entry> = None;
        self.regex.matching(path, |entries| {
            let other = first_above(best, entries, &accepted);
            found = found.into_iter().chain(other).min_by_key(|entry| entry.place);
        });
        found.or(best)
    }
}

/// Whether a route with this priority that is less specific than `best` wins over it.
fn may_beat(priority: i32, best: Option<&Entry>) -> bool {
    best.is_none_or(|best| best.priority < priority)
}

/// The first accepted entry with a higher priority than `best`.
fn first_above<'t>(
    best: Option<&Entry>,
    entries: &'t [Entry],
    accepted: &impl Fn(&Entry) -> bool,
) -> Option<&'t Entry> {
    let mut above = entries.iter().take_while(|entry| may_beat(entry.priority, best));
    above.find(|entry| accepted(entry))
}

fn kept(map: HashMap<&str, Vec<Entry>>) -> HashMap<Box<str>, Box<[Entry]>> {
    map.into_iter()
        .map(|(path, entries)| (path.into(), entries.into()))
        .collect()
}

/// A prefix as it is looked up: without a slash at its end.
pub fn bare(prefix: &str) -> &str {
    prefix.trim_end_matches('/')
}

/// The bare prefixes of at most `limit` bytes that match `path`, the longest first; the last is empty.
pub fn prefixes(path: &str, limit: usize) -> impl Iterator<Item = &str> {
    let whole = path.strip_suffix('/').unwrap_or(path);
    let longest = if whole.len() <= limit {
        whole
    } else {
        shorter(whole, limit)
    };
    std::iter::successors(Some(longest), |prefix| {
        let limit = prefix.len().checked_sub(1)?;
        Some(shorter(prefix, limit))
    })
}

/// The longest proper prefix of whole segments within `limit` bytes.
fn shorter(path: &str, limit: usize) -> &str {
    let within = path.as_bytes().get(..=limit).unwrap_or(path.as_bytes());
    memrchr(b'/', within)
        .and_then(|slash| path.get(..slash))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_segments_and_the_longest_comes_first() {
        let of = |path| prefixes(path, 100).collect::<Vec<_>>();
        assert_eq!(of("/a/bc/d"), ["/a/bc/d", "/a/bc", "/a", ""]);
        assert_eq!(of("/a/"), ["/a", ""]);
        assert_eq!(of("/"), [""]);
        assert_eq!(of("*"), ["*", ""]);
        assert_eq!(of(""), [""]);
    }

    #[test]
    fn prefixes_longer_than_any_there_is_are_left_out() {
        let of = |limit| prefixes("/a/bc/d", limit).collect::<Vec<_>>();
        assert_eq!(of(0), [""]);
        assert_eq!(of(1), [""]);
        assert_eq!(of(2), ["/a", ""]);
        assert_eq!(of(5), ["/a/bc", "/a", ""]);
        assert_eq!(of(6), ["/a/bc", "/a", ""]);
        assert_eq!(of(7), ["/a/bc/d", "/a/bc", "/a", ""]);
    }
}

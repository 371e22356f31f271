//! Paths of one host pattern: from a path to the best route whose path matches.

use foldhash::HashMap;
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
        for prefix in prefixes(path).filter(|prefix| prefix.len() <= self.longest_prefix) {
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

/// The bare prefixes that match `path`, the longest first; the last is empty.
pub fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let longest = path.strip_suffix('/').unwrap_or(path);
    std::iter::successors(Some(longest), |prefix| match prefix.rsplit_once('/') {
        Some((shorter, _)) => Some(shorter),
        None if prefix.is_empty() => None,
        None => Some(""),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_segments_and_the_longest_comes_first() {
        let of = |path| prefixes(path).collect::<Vec<_>>();
        assert_eq!(of("/a/bc/d"), ["/a/bc/d", "/a/bc", "/a", ""]);
        assert_eq!(of("/a/"), ["/a", ""]);
        assert_eq!(of("/"), [""]);
        assert_eq!(of("*"), ["*", ""]);
        assert_eq!(of(""), [""]);
    }
}

//! Regular expressions of one host pattern, matched together.

use foldhash::HashMap;
use regex::{Regex, RegexSet};

use super::path::Entry;

/// Expressions compiled into one set: more make it slow to compile and run into its limit of memory.
const PER_SET: usize = 128;

/// Routes whose path is a regular expression.
#[derive(Debug)]
pub struct Regexes {
    /// The highest priority among them.
    top: i32,
    groups: Box<[Group]>,
}

#[derive(Debug)]
enum Group {
    One(Regex, Box<[Entry]>),
    /// The routes of each expression of the set.
    Set(RegexSet, Box<[Box<[Entry]>]>),
}

impl Regexes {
    /// For routes in the order of their places.
    pub fn new(routes: &[(&Regex, Entry)]) -> Self {
        let mut index: HashMap<&str, usize> = HashMap::default();
        let mut patterns: Vec<(&Regex, Vec<Entry>)> = Vec::new();
        for (regex, entry) in routes {
            let next = patterns.len();
            let at = *index.entry(regex.as_str()).or_insert(next);
            match patterns.get_mut(at) {
                Some((_, entries)) => entries.push(*entry),
                None => patterns.push((regex, vec![*entry])),
            }
        }
        let mut groups = Vec::new();
        for patterns in patterns.chunks(PER_SET) {
            compile(patterns, &mut groups);
        }
        Self {
            top: routes.iter().map(|(_, entry)| entry.priority).max().unwrap_or(i32::MIN),
            groups: groups.into(),
        }
    }

    pub fn top(&self) -> i32 {
        self.top
    }

    /// Calls `found` with the routes of each expression that matches. Allocates (a byte per expression) only where one
    /// of several expressions does match.
    pub fn matching<'t>(&'t self, path: &str, mut found: impl FnMut(&'t [Entry])) {
        for group in &self.groups {
            match group {
                Group::One(regex, entries) => {
                    if regex.is_match(path) {
                        found(entries);
                    }
                }
                Group::Set(set, entries) => {
                    if set.is_match(path) {
                        let matches = set.matches(path);
                        matches
                            .iter()
                            .filter_map(|at| entries.get(at))
                            .for_each(|entries| found(entries));
                    }
                }
            }
        }
    }
}

/// One set for `patterns`, or one for each half where it would be too big; a single expression stays itself.
fn compile(patterns: &[(&Regex, Vec<Entry>)], groups: &mut Vec<Group>) {
    if let [(regex, entries)] = patterns {
        groups.push(Group::One((*regex).clone(), entries.as_slice().into()));
        return;
    }
    match RegexSet::new(patterns.iter().map(|(regex, _)| regex.as_str())) {
        Ok(set) => {
            let entries = patterns.iter().map(|(_, entries)| entries.as_slice().into());
            groups.push(Group::Set(set, entries.collect()));
        }
        Err(_) => {
            // At least two: `chunks` gives no empty slice, and halves of two or more are not empty.
            let (left, right) = patterns.split_at(patterns.len() / 2);
            compile(left, groups);
            compile(right, groups);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(regexes: &Regexes, path: &str) -> Vec<u32> {
        let mut routes = Vec::new();
        regexes.matching(path, |entries| routes.extend(entries.iter().map(|entry| entry.route)));
        routes
    }

    fn entry(route: u32) -> Entry {
        Entry {
            route,
            priority: 0,
            place: route,
            condition: None,
        }
    }

    #[test]
    fn every_matching_expression_is_found_over_several_sets() {
        let patterns: Vec<Regex> = (0..300)
            .map(|i| Regex::new(&format!("^/(all|{i})$")).unwrap())
            .collect();
        let routes: Vec<_> = patterns.iter().zip(0..).map(|(regex, i)| (regex, entry(i))).collect();
        let regexes = Regexes::new(&routes);
        assert_eq!(matching(&regexes, "/all"), (0..300).collect::<Vec<_>>());
        assert_eq!(matching(&regexes, "/299"), [299]);
        assert_eq!(matching(&regexes, "/none"), [0u32; 0]);
    }

    #[test]
    fn sets_that_are_too_big_are_divided() {
        // Each is within the limit of one expression, both together are not.
        let patterns = [r"^/a\w{140}$", r"^/b\w{140}$"].map(|pattern| Regex::new(pattern).unwrap());
        assert!(RegexSet::new(patterns.iter().map(Regex::as_str)).is_err());
        let regexes = Regexes::new(&[(&patterns[0], entry(0)), (&patterns[1], entry(1))]);
        assert_eq!(matching(&regexes, &format!("/b{}", "x".repeat(140))), [1]);
    }

    #[test]
    fn routes_with_one_expression_share_it() {
        let regex = Regex::new("^/x$").unwrap();
        let regexes = Regexes::new(&[(&regex, entry(0)), (&regex, entry(1))]);
        assert!(matches!(&*regexes.groups, [Group::One(_, entries)] if entries.len() == 2));
    }
}

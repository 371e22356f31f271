//! No-Vary-Search (draft-ietf-httpbis-no-vary-search): responses that say which parameters of their URL mean nothing, or
//! that their order does, answer for all URLs that differ in these alone.
//!
//! For each path the newest such rule is known: it stands in the store among the responses, counted and evicted as these
//! are. By it the query of a request is brought into one form, and what is stored under that form says the same of itself.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use foldhash::quality::RandomState;
use http::HeaderName;

use super::apart::escape;
use super::key::Key;
use super::store::Store;
use super::structured::{self, Value};
use crate::base::pairs::{decoded, parameters};
use crate::fields::Fields;

static FIELD: HeaderName = HeaderName::from_static("no-vary-search");

/// Bytes of the field, and names in it; of more it counts as absent.
const MAX_FIELD: usize = 4096;
const MAX_NAMES: usize = 64;
/// Parameters of a query; one with more is stored as it stands.
const MAX_PARAMETERS: usize = 256;

/// What a response says of its URL's query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    names: Box<[Vec<u8>]>,
    /// `names` are those that count; else those that do not.
    only: bool,
    any_order: bool,
}

impl Rule {
    /// `None`: every query is another.
    pub fn of(response: &Fields) -> Option<Self> {
        let lines: Vec<&[u8]> = response.named(&FIELD).collect();
        let text = lines.join(&b", "[..]);
        if text.is_empty() || text.len() > MAX_FIELD {
            return None;
        }
        Self::read(std::str::from_utf8(&text).ok()?)
    }

    fn read(text: &str) -> Option<Self> {
        let (mut params, mut except, mut any_order) = (None, None, false);
        for (name, value) in structured::dictionary(text)? {
            match (name, value) {
                ("key-order", Value::Boolean(any)) => any_order = any,
                ("params", Value::List(names)) => params = Some(Some(names)),
                // All of them: as earlier drafts had it, and servers say it.
                ("params", Value::Boolean(true)) => params = Some(None),
                ("except", Value::List(names)) => except = Some(names),
                ("key-order" | "params" | "except", _) => return None,
                _ => {}
            }
        }
        let (names, only) = match (params, except) {
            (Some(Some(_)), Some(_)) => return None,
            (Some(Some(names)), None) => (names, false),
            (_, Some(names)) => (names, true),
            (Some(None), None) => (Vec::new(), true),
            (None, None) => (Vec::new(), false),
        };
        if names.len() > MAX_NAMES || (!only && names.is_empty() && !any_order) {
            return None;
        }
        let names = names.iter().map(|name| decoded(name.as_bytes()).collect());
        Some(Self {
            names: names.collect(),
            only,
            any_order,
        })
    }

    /// The form all queries have that are the same by this rule.
    fn form(&self, query: &str) -> Option<Vec<u8>> {
        let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (name, value) in parameters(query) {
            let name: Vec<u8> = decoded(name).collect();
            if self.names.contains(&name) == self.only {
                pairs.push((name, decoded(value).collect()));
            }
            if pairs.len() > MAX_PARAMETERS {
                return None;
            }
        }
        if self.any_order {
            // Several of one name keep theirs.
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        let mut form = Vec::new();
        for (name, value) in pairs {
            escape(&name, &mut form);
            form.push(b'=');
            escape(&value, &mut form);
            form.push(b'&');
        }
        Some(form)
    }
}

/// The newest rule of a path. Another one has another number, and what was stored under the one before is out of reach.
#[derive(Debug)]
pub struct Known {
    rule: Rule,
    number: u64,
}

impl Known {
    /// Bytes it takes.
    pub fn weight(&self) -> usize {
        size_of::<Self>() + self.rule.names.iter().map(|name| 40 + name.len()).sum::<usize>()
    }
}

/// The rules of a cache's paths, which its store holds.
#[derive(Debug, Default)]
pub struct Searches {
    /// There has been one: before, nobody looks for them.
    any: AtomicBool,
    next: AtomicU64,
    /// Numbers of another process are others.
    numbers: RandomState,
}

impl Searches {
    /// What a response says of its path.
    pub fn note(&self, store: &Store, key: &Key, rule: Rule) {
        if has_content(key) {
            return;
        }
        let (path, _) = halves(key);
        let place = place(path);
        if store.rule(&place).is_some_and(|known| known.rule == rule) {
            return;
        }
        let number = self.numbers.hash_one(self.next.fetch_add(1, Relaxed));
        store.set_rule(&place, Arc::new(Known { rule, number }));
        self.any.store(true, Relaxed);
    }

    /// The key of all URLs that are the same as this one. `None`: nothing is said of its path.
    pub fn same(&self, store: &Store, key: &Key) -> Option<Key> {
        if !self.any.load(Relaxed) || has_content(key) {
            return None;
        }
        let (path, query) = halves(key);
        let mut text = place(path);
        let known = store.rule(&text)?;
        let form = known.rule.form(std::str::from_utf8(query).ok()?)?;
        text.extend_from_slice(format!("{:016x} ", known.number).as_bytes());
        text.extend_from_slice(&form);
        text.shrink_to_fit();
        Some(Key {
            primary: text.len(),
            text,
            exact: Some(key.primary().into()),
        })
    }
}

/// Where the rule of a path stands. No URL has a space in it.
fn place(path: &[u8]) -> Vec<u8> {
    [path, b"? "].concat()
}

/// Another rule for another kind of requests.
fn has_content(key: &Key) -> bool {
    key.primary().contains(&b'#')
}

/// Path and query of a key as it was made of a request.
fn halves(key: &Key) -> (&[u8], &[u8]) {
    let url = key.primary();
    match memchr::memchr(b'?', url) {
        Some(at) => (url.get(..at).unwrap_or_default(), url.get(at + 1..).unwrap_or_default()),
        None => (url, &[]),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cache::query::Query;

    fn same(rule: &str, a: &str, b: &str) -> bool {
        let rule = Rule::read(rule).unwrap();
        rule.form(a).unwrap() == rule.form(b).unwrap()
    }

    #[test]
    fn what_means_nothing_makes_no_difference() {
        for (rule, a, b, expected) in [
            ("key-order", "a=1&b=2", "b=2&a=1", true),
            ("key-order", "a=1&a=2", "a=2&a=1", false),
            ("key-order", "a=x", "%61=%78", true),
            ("key-order", "a=x&&&", "a=x", true),
            ("key-order", "", "&", true),
            ("key-order", "a=", "a", true),
            ("key-order", "a=+", "a=%20", true),
            ("key-order", "a=1&b=2", "a=1", false),
            ("params=(\"u\")", "a=1&u=2", "a=1", true),
            ("params=(\"u\")", "a=1&u=2", "u=3&a=1&%75=4", true),
            ("params=(\"u\")", "a=1&b=2", "b=2&a=1", false),
            ("params=(\"u\"), key-order", "a=1&u=2&b=2", "b=2&a=1", true),
            ("params=(\"%C3%A9+x\")", "\u{e9}%20x=1", "", true),
            ("except=(\"id\")", "id=1&x=2", "y=3&id=1", true),
            ("except=(\"id\")", "id=1", "id=2", false),
            ("params, except=(\"id\")", "id=1&x=2", "id=1", true),
            ("except=()", "a=1", "", true),
            ("params", "a=1", "b=1", true),
            ("params=(\"u\"), new=1", "u=1", "", true),
            // What separates in the form is not taken for what a value has.
            ("key-order", "a=1%26b%3D2", "a=1&b=2", false),
        ] {
            assert_eq!(same(rule, a, b), expected, "{rule}: {a} and {b}");
        }
    }

    #[test]
    fn what_is_not_understood_says_nothing() {
        let many = format!("params=({})", vec!["\"a\""; 65].join(" "));
        for text in [
            "",
            "key-order=\"a\"",
            "key-order=?0",
            "params=()",
            "params=\"a\"",
            "params=?0",
            "params=(\"a\"), except=(\"b\")",
            "except=\"a\"",
            "except",
            "params=(",
            &many,
        ] {
            assert_eq!(Rule::read(text), None, "{text}");
        }
        let long: String = (0..300).map(|n| format!("a{n}=1&")).collect();
        assert_eq!(Rule::read("key-order").unwrap().form(&long), None);
    }

    fn key(url: &str) -> Key {
        Key::of_url(url, &Query::All).unwrap()
    }

    #[test]
    fn a_path_has_its_newest_rule_and_another_path_has_none() {
        let (searches, store) = (Searches::default(), Store::new(1 << 20));
        let rule = |text| Rule::read(text).unwrap();
        let same = |url| searches.same(&store, &key(url));
        assert_eq!(same("http://a/p?u=1"), None);
        searches.note(&store, &key("http://a/p?x"), rule("params=(\"u\")"));
        let first = same("http://a/p?u=1").unwrap();
        assert_eq!(same("http://a/p").unwrap().text, first.text);
        assert_eq!(first.exact.as_deref(), Some(&b"http://a/p?u=1"[..]));
        assert!(same("http://a/q?u=1").is_none() && same("http://b/p").is_none());
        searches.note(&store, &key("http://a/p"), rule("key-order"));
        searches.note(&store, &key("http://a/p"), rule("params=(\"u\")"));
        assert_ne!(same("http://a/p").unwrap().text, first.text);
    }

    #[test]
    fn rules_take_of_the_memory_there_is_and_make_room() {
        let (searches, store) = (Searches::default(), Store::new(1 << 20));
        let names: Vec<String> = (0..MAX_NAMES).map(|n| format!("\"{n:030}\"")).collect();
        let rule = format!("params=({})", names.join(" "));
        let before = store.bytes();
        searches.note(&store, &key("http://a/p"), Rule::read(&rule).unwrap());
        assert!(store.bytes() - before > MAX_NAMES as u64 * 30);
        for n in 0..10_000 {
            searches.note(&store, &key(&format!("http://a/{n}")), Rule::read(&rule).unwrap());
        }
        assert!(store.bytes() <= 1 << 20 && store.evictions() > 5000);
    }

    proptest! {
        /// The form is one of its own class, and order decides where it was not said that it does not.
        #[test]
        fn forms_are_their_own_form(query in "[abu=&%61+]{0,30}") {
            for rule in ["key-order", "params=(\"u\")", "except=(\"a\" \"b\"), key-order"] {
                let rule = Rule::read(rule).unwrap();
                let form = String::from_utf8(rule.form(&query).unwrap()).unwrap();
                prop_assert_eq!(rule.form(&form).unwrap(), form.as_bytes());
            }
        }
    }
}

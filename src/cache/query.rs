//! Which parameters of a query are part of a key. Those that are not are not sent on either: nothing that is in no key
//! decides an answer.

use std::borrow::Cow;

use crate::base::pairs::{decoded, parameters};

/// Names of parameters; one that ends in `*` stands for all that begin so.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Query {
    #[default]
    All,
    Only(Box<[String]>),
    Without(Box<[String]>),
}

impl Query {
    /// What is left of a query; `None`: nothing, not even its `?`.
    pub fn kept<'a>(&self, query: &'a str) -> Option<Cow<'a, str>> {
        let (names, wanted) = match self {
            Self::All => return Some(Cow::Borrowed(query)),
            Self::Only(names) => (names, true),
            Self::Without(names) => (names, false),
        };
        let all = query.split('&').filter(|piece| !piece.is_empty());
        let kept: Vec<&str> = all
            .filter(|piece| parameters(piece).any(|(name, _)| matches(names, name) == wanted))
            .collect();
        (!kept.is_empty()).then(|| Cow::Owned(kept.join("&")))
    }
}

/// Compared decoded, as whoever reads the parameter would.
fn matches(names: &[String], raw: &[u8]) -> bool {
    let name: Vec<u8> = decoded(raw).collect();
    names.iter().any(|known| match known.strip_suffix('*') {
        Some(start) => name.starts_with(start.as_bytes()),
        None => name == known.as_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_query() {
        let names = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Box<[_]>>();
        let only = Query::Only(names(&["q", "page"]));
        let without = Query::Without(names(&["utm_*", "fbclid"]));
        for (query, kept_only, kept_without) in [
            ("q=1&x=2", Some("q=1"), Some("q=1&x=2")),
            ("utm_source=a&q=1", Some("q=1"), Some("q=1")),
            ("utm%5Fsource=a&fbclid", None, None),
            ("%71=1&&page", Some("%71=1&page"), Some("%71=1&page")),
            ("q=1;utm_x=2", Some("q=1;utm_x=2"), Some("q=1;utm_x=2")),
            ("", None, None),
        ] {
            assert_eq!(only.kept(query).as_deref(), kept_only, "{query}");
            assert_eq!(without.kept(query).as_deref(), kept_without, "{query}");
            assert_eq!(Query::All.kept(query).as_deref(), Some(query));
        }
    }
}

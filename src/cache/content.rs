//! Requests that are stored by what they carry: QUERY (RFC 10008), and POST that asks a GraphQL server. What a request
//! is told apart by is a digest of its content and of what says how it is to be read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};
use http::Method;

use super::graphql;
use super::reason::Reason;
use crate::fields::Fields;
use crate::telemetry::series::CacheResult;
use crate::telemetry::shard::Sharded;

/// Fields that say how content is to be read.
const READ_BY: [http::HeaderName; 3] = [
    http::header::CONTENT_TYPE,
    http::header::CONTENT_ENCODING,
    http::header::CONTENT_LANGUAGE,
];

/// Which requests are stored by their content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ByContent {
    /// The method QUERY.
    pub query: bool,
    /// POST with a query of GraphQL.
    pub graphql: bool,
    /// Bytes of content; with more of it the cache has no part in a request.
    pub most: usize,
    /// Names of operations that are counted each for itself.
    pub operations: Box<[String]>,
}

/// What tells a request apart.
#[derive(Debug, PartialEq, Eq)]
pub struct Told {
    /// GraphQL's name of the operation; empty: it has none.
    pub operation: String,
    /// Of letters alone that stand in a field.
    pub digest: String,
}

impl ByContent {
    /// Whether requests of this method may be stored by their content.
    pub fn takes(&self, method: &Method) -> bool {
        (self.graphql && *method == Method::POST) || (self.query && method.as_str() == "QUERY")
    }

    /// Whether this request may.
    pub fn tell(&self, method: &Method, fields: &Fields, content: &[u8]) -> Result<Told, Reason> {
        let single = |name| {
            let mut all = fields.named(name);
            let first = all.next().unwrap_or_default();
            all.next().is_none().then_some(first)
        };
        let kind = single(&http::header::CONTENT_TYPE).ok_or(Reason::ContentType)?;
        let operation = match *method == Method::POST {
            true if fields.named(&http::header::CONTENT_ENCODING).next().is_some() => return Err(Reason::ContentType),
            true => graphql::query(kind, content)?,
            // Content that nothing says how to read is an error (RFC 10008).
            false if kind.is_empty() => return Err(Reason::ContentType),
            false => String::new(),
        };
        let mut hash = Context::new(&SHA256);
        for name in &READ_BY {
            for line in fields.named(name) {
                hash.update(line);
                hash.update(b"\n");
            }
            hash.update(b"\n");
        }
        hash.update(content);
        let mut digest = String::with_capacity(64);
        for byte in hash.finish().as_ref() {
            // Writing to a string does not fail.
            let _ = write!(digest, "{byte:02x}");
        }
        Ok(Told { operation, digest })
    }
}

type Counts = [u64; CacheResult::ALL.len()];

/// A worker's requests by operation and by what the cache did with them. Only who reads the metrics wants the lock, too.
#[derive(Debug, Default)]
pub struct Operations(Mutex<BTreeMap<Box<str>, Counts>>);

/// What is counted under no name of its own.
const OTHER: &str = "other";

impl Operations {
    /// `named`: those that are counted each for itself, so that clients cannot make up more.
    pub fn count(&self, name: &str, named: &[String], result: CacheResult) {
        let name = if named.iter().any(|known| known == name) {
            name
        } else {
            OTHER
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(name) {
            Some(counts) => counts[result as usize] += 1,
            None => {
                let mut first = [0; CacheResult::ALL.len()];
                first[result as usize] = 1;
                counts.insert(name.into(), first);
            }
        }
    }

    /// Each operation with what all workers counted, in the order of [`CacheResult::ALL`].
    pub fn sum(workers: &Sharded<Self>, mut tell: impl FnMut(&str, &[u64])) {
        let mut sums: BTreeMap<Box<str>, Counts> = BTreeMap::new();
        for operations in workers.parts() {
            let counts = operations.0.lock().unwrap_or_else(PoisonError::into_inner);
            for (name, counts) in &*counts {
                let sum = sums.entry(name.clone()).or_default();
                sum.iter_mut().zip(counts).for_each(|(sum, n)| *sum += n);
            }
        }
        sums.iter().for_each(|(name, counts)| tell(name, counts));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::shard::WorkerId;

    fn told(method: &str, lines: &[(&'static str, &str)], content: &str) -> Result<Told, Reason> {
        let by = ByContent {
            query: true,
            graphql: true,
            ..ByContent::default()
        };
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append_text(name, value.as_bytes());
        }
        by.tell(&method.parse().unwrap(), &fields, content.as_bytes())
    }

    #[test]
    fn content_and_how_it_is_read_tell_apart() {
        let json = ("content-type", "application/json");
        let digest = |lines: &[(&'static str, &str)], content| told("QUERY", lines, content).unwrap().digest;
        let one = digest(&[json], "a");
        assert_eq!((one.len(), &one), (64, &digest(&[json, ("accept", "x")], "a")));
        for other in [
            digest(&[json], "b"),
            digest(&[("content-type", "text/plain")], "a"),
            digest(&[json, ("content-encoding", "gzip")], "a"),
            digest(&[json, ("content-language", "gzip")], "a"),
            digest(&[json], ""),
        ] {
            assert_ne!(one, other);
        }
        assert_eq!(told("QUERY", &[], "a"), Err(Reason::ContentType));
        assert_eq!(told("QUERY", &[json, json], "a"), Err(Reason::ContentType));
    }

    #[test]
    fn of_post_only_what_asks_graphql() {
        let json = ("content-type", "application/json");
        let query = r#"{"query": "query Get { a }"}"#;
        assert_eq!(told("POST", &[json], query).unwrap().operation, "Get");
        assert_eq!(told("POST", &[json], "{}"), Err(Reason::NotQuery));
        assert_eq!(
            told("POST", &[json, ("content-encoding", "gzip")], query),
            Err(Reason::ContentType)
        );
        let takes = |by: &ByContent, method: &str| by.takes(&method.parse().unwrap());
        let graphql = ByContent {
            graphql: true,
            ..ByContent::default()
        };
        assert!(takes(&graphql, "POST") && !takes(&graphql, "QUERY") && !takes(&graphql, "PUT"));
        assert!(!takes(&ByContent::default(), "POST") && !takes(&ByContent::default(), "QUERY"));
    }

    #[test]
    fn clients_cannot_make_up_operations_to_count() {
        let operations = Sharded::<Operations>::new(3);
        for n in 0..100 {
            let worker = operations.local(WorkerId(n % 4));
            worker.count(&format!("op{n}"), &["op7".to_owned()], CacheResult::Hit);
        }
        let mut all = Vec::new();
        Operations::sum(&operations, |name, counts| {
            all.push((name.to_owned(), counts[CacheResult::Hit as usize]))
        });
        assert_eq!(all, [("op7".to_owned(), 1), ("other".to_owned(), 99)]);
    }
}

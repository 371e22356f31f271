//! `[caches.NAME]`, and `cache` of a route: its name, or a table with what is different there.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::name::{check_name, is_token, networks, reference};
use crate::cache::ahead::{Ahead, Thousandths};
use crate::cache::query::Query;
use crate::cache::range::Misses;
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic};
use crate::config::reader::{Fields, Shape, parsed, text, word};
use crate::config::value::{Node, Value};

#[derive(Debug)]
pub struct Cache {
    pub name: At<String>,
    /// Bytes; `None`: missing or wrong, which was reported.
    pub memory: Option<u64>,
    pub disk: Option<Disk>,
    pub purge_sources: Vec<IpNet>,
    pub query: Query,
    /// Fields of requests that responses are told apart by.
    pub apart: Vec<HeaderName>,
    pub cookies: Vec<String>,
    pub usage: Usage,
}

/// `disk` of a cache.
#[derive(Debug)]
pub struct Disk {
    pub path: At<PathBuf>,
    /// Bytes.
    pub size: u64,
}

/// `cache` of a route.
#[derive(Debug)]
pub struct Reference {
    pub name: At<String>,
    pub usage: Usage,
}

/// How a cache is used: what is not written is the cache's, then the default.
#[derive(Debug, Clone, Default)]
pub struct Usage {
    pub max_entry: Option<At<u64>>,
    pub heuristic: Option<Duration>,
    pub stale_if_error: Option<Duration>,
    pub stale_while_revalidate: Option<Duration>,
    pub set_cookie: Option<bool>,
    pub refresh_ahead: Option<Ahead>,
    pub jitter: Option<Thousandths>,
    pub ranges: Option<Misses>,
    pub targets: Option<Vec<HeaderName>>,
    pub by_content: Option<At<Vec<ContentKind>>>,
    /// Bytes.
    pub max_content: Option<At<u64>>,
    pub operations: Option<At<Vec<String>>>,
}

/// Requests that are stored by what they carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentKind {
    Query,
    Graphql,
}

pub const CACHE: Shape = Shape {
    what: "a cache",
    keys: &[
        "memory",
        "disk",
        "key",
        "purge_sources",
        "max_entry",
        "heuristic",
        "stale_if_error",
        "stale_while_revalidate",
        "set_cookie",
        "refresh_ahead",
        "jitter",
        "ranges",
        "targets",
        "by_content",
        "max_content",
        "operations",
    ],
    later: &["redis"],
};
pub const DISK: Shape = Shape {
    what: "`disk`",
    keys: &["path", "size"],
    later: &[],
};
pub const KEY: Shape = Shape {
    what: "`key`",
    keys: &["headers", "cookies", "query", "without_query"],
    later: &[],
};
pub const USE: Shape = Shape {
    what: "`cache`",
    keys: &[
        "name",
        "max_entry",
        "heuristic",
        "stale_if_error",
        "stale_while_revalidate",
        "set_cookie",
        "refresh_ahead",
        "jitter",
        "ranges",
        "targets",
        "by_content",
        "max_content",
        "operations",
    ],
    later: &[],
};

pub const AHEAD: Shape = Shape {
    what: "`refresh_ahead`",
    keys: &["last", "hits"],
    later: &[],
};

/// More hits than anybody waits for.
const MAX_HITS: u32 = 1_000_000;
const RANGES: [(&str, Misses); 3] = [("auto", Misses::Auto), ("whole", Misses::Whole), ("part", Misses::Part)];
/// More is no query, and is held for each request that comes.
const MAX_CONTENT: u64 = 1 << 20;
/// Operations that are counted each for itself.
const MAX_OPERATIONS: usize = 64;
/// Less holds next to nothing.
const LEAST_MEMORY: u64 = 1 << 20;
const LEAST_DISK: u64 = 16 << 20;

pub fn read(cx: &Context<'_>, name: &At<String>, node: &Node) -> Option<Cache> {
    check_name(cx, name);
    let fields = Fields::of(cx, node, &CACHE)?;
    fields.require("memory")?;
    let key = fields.get("key").and_then(|node| Fields::of(cx, node, &KEY));
    Some(Cache {
        query: key.as_ref().map(query).unwrap_or_default(),
        cookies: key.as_ref().map(cookies).unwrap_or_default(),
        apart: key.as_ref().and_then(|key| names(key, "headers")).unwrap_or_default(),
        name: name.clone(),
        memory: fields.size("memory", LEAST_MEMORY..=u64::MAX / 2, "at least 1MiB"),
        disk: fields.get("disk").and_then(|node| disk(cx, node)),
        purge_sources: networks(&fields, "purge_sources"),
        usage: usage(&fields),
    })
}

fn disk(cx: &Context<'_>, node: &Node) -> Option<Disk> {
    let fields = Fields::of(cx, node, &DISK)?;
    let (has_path, has_size) = (fields.require("path").is_some(), fields.require("size").is_some());
    let path = fields
        .text("path")
        .map(|found| found.with(cx.resolve(found.value, found.span)));
    let size = fields.size("size", LEAST_DISK..=u64::MAX / 2, "at least 16MiB");
    (has_path && has_size).then_some(())?;
    Some(Disk {
        path: path?,
        size: size?,
    })
}

/// A name, or a table with one.
pub fn used(cx: &Context<'_>, node: &Node) -> Option<Reference> {
    let Value::Table(table) = &node.value else {
        return Some(Reference {
            name: reference(cx, node)?,
            usage: Usage::default(),
        });
    };
    let fields = Fields::new(cx, table, node.span, &USE);
    let name = reference(cx, fields.require("name")?);
    let usage = usage(&fields);
    Some(Reference { name: name?, usage })
}

fn query(key: &Fields<'_>) -> Query {
    let present = key.present(&["query", "without_query"]);
    if let [first, second, ..] = present.as_slice() {
        let error = Diagnostic::error(second.span, "`query` and `without_query` exclude each other");
        key.cx.push(error.related(first.span, "already said here"));
    }
    let list = |name: &str| {
        let read = |node| text(key.cx, node).map(|found| found.value.to_owned());
        key.list(name, "a list of names of parameters", read)
            .map(|found| found.value.into())
    };
    let (only, without) = (list("query"), list("without_query"));
    only.map(Query::Only)
        .or(without.map(Query::Without))
        .unwrap_or_default()
}

fn cookies(key: &Fields<'_>) -> Vec<String> {
    let expected = "expected the name of a cookie";
    let name = |text: &str| match is_token(text) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is not the name of a cookie")),
    };
    let read = |node| parsed(key.cx, node, expected, name).map(|found| found.value);
    key.list("cookies", "a list of names of cookies", read)
        .map(|found| found.value)
        .unwrap_or_default()
}

fn names(fields: &Fields<'_>, key: &str) -> Option<Vec<HeaderName>> {
    let name = |node: &Node| {
        let read = |text: &str| HeaderName::try_from(text).map_err(|_| format!("`{text}` is not the name of a header"));
        parsed(fields.cx, node, "expected the name of a header", read).map(|found| found.value)
    };
    fields
        .list(key, "a list of header names", name)
        .map(|found| found.value)
}

fn usage(fields: &Fields<'_>) -> Usage {
    let span = fields.get("max_entry").map_or(fields.span, |node| node.span);
    Usage {
        max_entry: fields
            .size("max_entry", 1..=u64::MAX / 2, "at least 1B")
            .map(|value| At { value, span }),
        heuristic: fields.optional_duration("heuristic", Duration::ZERO),
        stale_if_error: fields.optional_duration("stale_if_error", Duration::ZERO),
        stale_while_revalidate: fields.optional_duration("stale_while_revalidate", Duration::ZERO),
        set_cookie: fields.flag("set_cookie"),
        refresh_ahead: fields.get("refresh_ahead").and_then(|node| ahead(fields.cx, node)),
        jitter: fields.fraction("jitter", 0.0..=0.5).map(share),
        ranges: fields.word("ranges", &RANGES, &[]).map(|found| found.value),
        targets: names(fields, "targets"),
        by_content: fields.list("by_content", "a list of \"query\" and \"graphql\"", |node| {
            let kinds = [("query", ContentKind::Query), ("graphql", ContentKind::Graphql)];
            let found = text(fields.cx, node)?;
            word(fields.cx, &found, "what is stored by content", &kinds, &[]).map(|found| found.value)
        }),
        max_content: fields
            .size("max_content", 1..=MAX_CONTENT, "1B to 1MiB")
            .map(|value| At {
                value,
                span: fields.get("max_content").map_or(fields.span, |node| node.span),
            }),
        operations: operations(fields),
    }
}

fn ahead(cx: &Context<'_>, node: &Node) -> Option<Ahead> {
    let fields = Fields::of(cx, node, &AHEAD)?;
    Some(Ahead {
        last: fields
            .fraction("last", 0.0..=1.0)
            .map_or(defaults::CACHE_AHEAD.last, share),
        hits: fields
            .number("hits", 1..=MAX_HITS)
            .unwrap_or(defaults::CACHE_AHEAD.hits),
    })
}

fn share(of_one: f64) -> Thousandths {
    // At most a thousand.
    Thousandths((of_one * 1000.0).round() as u16)
}

fn operations(fields: &Fields<'_>) -> Option<At<Vec<String>>> {
    let read = |node| text(fields.cx, node).map(|found| found.value.to_owned());
    let found = fields.list("operations", "a list of names of operations", read)?;
    if found.value.len() > MAX_OPERATIONS {
        let error = Diagnostic::error(found.span, format!("at most {MAX_OPERATIONS} operations are counted"));
        fields
            .cx
            .push(error.help("each is a series of metrics; the others are counted as `other`"));
    }
    Some(found)
}

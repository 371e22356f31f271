//! `balance = …`: an algorithm's name, or a table with what it needs.

use http::HeaderName;

use super::name::is_token;
use crate::balance::{HashKey, Spec};
use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::reader::{Fields, Shape, mismatch, text, word};
use crate::config::value::{Node, Value};

pub const BALANCE: Shape = Shape {
    what: "`balance`",
    keys: &["algorithm", "hash"],
    later: &[],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    RoundRobin,
    Random,
    LeastConnections,
    Maglev,
}

const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("round_robin", Algorithm::RoundRobin),
    ("random", Algorithm::Random),
    ("least_connections", Algorithm::LeastConnections),
    ("maglev", Algorithm::Maglev),
];
const LATER: [&str; 4] = ["p2c", "peak_ewma", "ring_hash", "rendezvous"];

pub fn read(cx: &Context<'_>, node: &Node) -> Option<At<Spec>> {
    let (name, hash, hash_span) = match &node.value {
        Value::String(_) => (text(cx, node)?, None, node.span),
        Value::Table(table) => {
            let fields = Fields::new(cx, table, node.span, &BALANCE);
            fields.require("algorithm")?;
            let expected = "expected source_ip, path, uri, host, header:NAME, cookie:NAME or query:NAME";
            let hash = fields.parsed("hash", expected, hash_key);
            if fields.get("hash").is_some() && hash.is_none() {
                return None;
            }
            let hash_span = fields.present(&["hash"]).first().map_or(node.span, |key| key.span);
            (fields.text("algorithm")?, hash, hash_span)
        }
        _ => {
            return mismatch(
                cx,
                node,
                "an algorithm's name or a table",
                "as in `\"least_connections\"`",
            );
        }
    };
    let algorithm = word(cx, &name, "the algorithm", &ALGORITHMS, &LATER)?;
    let spec = match (algorithm.value, hash) {
        (Algorithm::Maglev, Some(hash)) => Spec::Maglev { hash: hash.value },
        (Algorithm::Maglev, None) => return needs_hash(cx, &name, node.span),
        (_, Some(_)) => {
            cx.push(Diagnostic::error(
                hash_span,
                format!("`{}` does not hash anything", name.value),
            ));
            return None;
        }
        (Algorithm::RoundRobin, None) => Spec::RoundRobin,
        (Algorithm::Random, None) => Spec::Random,
        (Algorithm::LeastConnections, None) => Spec::LeastConnections,
    };
    Some(At {
        value: spec,
        span: node.span,
    })
}

fn needs_hash<T>(cx: &Context<'_>, name: &At<&str>, span: Span) -> Option<T> {
    cx.push(
        Diagnostic::error(span, format!("`{}` needs to know what to hash", name.value))
            .label("`hash` is missing")
            .help(format!(
                "write `balance = {{ algorithm = \"{}\", hash = \"source_ip\" }}`",
                name.value
            )),
    );
    None
}

fn hash_key(text: &str) -> Result<HashKey, String> {
    let unknown = || format!("`{text}` is nothing that can be hashed");
    match text {
        "source_ip" => return Ok(HashKey::SourceIp),
        "path" => return Ok(HashKey::Path),
        "uri" => return Ok(HashKey::Uri),
        "host" => return Ok(HashKey::Host),
        _ => {}
    }
    let (kind, name) = text.split_once(':').ok_or_else(unknown)?;
    match kind {
        "header" => HeaderName::from_bytes(name.as_bytes())
            .map(HashKey::Header)
            .map_err(|_| format!("`{name}` is not the name of a header field")),
        "cookie" if is_token(name) => Ok(HashKey::Cookie(name.into())),
        "cookie" => Err(format!("`{name}` is not the name of a cookie")),
        "query" if !name.is_empty() => Ok(HashKey::Query(name.into())),
        "query" => Err("`query:` needs the name of a parameter".into()),
        _ => Err(unknown()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_hash_keys() {
        for (text, key) in [
            ("source_ip", HashKey::SourceIp),
            ("uri", HashKey::Uri),
            ("header:X-User", HashKey::Header(HeaderName::from_static("x-user"))),
            ("cookie:sid", HashKey::Cookie("sid".into())),
            ("query:a b", HashKey::Query("a b".into())),
        ] {
            assert_eq!(hash_key(text), Ok(key));
        }
        for text in ["", "ip", "header:", "header:a b", "cookie:", "query:", "header"] {
            assert!(hash_key(text).is_err(), "{text}");
        }
    }
}

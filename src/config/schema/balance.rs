//! `balance = …`: an algorithm's name, or a table with what it needs.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;

use super::name::is_token;
use crate::balance::spread::Spread;
use crate::balance::{HashKey, Hashing, MaxLoad, Spec};
use crate::config::defaults;
use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::reader::{Fields, Shape, mismatch, text, word};
use crate::config::value::{Node, Value};

pub const BALANCE: Shape = Shape {
    what: "`balance`",
    keys: &["algorithm", "hash", "max_load"],
    later: &[],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Auto,
    RoundRobin,
    Random,
    LeastConnections,
    P2c,
    PeakEwma,
    RingHash,
    Maglev,
    Rendezvous,
}

const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("auto", Algorithm::Auto),
    ("round_robin", Algorithm::RoundRobin),
    ("random", Algorithm::Random),
    ("least_connections", Algorithm::LeastConnections),
    ("p2c", Algorithm::P2c),
    ("peak_ewma", Algorithm::PeakEwma),
    ("ring_hash", Algorithm::RingHash),
    ("maglev", Algorithm::Maglev),
    ("rendezvous", Algorithm::Rendezvous),
];

/// Less hardly spreads a hot key at all, and finds no endpoint at once; more is no bound to speak of.
const MAX_LOAD: RangeInclusive<f64> = 1.01..=10.0;

/// `None`: `auto`, which depends on who uses the upstream.
pub fn read(cx: &Context<'_>, node: &Node) -> Option<At<Option<Spec>>> {
    let (name, fields) = match &node.value {
        Value::String(_) => (text(cx, node)?, None),
        Value::Table(table) => {
            let fields = Fields::new(cx, table, node.span, &BALANCE);
            fields.require("algorithm")?;
            (fields.text("algorithm")?, Some(fields))
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
    let algorithm = word(cx, &name, "the algorithm", &ALGORITHMS, &[])?;
    let spec = match algorithm.value {
        Algorithm::Auto => None,
        Algorithm::RoundRobin => Some(Spec::RoundRobin),
        Algorithm::Random => Some(Spec::Random),
        Algorithm::LeastConnections => Some(Spec::LeastConnections),
        Algorithm::P2c => Some(Spec::P2c),
        Algorithm::PeakEwma => Some(Spec::PeakEwma),
        Algorithm::RingHash => Some(Spec::RingHash(hashing(cx, &name, fields.as_ref(), node.span)?)),
        Algorithm::Maglev => Some(Spec::Maglev(hashing(cx, &name, fields.as_ref(), node.span)?)),
        Algorithm::Rendezvous => Some(Spec::Rendezvous(hashing(cx, &name, fields.as_ref(), node.span)?)),
    };
    if spec.as_ref().and_then(Spec::hashing).is_none()
        && let Some(fields) = &fields
    {
        let foreign = fields.present(&["hash", "max_load"]);
        for key in &foreign {
            let message = format!("`{}` does not hash anything", name.value);
            let error = Diagnostic::error(key.span, message);
            cx.push(match key.value.as_str() {
                "max_load" => error.label("`max_load` bounds what a hashed key may bring to one endpoint"),
                _ => error,
            });
        }
        if !foreign.is_empty() {
            return None;
        }
    }
    Some(At {
        value: spec,
        span: node.span,
    })
}

/// What of an upstream decides who may be picked, besides the algorithm. The zone is the server's.
pub fn spread(fields: &Fields<'_>, balance: Option<&Spec>) -> Spread {
    let spread = Spread {
        slow_start: fields.optional_duration("slow_start", Duration::from_millis(100)),
        panic_threshold: fields
            .fraction("panic_threshold", 0.0..=1.0)
            .unwrap_or(defaults::PANIC_THRESHOLD),
        subset: fields.number("subset", 1..=10_000),
        zone: None,
    };
    if let Some(spec) = balance.filter(|spec| spread.subset.is_some() && spec.hashing().is_some()) {
        let name = spec.label();
        let reason = format!("does not go with `{name}`: each worker would send a key to another endpoint");
        fields.refuse(&["subset"], &reason);
    }
    if spread.slow_start.is_some() && matches!(balance, Some(Spec::Maglev(_))) {
        let reason = "does not go with `maglev`, where each step would move keys of other endpoints: take `ring_hash` or \
                      `rendezvous`";
        fields.refuse(&["slow_start"], reason);
    }
    spread
}

/// What a hashing algorithm needs; whatever is wrong with it has been said when there is none.
fn hashing(cx: &Context<'_>, name: &At<&str>, fields: Option<&Fields<'_>>, span: Span) -> Option<Hashing> {
    let Some(fields) = fields.filter(|fields| fields.get("hash").is_some()) else {
        return needs_hash(cx, name, span);
    };
    let expected = "expected source_ip, path, uri, host, header:NAME, cookie:NAME or query:NAME";
    let key = fields.parsed("hash", expected, hash_key);
    let max_load = fields.fraction("max_load", MAX_LOAD);
    Some(Hashing {
        key: key?.value,
        max_load: max_load.map(|share| MaxLoad((share * 100.0).round() as u32)),
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

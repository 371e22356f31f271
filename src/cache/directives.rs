//! Cache-Control of both directions (RFC 9111 section 5.2, RFC 5861, RFC 8246), and targeted fields (RFC 9213).
//!
//! A freshness value that cannot be read counts as 0 (section 4.2.1 asks for that), a restriction counts whatever
//! stands behind its name.

use http::HeaderName;

use super::structured::{self, Value};
use crate::fields::{Fields, Known};

/// Longer ages all mean "for ever" (RFC 9111 section 1.2.2).
pub const FOREVER: u32 = 1 << 31;
/// Names that `private` and `no-cache` may list; a response that lists more counts as listing all.
const MAX_NAMES: usize = 32;

/// What a response says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForResponse {
    pub max_age: Option<u32>,
    pub s_maxage: Option<u32>,
    pub no_store: bool,
    pub no_cache: bool,
    pub private: bool,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub immutable: bool,
    pub stale_while_revalidate: Option<u32>,
    pub stale_if_error: Option<u32>,
    /// Fields that may not be stored: those `private` and `no-cache` name.
    pub without: Vec<String>,
}

/// What a request says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForRequest {
    pub no_cache: bool,
    pub no_store: bool,
    pub only_if_cached: bool,
    pub max_age: Option<u32>,
    pub min_fresh: Option<u32>,
    /// Without a value: any staleness.
    pub max_stale: Option<u32>,
    pub stale_if_error: Option<u32>,
}

/// Each directive of a Cache-Control value: name and argument, quotes taken off.
fn each(text: &[u8], mut tell: impl FnMut(&[u8], Option<&[u8]>)) {
    let mut rest = text;
    while !rest.is_empty() {
        let mut quoted = false;
        let mut escaped = false;
        let end = rest.iter().position(|b| {
            match (quoted, *b) {
                (true, _) if escaped => escaped = false,
                (true, b'\\') => escaped = true,
                (_, b'"') => quoted = !quoted,
                (false, b',') => return true,
                _ => {}
            }
            false
        });
        let (directive, after) = match end {
            Some(comma) => (&rest[..comma], &rest[comma + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        let directive = directive.trim_ascii();
        match memchr::memchr(b'=', directive) {
            None => tell(directive, None),
            Some(at) => {
                let value = &directive[at + 1..];
                let inner = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
                tell(&directive[..at], Some(inner.unwrap_or(value)));
            }
        }
    }
}

/// Seconds; what is no number is 0, what is large is [`FOREVER`].
fn seconds(argument: Option<&[u8]>) -> u32 {
    match argument {
        Some(digits) if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            let sum = digits
                .iter()
                .fold(0u64, |n, d| (n * 10 + u64::from(d - b'0')).min(u64::from(FOREVER)));
            sum as u32
        }
        _ => 0,
    }
}

impl ForResponse {
    /// The first valid targeted field in the order of `targets`, else Cache-Control. `true`: it was a targeted one,
    /// and Expires and Pragma do not count either.
    pub fn read(fields: &Fields, targets: &[HeaderName]) -> (Self, bool) {
        for target in targets {
            let lines: Vec<&[u8]> = fields.named(target).collect();
            if lines.is_empty() {
                continue;
            }
            let joined = lines.join(&b", "[..]);
            let parsed = std::str::from_utf8(&joined).ok().and_then(structured::dictionary);
            if let Some(found) = parsed
                .filter(|members| !members.is_empty())
                .and_then(|m| Self::targeted(&m))
            {
                return (found, true);
            }
        }
        let mut found = Self::default();
        for line in fields.all(Known::CacheControl) {
            each(line, |name, argument| found.add(name, argument));
        }
        (found, false)
    }

    fn add(&mut self, name: &[u8], argument: Option<&[u8]>) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        // Of two that differ the first counts (section 4.2.1).
        let first = |slot: &mut Option<u32>| {
            slot.get_or_insert(seconds(argument));
        };
        if is("max-age") {
            first(&mut self.max_age);
        } else if is("s-maxage") {
            first(&mut self.s_maxage);
        } else if is("stale-while-revalidate") {
            first(&mut self.stale_while_revalidate);
        } else if is("stale-if-error") {
            first(&mut self.stale_if_error);
        } else if is("no-store") {
            self.no_store = true;
        } else if is("no-cache") {
            self.no_cache |= !self.names(argument);
        } else if is("private") {
            self.private |= !self.names(argument);
        } else if is("public") {
            self.public = true;
        } else if is("must-revalidate") {
            self.must_revalidate = true;
        } else if is("proxy-revalidate") {
            self.proxy_revalidate = true;
        } else if is("must-understand") {
            self.must_understand = true;
        } else if is("immutable") {
            self.immutable = true;
        }
    }

    /// Notes the fields of a list; `false`: there is none that could be read, so all of the response is meant.
    fn names(&mut self, argument: Option<&[u8]>) -> bool {
        let Some(list) = argument.and_then(|list| std::str::from_utf8(list).ok()) else {
            return false;
        };
        let names: Vec<&str> = list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let valid = |name: &&str| HeaderName::from_bytes(name.as_bytes()).is_ok();
        if names.is_empty() || self.without.len() + names.len() > MAX_NAMES || !names.iter().all(valid) {
            return false;
        }
        self.without.extend(names.into_iter().map(str::to_ascii_lowercase));
        true
    }

    /// `None`: a directive known here has a value of the wrong kind.
    fn targeted(members: &[(&str, Value<'_>)]) -> Option<Self> {
        let mut found = Self::default();
        for (name, value) in members {
            match *name {
                "max-age" | "s-maxage" | "stale-while-revalidate" | "stale-if-error" => {
                    let Value::Integer(number) = value else { return None };
                    let number = u32::try_from(*number).ok().map_or(FOREVER, |n| n.min(FOREVER));
                    let number = if matches!(value, Value::Integer(n) if *n < 0) {
                        0
                    } else {
                        number
                    };
                    match *name {
                        "max-age" => found.max_age = Some(number),
                        "s-maxage" => found.s_maxage = Some(number),
                        "stale-while-revalidate" => found.stale_while_revalidate = Some(number),
                        _ => found.stale_if_error = Some(number),
                    }
                }
                "no-cache" | "private" => {
                    let whole = match value {
                        Value::Boolean(false) => false,
                        Value::String(names) => !found.names(Some(names.as_bytes())),
                        _ => true,
                    };
                    match *name {
                        "private" => found.private |= whole,
                        _ => found.no_cache |= whole,
                    }
                }
                flag if *value != Value::Boolean(false) => found.add(flag.as_bytes(), None),
                _ => {}
            }
        }
        Some(found)
    }
}

impl ForRequest {
    pub fn read(fields: &Fields) -> Self {
        let mut found = Self::default();
        for line in fields.all(Known::CacheControl) {
            each(line, |name, argument| {
                let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
                if is("no-cache") {
                    found.no_cache = true;
                } else if is("no-store") {
                    found.no_store = true;
                } else if is("only-if-cached") {
                    found.only_if_cached = true;
                } else if is("max-age") {
                    found.max_age.get_or_insert(seconds(argument));
                } else if is("min-fresh") {
                    found.min_fresh.get_or_insert(seconds(argument));
                } else if is("max-stale") {
                    let limit = argument.map_or(FOREVER, |_| seconds(argument));
                    found.max_stale.get_or_insert(limit);
                } else if is("stale-if-error") {
                    found.stale_if_error.get_or_insert(seconds(argument));
                }
            });
        }
        // Section 5.4: for old clients alone.
        if fields.has(Known::Pragma) && !fields.has(Known::CacheControl) {
            for line in fields.all(Known::Pragma) {
                each(line, |name, _| found.no_cache |= name.eq_ignore_ascii_case(b"no-cache"));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};
    use proptest::prelude::*;

    use super::*;

    fn fields(lines: &[(&'static str, &str)]) -> Fields {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Fields::from(&map)
    }

    fn response(text: &str) -> ForResponse {
        ForResponse::read(&fields(&[("cache-control", text)]), &[]).0
    }

    #[test]
    fn ages_are_read_strictly_and_what_is_broken_is_stale() {
        for (text, age) in [
            ("max-age=10", Some(10)),
            ("MaX-AgE=10", Some(10)),
            ("max-age=\"10\"", Some(10)),
            ("max-age=003600", Some(3600)),
            ("max-age=2147483648", Some(FOREVER)),
            ("max-age=99999999999999999999999", Some(FOREVER)),
            ("public ,, max-age=5 , x=\"a,b\"", Some(5)),
            ("max-age=10, max-age=20", Some(10)),
            ("max-age=-1", Some(0)),
            ("max-age='10'", Some(0)),
            ("max-age=10.5", Some(0)),
            ("max-age=1a", Some(0)),
            ("max-age=a1", Some(0)),
            ("max-age", Some(0)),
            ("max-age= 10", Some(0)),
            ("max-age =10", None),
            ("x=\"max-age=10\"", None),
            ("x=\"\\\", max-age=10\"", None),
            ("", None),
        ] {
            assert_eq!(response(text).max_age, age, "{text}");
        }
        let both = ForResponse::read(
            &fields(&[
                ("cache-control", "max-age=1"),
                ("cache-control", "s-maxage=2, no-store"),
            ]),
            &[],
        );
        assert_eq!(
            (both.0.max_age, both.0.s_maxage, both.0.no_store),
            (Some(1), Some(2), true)
        );
    }

    #[test]
    fn restrictions_with_names_are_narrow_and_without_names_are_whole() {
        let narrow = response("private=\"X-A, set-cookie\", no-cache=\"b\"");
        assert_eq!((narrow.private, narrow.no_cache), (false, false));
        assert_eq!(narrow.without, ["x-a", "set-cookie", "b"]);
        for whole in ["private", "private=\"\"", "private=\"a b\"", "Private=\",\""] {
            assert!(response(whole).private, "{whole}");
        }
        let many = format!("no-cache=\"{}\"", vec!["a"; 100].join(","));
        assert!(response(&many).no_cache);
    }

    #[test]
    fn a_targeted_field_counts_alone_when_it_is_valid() {
        let cdn = HeaderName::from_static("cdn-cache-control");
        let own = HeaderName::from_static("evenkeel-cache-control");
        let targets = [own, cdn];
        let read = |lines: &[(&'static str, &str)]| ForResponse::read(&fields(lines), &targets);
        let cc = ("cache-control", "no-store");
        for (lines, age, no_store, targeted) in [
            (vec![cc, ("cdn-cache-control", "max-age=10")], Some(10), false, true),
            (
                vec![
                    ("evenkeel-cache-control", "max-age=5"),
                    ("cdn-cache-control", "max-age=10"),
                ],
                Some(5),
                false,
                true,
            ),
            (vec![cc, ("cdn-cache-control", "max-age=10, &&")], None, true, false),
            (vec![cc, ("cdn-cache-control", "max-age=\"10\"")], None, true, false),
            (vec![cc, ("cdn-cache-control", "")], None, true, false),
            (vec![("cdn-cache-control", "max-age=-5")], Some(0), false, true),
            (
                vec![("cdn-cache-control", "max-age=99999999999")],
                Some(FOREVER),
                false,
                true,
            ),
            (
                vec![("cdn-cache-control", "no-store=?0, max-age=1")],
                Some(1),
                false,
                true,
            ),
        ] {
            let (found, was) = read(&lines);
            assert_eq!(
                (found.max_age, found.no_store, was),
                (age, no_store, targeted),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn requests() {
        let read = |lines: &[(&'static str, &str)]| ForRequest::read(&fields(lines));
        assert_eq!(read(&[("cache-control", "max-stale")]).max_stale, Some(FOREVER));
        assert_eq!(
            read(&[("cache-control", "max-stale=5, min-fresh=x")]).max_stale,
            Some(5)
        );
        assert!(read(&[("pragma", "x, No-Cache")]).no_cache);
        assert!(!read(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]).no_cache);
        assert!(!read(&[("pragma", "no-cache-please")]).no_cache);
        let all = read(&[("cache-control", "no-store, only-if-cached, max-age=0")]);
        assert_eq!((all.no_store, all.only_if_cached, all.max_age), (true, true, Some(0)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "[a-z=,\"\\\\ 0-9'-]{0,60}") {
            let _ = response(&text);
            let _ = ForRequest::read(&fields(&[("cache-control", &text)]));
        }
    }
}

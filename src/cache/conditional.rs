//! Conditional requests: what a client's say about a stored response, what ours ask, and how answers are merged
//! (RFC 9110 section 13, RFC 9111 sections 3.2, 4.3 and 4.3.5).

use http::HeaderName;

use super::date;
use crate::fields::{Fields, Known, Set};

/// What a client must not be told twice in a 304: it describes content that does not follow.
const CONTENT: [&str; 4] = ["content-type", "content-encoding", "content-language", "content-range"];

/// What a response to our own conditional request does not change: framing, and what describes the stored bytes.
const KEPT: Set = Set::of(&[
    Known::ContentLength,
    Known::ContentRange,
    Known::Connection,
    Known::TransferEncoding,
    Known::Age,
]);

/// Whether the client has what is `stored` already: its request is answered with 304.
pub fn is_current(request: &Fields, stored: &Fields, now: i64) -> bool {
    if request.has(Known::IfNoneMatch) {
        let current = stored.get(Known::Etag);
        // `*`: anything that exists.
        return request.all(Known::IfNoneMatch).any(|list| {
            list.trim_ascii() == b"*" || current.is_some_and(|current| tags(list).any(|tag| weak(tag) == weak(current)))
        });
    }
    let Some(since) = request
        .get(Known::IfModifiedSince)
        .and_then(|text| date::parse(text, now))
    else {
        return false;
    };
    // Without Last-Modified the time it was made will do (RFC 9111 section 4.3.2).
    let changed = stored.get(Known::LastModified).or(stored.get(Known::Date));
    changed
        .and_then(|text| date::parse(text, now))
        .is_some_and(|changed| changed <= since)
}

/// Whether a range of what is `stored` continues what the client has (RFC 9110 section 13.1.5).
pub fn may_range(request: &Fields, stored: &Fields, now: i64) -> bool {
    let Some(condition) = request.get(Known::IfRange).map(<[u8]>::trim_ascii) else {
        return true;
    };
    if condition.starts_with(b"\"") {
        return stored.get(Known::Etag) == Some(condition);
    }
    // A date is a strong validator only where nothing changed in the second it names.
    let read = |field| stored.get(field).and_then(|text| date::parse(text, now));
    let (Some(changed), Some(made)) = (read(Known::LastModified), read(Known::Date)) else {
        return false;
    };
    date::parse(condition, now) == Some(changed) && changed < made
}

/// A validator that says the bytes are the same.
pub fn strong_tag(fields: &Fields) -> Option<&[u8]> {
    fields.get(Known::Etag).filter(|tag| tag.starts_with(b"\""))
}

/// Makes `request` ask whether `stored` is still current; `false`: nothing can be asked.
pub fn ask(request: &mut Fields, stored: &Fields) -> bool {
    forget(request);
    let mut any = false;
    for (from, to) in [
        (Known::Etag, Known::IfNoneMatch),
        (Known::LastModified, Known::IfModifiedSince),
    ] {
        if let Some(value) = stored.get(from) {
            request.append(to, value);
            any = true;
        }
    }
    any
}

/// Makes `request` ask for the whole.
pub fn forget(request: &mut Fields) {
    request.remove_all(Set::of(&[
        Known::IfNoneMatch,
        Known::IfModifiedSince,
        Known::IfRange,
        Known::Range,
    ]));
}

/// What is `stored`, with the fields of a response that says it is current.
pub fn merge(stored: &Fields, newer: &Fields) -> Fields {
    let mut merged = stored.clone();
    let encoding = HeaderName::from_static("content-encoding");
    let mut replaced: Vec<&[u8]> = Vec::new();
    for (name, value) in newer.iter() {
        let known = Known::of(name);
        if KEPT.has(known) || name.eq_ignore_ascii_case(encoding.as_str().as_bytes()) {
            continue;
        }
        if !replaced.iter().any(|done| done.eq_ignore_ascii_case(name)) {
            merged.remove_named(name);
            replaced.push(name);
        }
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), http::HeaderValue::from_bytes(value)) {
            merged.append_named(&name, &value);
        }
    }
    merged
}

/// Whether a response to HEAD speaks of what is `stored` (RFC 9111 section 4.3.5). `length`: of the stored body.
pub fn is_same(stored: &Fields, length: u64, head: &Fields) -> bool {
    let same = |field| match (stored.get(field), head.get(field)) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    let told = head.get(Known::ContentLength);
    let told = told.map(|text| std::str::from_utf8(text).ok().and_then(|text| text.parse::<u64>().ok()));
    same(Known::Etag) && same(Known::LastModified) && told.is_none_or(|told| told == Some(length))
}

/// The fields of a 304 made of what is stored.
pub fn of_not_modified(fields: &mut Fields) {
    for name in CONTENT {
        fields.remove_named(name.as_bytes());
    }
}

/// The entity tags of a list, as they stand. Those without quotes are no tags by the standard and yet common.
fn tags(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = list;
    std::iter::from_fn(move || {
        while let [b',' | b' ' | b'\t', tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return None;
        }
        let mut quoted = false;
        let end = rest.iter().position(|b| {
            quoted ^= *b == b'"';
            *b == b',' && !quoted
        });
        let (tag, tail) = rest.split_at(end.unwrap_or(rest.len()));
        rest = tail;
        Some(tag.trim_ascii())
    })
}

/// A tag without the mark of a weak one and its quotes, which some leave out.
fn weak(tag: &[u8]) -> &[u8] {
    let tag = tag.trim_ascii();
    let tag = tag.strip_prefix(b"W/").unwrap_or(tag);
    let inner = tag.strip_prefix(b"\"").and_then(|tag| tag.strip_suffix(b"\""));
    inner.unwrap_or(tag)
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    const NOW: i64 = 1_790_000_000;
    const OLD: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const NEW: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn fields(lines: &[(&'static str, &str)]) -> Fields {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Fields::from(&map)
    }

    #[test]
    fn clients_that_have_it_are_recognised() {
        let stored = fields(&[("etag", "\"a,b\""), ("last-modified", OLD), ("date", NEW)]);
        for (request, current) in [
            (vec![], false),
            (vec![("if-none-match", "\"a,b\"")], true),
            (vec![("if-none-match", "W/\"a,b\"")], true),
            (vec![("if-none-match", "\"x\", \"a,b\" ,\"y\"")], true),
            (vec![("if-none-match", "\"x\""), ("if-none-match", "\"a,b\"")], true),
            (vec![("if-none-match", "*")], true),
            (vec![("if-none-match", "\"a\"")], false),
            (vec![("if-none-match", "a,b")], false),
            (vec![("if-none-match", "\"a\", b")], false),
            (vec![("if-none-match", "\"x\""), ("if-modified-since", NEW)], false),
            (
                vec![
                    ("if-none-match", "\"a,b\""),
                    ("if-modified-since", "Sun, 06 Nov 1990 08:49:37 GMT"),
                ],
                true,
            ),
            (vec![("if-modified-since", OLD)], true),
            (vec![("if-modified-since", "Sunday, 06-Nov-94 08:49:37 GMT")], true),
            (vec![("if-modified-since", "Sun, 06 Nov 1994 08:49:36 GMT")], false),
            (vec![("if-modified-since", "yesterday")], false),
        ] {
            assert_eq!(is_current(&fields(&request), &stored, NOW), current, "{request:?}");
        }
        let dated = fields(&[("date", OLD)]);
        assert!(is_current(&fields(&[("if-modified-since", OLD)]), &dated, NOW));
        assert!(is_current(
            &fields(&[("if-none-match", "W/\"w\"")]),
            &fields(&[("etag", "W/\"w\"")]),
            NOW
        ));
    }

    #[test]
    fn ranges_go_on_where_strong_validators_agree() {
        let stored = fields(&[("etag", "\"a\""), ("last-modified", OLD), ("date", NEW)]);
        for (condition, may) in [
            ("\"a\"", true),
            ("\"b\"", false),
            ("W/\"a\"", false),
            (OLD, true),
            (NEW, false),
            ("nonsense", false),
        ] {
            assert_eq!(
                may_range(&fields(&[("if-range", condition)]), &stored, NOW),
                may,
                "{condition}"
            );
        }
        assert!(may_range(&fields(&[]), &stored, NOW));
        assert!(!may_range(
            &fields(&[("if-range", "W/\"w\"")]),
            &fields(&[("etag", "W/\"w\"")]),
            NOW
        ));
        let weak = fields(&[("last-modified", OLD), ("date", OLD)]);
        assert!(
            !may_range(&fields(&[("if-range", OLD)]), &weak, NOW),
            "changed in the second it was made"
        );
    }

    #[test]
    fn asking_replaces_what_the_client_asked() {
        let mut request = fields(&[
            ("if-none-match", "\"x\""),
            ("range", "bytes=0-1"),
            ("if-range", "\"x\""),
            ("a", "1"),
        ]);
        assert!(ask(
            &mut request,
            &fields(&[("etag", "W/\"e\""), ("last-modified", OLD)])
        ));
        assert_eq!(request.all(Known::IfNoneMatch).collect::<Vec<_>>(), [b"W/\"e\""]);
        assert_eq!(request.get(Known::IfModifiedSince), Some(OLD.as_bytes()));
        assert!(!request.has(Known::Range) && !request.has(Known::IfRange));
        assert!(!ask(&mut request, &fields(&[])));
    }

    #[test]
    fn what_is_current_takes_over_the_newer_fields() {
        let stored = fields(&[
            ("x", "1"),
            ("x", "2"),
            ("y", "1"),
            ("content-encoding", "gzip"),
            ("content-type", "a/b"),
            ("etag", "\"1\""),
        ]);
        let newer = fields(&[
            ("x", "3"),
            ("z", "1"),
            ("z", "2"),
            ("content-length", "9"),
            ("content-encoding", "br"),
            ("age", "5"),
            ("cache-control", "max-age=1"),
        ]);
        let merged = merge(&stored, &newer);
        let text: Vec<_> = merged
            .iter()
            .map(|(n, v)| format!("{}={}", n.escape_ascii(), v.escape_ascii()))
            .collect();
        assert_eq!(
            text,
            [
                "y=1",
                "content-encoding=gzip",
                "content-type=a/b",
                "etag=\\\"1\\\"",
                "x=3",
                "z=1",
                "z=2",
                "cache-control=max-age=1"
            ]
        );
    }

    #[test]
    fn a_head_that_speaks_of_another_is_noticed() {
        let stored = fields(&[("etag", "\"1\""), ("last-modified", OLD)]);
        let same = |head: &[(&'static str, &str)]| is_same(&stored, 10, &fields(head));
        assert!(same(&[]) && same(&[("content-length", "10"), ("etag", "\"1\"")]));
        assert!(!same(&[("content-length", "11")]) && !same(&[("etag", "\"2\"")]) && !same(&[("last-modified", NEW)]));
    }
}

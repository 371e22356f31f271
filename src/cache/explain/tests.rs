//! Each decision, and each reason for it.

use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::cache::directives::ForResponse;
use crate::cache::entry::{Body, Meta};
use crate::cache::freshness::{Defaults, Freshness, Moment};
use crate::cache::head::Head;

const RULES: Rules = Rules {
    ranges: Misses::Auto,
    max_entry: 1 << 30,
};

fn fields(lines: &[(&'static str, &str)]) -> Fields {
    let mut fields = Fields::default();
    for (name, value) in lines {
        fields.append_text(name, value.as_bytes());
    }
    fields
}

/// Stored at 0 with this Cache-Control.
fn stored(cc: &str, body: Body) -> Found {
    let fields = fields(&[("cache-control", cc), ("etag", "\"e\"")]);
    let defaults = Defaults {
        heuristic: None,
        stale_if_error: 0,
        stale_while_revalidate: 0,
    };
    let at = Moment {
        clock: 0,
        wall: 0,
        delay: 0,
    };
    let (directives, _) = ForResponse::read(&fields, &[]);
    let freshness = Freshness::of(200, &fields, &directives, false, at, &defaults);
    let meta = Meta {
        status: 200,
        freshness,
        stamp: 0,
        tags: None,
        head: Head::store(&fields, &[], false, "", 1000).unwrap(),
    };
    Found::Entry(Arc::new(Entry::of(meta, body)), freshness)
}

fn whole(cc: &str) -> Found {
    stored(cc, Body::of(vec![Bytes::from_static(b"0123456789")]))
}

/// Bytes 2 to 5 of so many.
fn part(length: u64) -> Found {
    stored(
        "max-age=60",
        Body::part((2, 5), length, vec![Bytes::from_static(b"2345")]),
    )
}

fn decide(method: Method, lines: &[(&'static str, &str)], found: &Found, now: i64) -> Decision {
    let fields = fields(lines);
    let asking = Asking {
        method: &method,
        fields: &fields,
        cc: ForRequest::read(&fields),
        authorized: fields.has(Known::Authorization),
        has_body: false,
        upgrades: false,
        by_content: false,
        keyless: false,
        trusted: false,
        apart: &[],
    };
    request(&asking, found, RULES, now, || 0)
}

fn get(lines: &[(&'static str, &str)], found: &Found, now: i64) -> Decision {
    decide(Method::GET, lines, found, now)
}

#[test]
fn requests_that_are_none_for_a_cache() {
    let nothing = Found::Nothing;
    let other = |name: &[u8]| decide(Method::from_bytes(name).unwrap(), &[], &nothing, 0);
    for method in [&b"OPTIONS"[..], b"TRACE", b"PROPFIND", b"QUERY"] {
        assert_eq!(other(method), Decision::Bypass(Reason::Method));
    }
    for method in [&b"POST"[..], b"PUT", b"DELETE", b"PATCH", b"UNKNOWN"] {
        assert_eq!(other(method), Decision::Change(Reason::Method));
    }
    for (line, reason) in [
        (("cache-control", "no-store"), Reason::RequestNoStore),
        (("if-match", "\"a\""), Reason::RequestOverride),
        (("x-http-method-override", "DELETE"), Reason::RequestOverride),
    ] {
        assert_eq!(get(&[line], &nothing, 0), Decision::Bypass(reason), "{line:?}");
    }
    let fields = Fields::default();
    let plain = Asking {
        method: &Method::GET,
        fields: &fields,
        cc: ForRequest::default(),
        authorized: false,
        has_body: false,
        upgrades: false,
        by_content: false,
        keyless: false,
        trusted: false,
        apart: &[],
    };
    let other = self::fields(&[("host", "a"), ("x-forwarded-host", "b")]);
    let renamed = Asking {
        fields: &other,
        trusted: true,
        ..plain
    };
    let post = Asking {
        method: &Method::POST,
        by_content: true,
        ..plain
    };
    for (asking, decision) in [
        (
            Asking {
                has_body: true,
                ..plain
            },
            Decision::Bypass(Reason::RequestBody),
        ),
        (
            Asking {
                upgrades: true,
                ..plain
            },
            Decision::Bypass(Reason::Method),
        ),
        (Asking { keyless: true, ..plain }, Decision::Bypass(Reason::KeyTooLong)),
        (Asking { keyless: true, ..post }, Decision::Bypass(Reason::KeyTooLong)),
        (renamed, Decision::Bypass(Reason::RequestOverride)),
        (
            Asking {
                method: &Method::POST,
                by_content: true,
                ..renamed
            },
            Decision::Change(Reason::RequestOverride),
        ),
    ] {
        assert_eq!(request(&asking, &nothing, RULES, 0, || 0), decision, "{asking:?}");
    }
    let apart = [HeaderName::from_static("x-forwarded-host")];
    let told_apart = Asking {
        apart: &apart,
        ..renamed
    };
    assert!(matches!(
        request(&told_apart, &nothing, RULES, 0, || 0),
        Decision::Ask(_)
    ));
    assert!(matches!(
        request(&Asking { has_body: true, ..post }, &nothing, RULES, 0, || 0),
        Decision::Ask(_)
    ));
}

#[test]
fn what_is_stored_is_served_or_asked_for_and_says_why() {
    let fresh = whole("max-age=60");
    assert_eq!(get(&[], &fresh, 59_999), Decision::Serve(None));
    let late = [("cache-control", "max-stale=5")];
    assert_eq!(get(&late, &fresh, 64_000), Decision::Serve(Some(Reason::MaxStale)));
    let meanwhile = whole("max-age=60, stale-while-revalidate=10");
    assert_eq!(
        get(&[], &meanwhile, 65_000),
        Decision::Serve(Some(Reason::WhileRevalidate))
    );
    let ask = |why, detail, shared, validates| {
        Decision::Ask(Ask {
            why,
            detail,
            shared,
            ranged: false,
            validates,
        })
    };
    assert_eq!(get(&[], &Found::Nothing, 0), ask("uri-miss", None, true, false));
    assert_eq!(get(&[], &Found::OtherVariant, 0), ask("vary-miss", None, true, false));
    assert_eq!(
        get(&[], &Found::Pass, 0),
        ask("uri-miss", Some(Reason::HitForMiss), false, false)
    );
    let reload = [("cache-control", "no-cache")];
    assert_eq!(get(&reload, &Found::Nothing, 0), ask("uri-miss", None, false, false));
    let authorized = [("authorization", "a")];
    assert_eq!(
        get(&authorized, &fresh, 0),
        ask("bypass", Some(Reason::Authorization), false, false)
    );
    assert_eq!(get(&authorized, &whole("public, max-age=60"), 0), Decision::Serve(None));
    assert_eq!(get(&[], &fresh, 60_000), ask("stale", Some(Reason::Stale), true, true));
    assert_eq!(
        get(&[], &whole("no-cache"), 0),
        ask("stale", Some(Reason::NoCache), false, true)
    );
    for (cc, reason) in [
        ("no-cache", Reason::RequestNoCache),
        ("max-age=5", Reason::RequestMaxAge),
        ("min-fresh=55", Reason::RequestMinFresh),
    ] {
        let decision = get(&[("cache-control", cc)], &fresh, 10_000);
        assert_eq!(decision, ask("request", Some(reason), false, true), "{cc}");
    }
}

#[test]
fn who_wants_nobody_asked_has_nobody_asked() {
    let only = [("cache-control", "only-if-cached")];
    assert_eq!(get(&only, &whole("max-age=60"), 0), Decision::Serve(None));
    for (found, now, why) in [
        (Found::Nothing, 0, "uri-miss"),
        (Found::OtherVariant, 0, "vary-miss"),
        (Found::Pass, 0, "uri-miss"),
        (part(10), 0, "partial"),
        (whole("max-age=60"), 60_000, "stale"),
    ] {
        assert_eq!(get(&only, &found, now), Decision::Refuse(why));
    }
}

#[test]
fn ranges_of_parts() {
    let ranged = |range, found: &Found| get(&[("range", range)], found, 0);
    for served in ["bytes=2-5", "bytes=3-4", "bytes=10-"] {
        assert_eq!(ranged(served, &part(10)), Decision::Serve(None), "{served}");
    }
    let ask = |ranged| {
        Decision::Ask(Ask {
            why: "partial",
            detail: None,
            shared: true,
            ranged,
            validates: false,
        })
    };
    assert_eq!(ranged("bytes=5-6", &part(10)), ask(false), "small: the whole");
    assert_eq!(ranged("bytes=5-6", &part(10 << 20)), ask(true));
    assert_eq!(get(&[], &part(10 << 20), 0), ask(false));
    assert_eq!(decide(Method::HEAD, &[], &part(10), 0), Decision::Serve(None));
    assert_eq!(
        get(&[("if-none-match", "\"e\"")], &part(10), 0),
        Decision::Serve(None),
        "304 needs no body"
    );
    let other = [("range", "bytes=2-5"), ("if-range", "\"other\"")];
    assert_eq!(get(&other, &part(10), 0), ask(false));
    let Decision::Ask(missed) = ranged("bytes=0-1", &Found::Nothing) else {
        panic!()
    };
    assert!(missed.ranged && missed.shared);
    let Decision::Ask(passed) = ranged("bytes=0-1", &Found::Pass) else {
        panic!()
    };
    assert!(passed.ranged && !passed.shared);
}

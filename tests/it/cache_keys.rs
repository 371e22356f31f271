//! What stored responses are found by, with the real binary: cookies, and queries of which a part means nothing.

use crate::cache::{answer, ask, config, purge};
use crate::harness::{Origin, Proxy, eventually};

/// An origin that tells the query and the cookies it got.
fn telling(fields: &'static str) -> Origin {
    Origin::start(move |seen, stream| {
        answer(
            stream,
            200,
            fields,
            &format!("{} {}", seen.path(), seen.header("cookie")),
        )
    })
}

fn told(proxy: &Proxy, path: &str, fields: &str) -> (String, String) {
    let reply = ask(proxy, "GET", path, fields);
    let status = reply.header("cache-status");
    let what = status.split("; ").nth(1).unwrap_or_default();
    (reply.text(), what.to_owned())
}

#[test]
fn cookies_in_the_key_tell_apart_and_others_do_not() {
    let origin = telling("cache-control: max-age=60");
    let keyed = config(&origin, "key = { cookies = [\"lang\"] }");
    let proxy = Proxy::start(&keyed);
    let de = "Cookie: id=1; lang=de\r\n";
    assert_eq!(told(&proxy, "/", de).0, "/ id=1; lang=de");
    eventually("it is stored", || told(&proxy, "/", de).1 == "hit");
    assert_eq!(
        told(&proxy, "/", "Cookie: lang=de\r\nCookie: id=2\r\n"),
        ("/ id=1; lang=de".into(), "hit".into())
    );
    assert_eq!(told(&proxy, "/", "Cookie: lang=en\r\n").0, "/ lang=en");
    assert_eq!(told(&proxy, "/", "").0, "/ ");
    // Who knows how it is done inside gains nothing, and endpoints do not see it.
    let forged = told(&proxy, "/", "Evenkeel-Key-Cookies: lang=de&\r\nCookie: lang=fr\r\n");
    assert_eq!(forged.0, "/ lang=fr");
    for seen in origin.seen() {
        assert_eq!(seen.header("evenkeel-key-cookies"), "");
    }
    assert_eq!(purge(&proxy, "{\"url\": \"http://test/\"}")["entries"], 1);
    assert_eq!(told(&proxy, "/", de).1, "fwd=uri-miss");
    // What was stored when nothing was told apart answers nobody once something is.
    proxy.reload(&config(&origin, ""));
    assert_eq!(told(&proxy, "/", de).1, "fwd=uri-miss");
    eventually("it is stored", || told(&proxy, "/", "").1 == "hit");
    proxy.reload(&keyed);
    assert_eq!(told(&proxy, "/", "Cookie: lang=en\r\n").0, "/ lang=en");
}

#[test]
fn a_response_answers_for_the_queries_it_says_are_the_same() {
    let origin =
        telling("cache-control: max-age=60\r\nno-vary-search: key-order, params=(\"utm_source\" \"utm_medium\")");
    let proxy = Proxy::start(&config(&origin, ""));
    assert_eq!(told(&proxy, "/p?a=1&b=2", "").0, "/p?a=1&b=2 ");
    for same in [
        "/p?a=1&b=2",
        "/p?b=2&a=1",
        "/p?utm_source=mail&a=1&b=2",
        "/p?a=%31&b=2&utm%5Fmedium=x",
    ] {
        eventually("it answers", || {
            told(&proxy, same, "") == ("/p?a=1&b=2 ".into(), "hit".into())
        });
    }
    for other in ["/p?a=1", "/p?a=1&b=2&utm_term=x", "/q?b=2&a=1"] {
        assert_eq!(told(&proxy, other, ""), (format!("{other} "), "fwd=uri-miss".into()));
    }
    assert_eq!(
        purge(&proxy, "{\"url\": \"http://test/p?b=2&utm_source=x&a=1\"}")["entries"],
        1
    );
    assert_eq!(
        told(&proxy, "/p?b=2&a=1", ""),
        ("/p?b=2&a=1 ".into(), "fwd=uri-miss".into())
    );
}

#[test]
fn a_response_that_does_not_say_so_answers_for_its_own_query_alone() {
    let origin = Origin::start(|seen, stream| {
        let fields = match seen.path().contains("silent") {
            true => "cache-control: max-age=60",
            false => "cache-control: max-age=60\r\nno-vary-search: params=(\"u\")",
        };
        answer(stream, 200, fields, seen.path())
    });
    let proxy = Proxy::start(&config(&origin, ""));
    told(&proxy, "/p?u=1", "");
    eventually("the rule is known", || told(&proxy, "/p?u=2", "").1 == "hit");
    for own in ["/p?silent&u=1", "/p?silent&u=2"] {
        assert_eq!(told(&proxy, own, "").0, own);
        eventually("it is stored", || told(&proxy, own, "") == (own.into(), "hit".into()));
    }
}

//! Freshness by tables, and against a decision table written from the text of the RFC.

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;

use super::*;

const WALL: i64 = 1_790_000_000;
const AT: Moment = Moment {
    clock: 50_000,
    wall: WALL,
    delay: 0,
};
const DEFAULTS: Defaults = Defaults {
    heuristic: Some(Heuristic { most: 86_400 }),
    stale_if_error: 600,
    stale_while_revalidate: 0,
};

fn text(seconds: i64) -> String {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds as u64);
    httpdate::fmt_http_date(time)
}

fn of(lines: &[(&'static str, &str)]) -> Freshness {
    with(200, lines, AT)
}

fn with(status: u16, lines: &[(&'static str, &str)], at: Moment) -> Freshness {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        map.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let fields = Fields::from(&map);
    let (cc, targeted) = ForResponse::read(&fields, &[]);
    Freshness::of(status, &fields, &cc, targeted, at, &DEFAULTS)
}

fn ask(text: &str) -> ForRequest {
    let mut map = HeaderMap::new();
    map.append("cache-control", HeaderValue::from_str(text).unwrap());
    ForRequest::read(&Fields::from(&map))
}

#[test]
fn lifetimes_by_precedence() {
    let (now, past, soon) = (text(WALL), text(WALL - 5000), text(WALL + 300));
    for (lines, lifetime) in [
        (vec![("cache-control", "max-age=10, s-maxage=20")], 20),
        (vec![("cache-control", "s-maxage=0, max-age=20")], 0),
        (vec![("cache-control", "max-age=10"), ("expires", past.as_str())], 10),
        (vec![("cache-control", "max-age=0"), ("expires", soon.as_str())], 0),
        (vec![("expires", soon.as_str()), ("date", now.as_str())], 300),
        (vec![("expires", soon.as_str())], 300),
        (vec![("expires", soon.as_str()), ("date", "nonsense")], 300),
        (vec![("expires", soon.as_str()), ("expires", soon.as_str())], 0),
        (vec![("expires", "0")], 0),
        (vec![("expires", past.as_str()), ("date", now.as_str())], 0),
        // The origin's clock is slow or fast: the difference of its own dates counts.
        (
            vec![("expires", past.as_str()), ("date", text(WALL - 5060).as_str())],
            60,
        ),
        (vec![("expires", "Fri, 31 Dec 9999 23:59:59 GMT")], FOREVER),
        (
            vec![("last-modified", text(WALL - 1000).as_str()), ("date", now.as_str())],
            100,
        ),
        (vec![("last-modified", text(WALL - 100_000_000).as_str())], 86_400),
        (vec![("last-modified", soon.as_str())], 0),
        (vec![("date", now.as_str())], 0),
    ] {
        assert_eq!(of(&lines).lifetime, lifetime, "{lines:?}");
    }
    let modified = text(WALL - 1000);
    let lines = [("last-modified", modified.as_str())];
    for (status, lifetime) in [(404, 100), (410, 100), (201, 0), (302, 0), (503, 0), (599, 0)] {
        assert_eq!(with(status, &lines, AT).lifetime, lifetime, "{status}");
    }
    let public = [lines[0], ("cache-control", "public")];
    assert_eq!(with(599, &public, AT).lifetime, 100);
}

#[test]
fn ages_of_every_form() {
    let (slow, fast) = (text(WALL - 70), text(WALL + 500));
    for (lines, age) in [
        (vec![], 0),
        (vec![("age", "30")], 30),
        (vec![("age", "2147483649")], FOREVER),
        (vec![("age", "99999999999999999999")], FOREVER),
        (vec![("age", "7200, 0")], 7200),
        (vec![("age", "0, 7200")], 0),
        (vec![("age", "0"), ("age", "7200")], 0),
        (vec![("age", "7200"), ("age", "0")], 7200),
        (vec![("age", "-5")], 0),
        (vec![("age", "7200.0")], 0),
        (vec![("age", "abc")], 0),
        (vec![("age", "7200;x=1")], 7200),
        (vec![("age", "")], 0),
        (vec![("date", slow.as_str())], 70),
        (vec![("date", slow.as_str()), ("age", "100")], 100),
        (vec![("date", fast.as_str()), ("age", "3")], 3),
    ] {
        assert_eq!(of(&lines).age(AT.clock), age, "{lines:?}");
    }
    let delayed = with(200, &[("age", "3")], Moment { delay: 5000, ..AT });
    assert_eq!(delayed.age(AT.clock), 8, "the time under way counts");
    assert_eq!(delayed.age(AT.clock + 2500), 10);
}

#[test]
fn who_may_have_it_when() {
    use Verdict::{Fresh, Meanwhile, Stale, Validate};
    let secs = |s: i64| AT.clock + s * 1000;
    for (response, request, at, verdict) in [
        ("max-age=10", "", 9, Fresh),
        ("max-age=10", "", 10, Validate(Reason::Stale)),
        ("max-age=10", "max-stale=5", 14, Stale(Reason::MaxStale)),
        ("max-age=10", "max-stale=5", 16, Validate(Reason::Stale)),
        ("max-age=10", "max-stale", 1000, Stale(Reason::MaxStale)),
        ("max-age=10, must-revalidate", "max-stale", 11, Validate(Reason::Stale)),
        ("max-age=10, proxy-revalidate", "max-stale", 11, Validate(Reason::Stale)),
        ("s-maxage=10", "max-stale", 11, Validate(Reason::Stale)),
        ("max-age=10, no-cache", "max-stale", 1, Validate(Reason::NoCache)),
        ("max-age=10", "no-cache", 1, Validate(Reason::RequestNoCache)),
        ("max-age=10", "max-age=0", 0, Validate(Reason::RequestMaxAge)),
        ("max-age=10", "max-age=3", 3, Fresh),
        ("max-age=10", "max-age=3", 4, Validate(Reason::RequestMaxAge)),
        ("max-age=10", "min-fresh=8", 2, Fresh),
        ("max-age=10", "min-fresh=8", 3, Validate(Reason::RequestMinFresh)),
        ("max-age=10, immutable", "max-age=0", 5, Fresh),
        ("max-age=10, immutable", "no-cache", 5, Validate(Reason::RequestNoCache)),
        (
            "max-age=10, immutable",
            "max-age=0",
            11,
            Validate(Reason::RequestMaxAge),
        ),
        ("max-age=10, stale-while-revalidate=5", "", 14, Meanwhile),
        ("max-age=10, stale-while-revalidate=5", "", 15, Validate(Reason::Stale)),
        ("s-maxage=10, stale-while-revalidate=5", "", 14, Meanwhile),
        (
            "max-age=10, stale-while-revalidate=5, must-revalidate",
            "",
            11,
            Validate(Reason::Stale),
        ),
        (
            "max-age=10, stale-while-revalidate=5, no-cache",
            "",
            11,
            Validate(Reason::NoCache),
        ),
    ] {
        let found = of(&[("cache-control", response)]).verdict(&ask(request), secs(at));
        assert_eq!(found, verdict, "{response} / {request} / {at}");
    }
}

#[test]
fn who_may_have_it_when_the_origin_fails() {
    for (response, request, at, served) in [
        ("max-age=10", "", 609, true),
        ("max-age=10", "", 610, false),
        ("max-age=10, stale-if-error=60", "", 69, true),
        ("max-age=10, stale-if-error=60", "", 70, false),
        ("max-age=10, stale-if-error=0", "", 11, false),
        ("max-age=10", "stale-if-error=3600", 700, true),
        ("max-age=10, must-revalidate, stale-if-error=60", "", 11, false),
        ("max-age=10, proxy-revalidate", "", 11, false),
        ("s-maxage=10", "", 11, false),
        ("s-maxage=10, stale-if-error=60", "", 11, true),
        ("s-maxage=10", "stale-if-error=60", 11, false),
        ("max-age=10, no-cache", "", 1, false),
    ] {
        let found = of(&[("cache-control", response)]).serves_on_error(&ask(request), AT.clock + at * 1000);
        assert_eq!(found, served, "{response} / {request} / {at}");
    }
}

#[test]
fn purged_softly_it_is_stale_and_no_more() {
    let mut f = of(&[("cache-control", "max-age=1000, stale-while-revalidate=5")]);
    f.expire(AT.clock + 3000);
    assert_eq!(f.verdict(&ask(""), AT.clock + 4000), Verdict::Meanwhile);
    assert_eq!(f.verdict(&ask(""), AT.clock + 9000), Verdict::Validate(Reason::Stale));
}

/// One response and one request, as directives.
#[derive(Debug, Clone)]
struct Case {
    response: Vec<(&'static str, Option<u32>)>,
    request: Vec<(&'static str, Option<u32>)>,
    age: u32,
}

fn cases() -> impl Strategy<Value = Case> {
    let seconds = prop::option::of(prop::sample::select(vec![0u32, 1, 5, 10, 20]));
    let one = |names: &'static [&'static str]| {
        let valued = (prop::sample::select(names), seconds.clone());
        prop::collection::vec(valued, 0..4).prop_map(|list| {
            let mut seen = Vec::new();
            list.into_iter()
                .filter(|(name, _)| {
                    let new = !seen.contains(name);
                    seen.push(*name);
                    new
                })
                .collect::<Vec<_>>()
        })
    };
    let response: &[&str] = &[
        "max-age",
        "s-maxage",
        "no-cache",
        "must-revalidate",
        "proxy-revalidate",
        "stale-while-revalidate",
        "immutable",
        "public",
    ];
    let request: &[&str] = &["no-cache", "max-age", "min-fresh", "max-stale"];
    (one(response), one(request), 0u32..30).prop_map(|(response, request, age)| Case { response, request, age })
}

impl Case {
    fn text(list: &[(&str, Option<u32>)]) -> String {
        const VALUED: [&str; 6] = [
            "max-age",
            "s-maxage",
            "stale-while-revalidate",
            "min-fresh",
            "max-stale",
            "stale-if-error",
        ];
        let one = |(name, value): &(&str, Option<u32>)| match value.filter(|_| VALUED.contains(name)) {
            Some(value) => format!("{name}={value}"),
            None => (*name).to_owned(),
        };
        list.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The value of a directive; one without is 0, but for max-stale.
    fn of(list: &[(&str, Option<u32>)], name: &str) -> Option<u32> {
        let (_, value) = list.iter().find(|(n, _)| *n == name)?;
        Some(value.unwrap_or(if name == "max-stale" { u32::MAX } else { 0 }))
    }

    /// What RFC 9111 section 4 forbids, line by line; `meanwhile`: RFC 5861 section 3 lets it be served.
    fn is_forbidden(&self) -> (bool, bool) {
        let says = |name| Self::of(&self.response, name);
        let asks = |name| Self::of(&self.request, name);
        let lifetime = says("s-maxage").or(says("max-age")).unwrap_or(0);
        let fresh = self.age < lifetime;
        let stale_for = self.age.saturating_sub(lifetime);
        let mut forbidden = says("no-cache").is_some() || asks("no-cache").is_some();
        let reload = asks("max-age").is_some_and(|most| self.age > most || most == 0);
        forbidden |= reload && !(fresh && says("immutable").is_some());
        forbidden |=
            asks("min-fresh").is_some_and(|least| i64::from(lifetime) - i64::from(self.age) < i64::from(least));
        let mut meanwhile = false;
        if !fresh {
            let strict = says("must-revalidate").is_some() || says("proxy-revalidate").is_some();
            let taken = says("s-maxage").is_none() && asks("max-stale").is_some_and(|most| stale_for <= most);
            meanwhile = says("stale-while-revalidate").is_some_and(|most| stale_for < most) && !taken;
            forbidden |= strict || !(taken || meanwhile);
        }
        (forbidden, meanwhile && !forbidden)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn nothing_is_served_that_the_decision_table_forbids(case in cases()) {
        let response = Case::text(&case.response);
        let found = of(&[("cache-control", &response)]);
        let verdict = found.verdict(&ask(&Case::text(&case.request)), AT.clock + i64::from(case.age) * 1000);
        let (forbidden, meanwhile) = case.is_forbidden();
        prop_assert_eq!(matches!(verdict, Verdict::Validate(_)), forbidden, "{:?}", verdict);
        prop_assert_eq!(verdict == Verdict::Meanwhile, meanwhile);
    }
}

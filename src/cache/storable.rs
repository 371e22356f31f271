//! Whether a response may be stored: RFC 9111 section 3, and what the settings add.

use http::{HeaderName, Method};

use super::directives::{ForRequest, ForResponse};
use super::freshness::{Defaults, Freshness, Moment, is_heuristic_status};
use super::head::Head;
use super::range::{self, Span};
use super::reason::Reason;
use super::vary::{self, Vary};
use crate::fields::{Fields, Known};

/// What decides beside the messages themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    pub defaults: Defaults,
    /// Responses with Set-Cookie may be stored where the standard allows it.
    pub set_cookie: bool,
    /// Targeted fields (RFC 9213), the first valid one counts.
    pub targets: Box<[HeaderName]>,
    /// Fields of requests that responses are told apart by, whatever their Vary says.
    pub apart: Box<[HeaderName]>,
}

/// What of a request matters.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a Method,
    pub cc: ForRequest,
    pub authorized: bool,
}

/// How a response is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub freshness: Freshness,
    pub vary: Vary,
    /// Fields that are not.
    pub without: Vec<String>,
}

/// Statuses whose meaning is known here (`must-understand`).
fn is_understood(status: u16) -> bool {
    matches!(status, 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511)
}

/// How much of a response is stored, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub body: u64,
    pub head: usize,
}

/// A response that is stored, as far as its head tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// 200 for a part, too.
    pub status: u16,
    /// What part of how long a whole it is.
    pub part: Option<(Span, u64)>,
    pub stored: Stored,
    pub head: Head,
}

/// A response's head.
#[derive(Debug, Clone, Copy)]
pub struct Came<'a> {
    pub status: u16,
    pub fields: &'a Fields,
    /// Of its body, where it is known.
    pub length: Option<u64>,
    pub at: Moment,
    /// For one that has no Date.
    pub date: &'a str,
}

/// Whether and how a response is stored, or why it is not.
pub fn keep(asked: &Asked<'_>, came: Came<'_>, rules: &Rules, limits: Limits) -> Result<Kept, Reason> {
    let Came {
        status,
        fields,
        length,
        at,
        date,
    } = came;
    let part = match status {
        206 => {
            let told = fields.get(Known::ContentRange).and_then(range::read_content_range);
            let (span, whole) = told.ok_or(Reason::PartUnusable)?;
            if length.is_some_and(|n| n != span.1 - span.0 + 1) {
                return Err(Reason::PartUnusable);
            }
            Some((span, whole))
        }
        _ => None,
    };
    if length.is_some_and(|n| n > limits.body) {
        return Err(Reason::TooLarge);
    }
    let status = if part.is_some() { 200 } else { status };
    let mut stored = judge(asked, status, fields, at, rules)?;
    if part.is_some() {
        stored.without.push("content-range".to_owned());
    }
    let head = Head::store(fields, &stored.without, rules.set_cookie, date, limits.head);
    Ok(Kept {
        status,
        part,
        stored,
        head: head.ok_or(Reason::HeadTooLarge)?,
    })
}

/// Whether and how it may be stored. The size of its body is not known here.
pub fn judge(asked: &Asked<'_>, status: u16, fields: &Fields, at: Moment, rules: &Rules) -> Result<Stored, Reason> {
    let (mut cc, targeted) = ForResponse::read(fields, &rules.targets);
    if asked.cc.no_store {
        return Err(Reason::RequestNoStore);
    }
    if status < 200 || status == 304 || status == 416 {
        return Err(Reason::Status);
    }
    if cc.must_understand && !is_understood(status) {
        return Err(Reason::NotUnderstood);
    }
    if cc.no_store && !cc.must_understand {
        return Err(Reason::NoStore);
    }
    if cc.private {
        return Err(Reason::Private);
    }
    let freshness = Freshness::of(status, fields, &cc, targeted, at, &rules.defaults);
    if asked.authorized && !freshness.is_for_authorized() {
        return Err(Reason::Authorization);
    }
    let hides_cookies = cc.without.iter().any(|name| name == "set-cookie");
    if fields.has(Known::SetCookie) && !rules.set_cookie && !hides_cookies {
        return Err(Reason::SetCookie);
    }
    let explicit =
        cc.public || cc.max_age.is_some() || cc.s_maxage.is_some() || (!targeted && fields.has(Known::Expires));
    if !explicit && !is_heuristic_status(status) {
        return Err(Reason::NotExplicit);
    }
    // Without a lifetime it serves for validation alone, or for what goes on while it is stale.
    let serves_stale = freshness.stale_while_revalidate > 0 && cc.stale_while_revalidate.is_some();
    let validates = fields.has(Known::Etag) || fields.has(Known::LastModified);
    if !freshness.is_reusable() && !validates && !serves_stale {
        return Err(Reason::NoLifetime);
    }
    // An unexplicit one that only validates: each answer to a POST would be kept.
    if *asked.method == Method::POST && !(explicit && freshness.lifetime > 0) {
        return Err(Reason::Method);
    }
    let vary = vary::of(fields, &rules.apart)?;
    Ok(Stored {
        freshness,
        vary,
        without: std::mem::take(&mut cc.without),
    })
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;
    use crate::cache::freshness::Heuristic;

    fn rules(set_cookie: bool) -> Rules {
        Rules {
            defaults: Defaults {
                heuristic: Some(Heuristic { most: 86_400 }),
                stale_if_error: 600,
                stale_while_revalidate: 0,
            },
            set_cookie,
            targets: [HeaderName::from_static("cdn-cache-control")].into(),
            apart: [].into(),
        }
    }

    fn stored(asked: &Asked<'_>, status: u16, lines: &[(&'static str, &str)], set_cookie: bool) -> Result<(), Reason> {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let at = Moment {
            clock: 0,
            wall: 1_790_000_000,
            delay: 0,
        };
        judge(asked, status, &Fields::from(&map), at, &rules(set_cookie)).map(|_| ())
    }

    const GET: Asked<'_> = Asked {
        method: &Method::GET,
        cc: ForRequest {
            no_cache: false,
            no_store: false,
            only_if_cached: false,
            max_age: None,
            min_fresh: None,
            max_stale: None,
            stale_if_error: None,
        },
        authorized: false,
    };

    #[test]
    fn what_the_standard_lets_be_stored() {
        let lm = ("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
        let cc = |text| vec![("cache-control", text)];
        for (status, lines, found) in [
            (200, cc("max-age=10"), Ok(())),
            (200, cc("max-age=10, no-store"), Err(Reason::NoStore)),
            (200, cc("max-age=10, No-Store=x"), Err(Reason::NoStore)),
            (200, cc("max-age=10, private"), Err(Reason::Private)),
            (200, cc("max-age=10, private=\"x\""), Ok(())),
            (200, cc("max-age=0"), Err(Reason::NoLifetime)),
            (200, vec![("cache-control", "max-age=0"), ("etag", "\"a\"")], Ok(())),
            (200, vec![("cache-control", "no-cache"), lm], Ok(())),
            (200, cc("no-cache, max-age=5"), Err(Reason::NoLifetime)),
            (200, cc("max-age=0, stale-while-revalidate=5"), Ok(())),
            (200, vec![], Err(Reason::NoLifetime)),
            (200, vec![lm], Ok(())),
            (404, vec![lm], Ok(())),
            (201, vec![lm], Err(Reason::NotExplicit)),
            (302, vec![], Err(Reason::NotExplicit)),
            (302, cc("max-age=10"), Ok(())),
            (500, cc("max-age=10"), Ok(())),
            (599, cc("max-age=10"), Ok(())),
            (
                599,
                cc("max-age=10, no-store, must-understand"),
                Err(Reason::NotUnderstood),
            ),
            (200, cc("max-age=10, no-store, must-understand"), Ok(())),
            (304, cc("max-age=10"), Err(Reason::Status)),
            (
                200,
                vec![("cache-control", "no-store"), ("cdn-cache-control", "max-age=10")],
                Ok(()),
            ),
            (
                200,
                vec![("cache-control", "max-age=10"), ("cdn-cache-control", "no-store")],
                Err(Reason::NoStore),
            ),
            (
                200,
                vec![("cache-control", "max-age=10"), ("vary", "*")],
                Err(Reason::VaryStar),
            ),
        ] {
            assert_eq!(stored(&GET, status, &lines, false), found, "{status} {lines:?}");
        }
    }

    #[test]
    fn what_is_one_users_is_not_everybodys() {
        let authorized = Asked {
            authorized: true,
            ..GET
        };
        for (cc, found) in [
            ("max-age=10", Err(Reason::Authorization)),
            ("max-age=10, proxy-revalidate", Err(Reason::Authorization)),
            ("max-age=10, public", Ok(())),
            ("max-age=10, must-revalidate", Ok(())),
            ("s-maxage=10", Ok(())),
        ] {
            assert_eq!(stored(&authorized, 200, &[("cache-control", cc)], false), found, "{cc}");
        }
        let cookie = ("set-cookie", "id=1");
        assert_eq!(
            stored(&GET, 200, &[("cache-control", "public, max-age=10"), cookie], false),
            Err(Reason::SetCookie)
        );
        assert_eq!(
            stored(&GET, 200, &[("cache-control", "max-age=10"), cookie], true),
            Ok(())
        );
        let hidden = ("cache-control", "max-age=10, no-cache=\"set-cookie\"");
        assert_eq!(stored(&GET, 200, &[hidden, cookie], false), Ok(()));
    }

    #[test]
    fn requests_that_forbid_it_or_only_may_explicitly() {
        let mut no_store = GET;
        no_store.cc.no_store = true;
        assert_eq!(
            stored(&no_store, 200, &[("cache-control", "max-age=10")], false),
            Err(Reason::RequestNoStore)
        );
        let post = Asked {
            method: &Method::POST,
            ..GET
        };
        assert_eq!(stored(&post, 200, &[("cache-control", "max-age=10")], false), Ok(()));
        assert_eq!(stored(&post, 200, &[("etag", "\"a\"")], false), Err(Reason::Method));
    }
}

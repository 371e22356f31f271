//! What the cache does with a request, and why: decided here, without I/O, from the request's head, from what is stored and from
//! the settings. Requests are answered by it, and whoever wants to know why they were asks it again.

use http::{HeaderName, Method};

use super::conditional;
use super::directives::ForRequest;
use super::entry::Entry;
use super::freshness::Verdict;
use super::key;
use super::range::{self, Asked, Misses};
use super::reason::Reason;
use super::store::Found;
use crate::fields::{Fields, Known};

/// Methods that are registered as safe and answered by no cache here; unknown ones change things.
const SAFE: [&str; 4] = ["QUERY", "PROPFIND", "REPORT", "SEARCH"];

/// What of a request decides.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    pub method: &'a Method,
    pub fields: &'a Fields,
    pub cc: ForRequest,
    /// It has Authorization.
    pub authorized: bool,
    /// It carries something, or wants another protocol.
    pub has_body: bool,
    pub upgrades: bool,
    /// It may be stored by what it carries.
    pub by_content: bool,
    /// Its URL is too long for a key.
    pub keyless: bool,
    /// A proxy that is believed.
    pub trusted: bool,
    /// Fields that requests are told apart by.
    pub apart: &'a [HeaderName],
}

/// What of the settings decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    pub ranges: Misses,
    /// Bytes of a body.
    pub max_entry: u64,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The cache has no part in it.
    Bypass(Reason),
    /// It may change things: what is stored for its URL is forgotten when it has succeeded.
    Change(Reason),
    /// It is answered with what is stored; stale, where there is a reason.
    Serve(Option<Reason>),
    /// Nothing is to be had without asking, and the client wants nobody asked. `fwd` of Cache-Status.
    Refuse(&'static str),
    Ask(Ask),
}

impl Decision {
    /// What is stored would do if it were fresh: another may have a fresh one.
    pub fn is_for_want_of_fresh(&self) -> bool {
        match self {
            Self::Ask(ask) => ask.detail == Some(Reason::Stale),
            Self::Refuse(why) => *why == "stale",
            _ => false,
        }
    }
}

/// How and why an endpoint is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    /// `fwd` of Cache-Status (RFC 9211 section 2.2).
    pub why: &'static str,
    pub detail: Option<Reason>,
    /// Others that ask for the same wait for this answer.
    pub shared: bool,
    /// Only for the range that is asked for.
    pub ranged: bool,
    /// Whether what is stored is still current.
    pub validates: bool,
}

/// The decision about a request that finds this. `now`: of the cache's clock, in milliseconds; `wall`: seconds since 1970,
/// asked for only where dates are compared.
pub fn request(asking: &Asking<'_>, found: &Found, rules: Rules, now: i64, wall: fn() -> i64) -> Decision {
    match unasked(asking) {
        Some(decision) => decision,
        None => look(asking, found, rules, now, wall),
    }
}

/// The decision about a request that is not looked up. `None`: it is.
pub fn unasked(asking: &Asking<'_>) -> Option<Decision> {
    let reads = matches!(*asking.method, Method::GET | Method::HEAD);
    match bypass(asking) {
        Some(Reason::KeyTooLong) => Some(Decision::Bypass(Reason::KeyTooLong)),
        Some(reason) if *asking.method == Method::POST => Some(Decision::Change(reason)),
        Some(reason) => Some(Decision::Bypass(reason)),
        None if !reads && !asking.by_content => Some(Decision::Change(Reason::Method)),
        None => None,
    }
}

fn bypass(asking: &Asking<'_>) -> Option<Reason> {
    let Asking { method, fields, .. } = asking;
    let safe = matches!(**method, Method::OPTIONS | Method::TRACE | Method::CONNECT) || SAFE.contains(&method.as_str());
    if (safe && !asking.by_content) || asking.upgrades {
        return Some(Reason::Method);
    }
    if asking.keyless {
        return Some(Reason::KeyTooLong);
    }
    if !asking.by_content && !matches!(**method, Method::GET | Method::HEAD) {
        return None;
    }
    if !asking.by_content && asking.has_body {
        return Some(Reason::RequestBody);
    }
    if asking.cc.no_store {
        return Some(Reason::RequestNoStore);
    }
    // They are for the origin alone (RFC 9111 section 4.3.2).
    if fields.has(Known::IfMatch) || fields.has(Known::IfUnmodifiedSince) {
        return Some(Reason::RequestOverride);
    }
    // 304 answers no POST (RFC 9110 section 13.1.2).
    if **method == Method::POST && (fields.has(Known::IfNoneMatch) || fields.has(Known::IfModifiedSince)) {
        return Some(Reason::RequestOverride);
    }
    let overridden = is_renamed(asking) || key::is_overridden(fields, asking.apart, asking.trusted);
    overridden.then_some(Reason::RequestOverride)
}

/// A proxy in front that is believed may name a host of its choice: the endpoint sees it, the key does not.
fn is_renamed(asking: &Asking<'_>) -> bool {
    let fields = asking.fields;
    asking.trusted
        && fields.has(Known::XForwardedHost)
        && fields.get(Known::XForwardedHost) != fields.get(Known::Host)
        && !asking.apart.iter().any(|name| name == "x-forwarded-host")
}

/// The decision about a request that is looked up.
pub fn look(asking: &Asking<'_>, found: &Found, rules: Rules, now: i64, wall: fn() -> i64) -> Decision {
    let cc = &asking.cc;
    let ranged = *asking.method == Method::GET && asking.fields.has(Known::Range);
    // Who wants it from the endpoint does not want what another asked for before.
    let insists = cc.no_cache || cc.max_age == Some(0);
    let as_part = |length| ranged && !rules.ranges.takes_whole(length, rules.max_entry);
    let miss = |why, length| {
        Decision::Ask(Ask {
            why,
            detail: None,
            shared: !insists,
            ranged: as_part(length),
            validates: false,
        })
    };
    // Nobody gains by the whole of what is not stored.
    let alone = |why, reason| {
        Decision::Ask(Ask {
            why,
            detail: Some(reason),
            shared: false,
            ranged,
            validates: false,
        })
    };
    let decision = match found {
        Found::Nothing => miss("uri-miss", None),
        Found::OtherVariant => miss("vary-miss", None),
        Found::Pass => alone("uri-miss", Reason::HitForMiss),
        Found::Entry(entry, freshness) => {
            if asking.authorized && !freshness.is_for_authorized() {
                alone("bypass", Reason::Authorization)
            } else {
                let whole = entry.body.is_whole();
                let length = Some(entry.body.length());
                match freshness.verdict(cc, now) {
                    Verdict::Validate(reason) => Decision::Ask(Ask {
                        why: match reason {
                            Reason::Stale | Reason::NoCache => "stale",
                            _ => "request",
                        },
                        detail: Some(reason),
                        shared: reason == Reason::Stale && freshness.is_reusable(),
                        // A part cannot be told to be current as a whole: it is fetched anew.
                        ranged: !whole && as_part(length),
                        validates: whole,
                    }),
                    _ if !whole && !covers(entry, asking, wall) => miss("partial", length),
                    Verdict::Fresh => Decision::Serve(None),
                    Verdict::Stale(reason) => Decision::Serve(Some(reason)),
                    Verdict::Meanwhile => Decision::Serve(Some(Reason::WhileRevalidate)),
                }
            }
        }
    };
    match decision {
        Decision::Ask(ask) if cc.only_if_cached => Decision::Refuse(ask.why),
        decision => decision,
    }
}

/// Whether a part that is stored is all that is asked for.
fn covers(part: &Entry, asking: &Asking<'_>, wall: fn() -> i64) -> bool {
    if *asking.method == Method::HEAD {
        return true;
    }
    let (fields, stored) = (asking.fields, part.meta.head.fields());
    let asks = fields.has(Known::IfNoneMatch) || fields.has(Known::IfModifiedSince);
    if asks && conditional::is_current(fields, &stored, wall()) {
        return true;
    }
    if !fields.has(Known::Range) || !conditional::may_range(fields, &stored, wall()) {
        return false;
    }
    let held = part.body.span();
    match range::asked(fields, part.body.length()) {
        Asked::Whole => false,
        Asked::Unsatisfiable => true,
        Asked::Spans(spans) => spans.iter().all(|span| held.0 <= span.0 && span.1 <= held.1),
    }
}

#[cfg(test)]
mod tests;

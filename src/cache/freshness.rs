//! How long a response is fresh, how old it is, and whether it may be used: RFC 9111 section 4.2, RFC 5861, RFC 8246.
//!
//! Times are arguments: milliseconds of the cache's own clock, which never jumps, and seconds since 1970 to compare with
//! what dates in fields say.

use super::date;
use super::directives::{FOREVER, ForRequest, ForResponse};
use super::reason::Reason;
use crate::fields::{Fields, Known};

/// When a response came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Of the cache's clock, in milliseconds.
    pub clock: i64,
    /// Seconds since 1970.
    pub wall: i64,
    /// From the request sent to the response's head, in milliseconds.
    pub delay: i64,
}

/// What may be done with a stored response, and until when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// When its age was 0, by the cache's clock in milliseconds.
    pub born: i64,
    /// Seconds of age until it is stale.
    pub lifetime: u32,
    /// Seconds of staleness in which it may be served while, or because, a newer one is fetched.
    pub stale_while_revalidate: u32,
    pub stale_if_error: u32,
    pub(super) flags: u8,
}

/// Never served stale (must-revalidate, proxy-revalidate).
const MUST_VALIDATE: u8 = 1;
/// Not served without validation (no-cache).
const NO_CACHE: u8 = 2;
/// A client may not ask for it stale (s-maxage, RFC 9111 section 5.2.2.10).
const NO_MAX_STALE: u8 = 4;
const IMMUTABLE: u8 = 8;
/// May answer requests with Authorization (RFC 9111 section 3.5).
const FOR_AUTHORIZED: u8 = 16;
/// Was fresh for a time when it came.
const REUSABLE: u8 = 32;
/// All there are.
pub(super) const FLAGS: u8 = 63;

/// Freshness without an explicit lifetime: the share of the time since Last-Modified, and the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heuristic {
    pub most: u32,
}

/// What settings say about freshness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Defaults {
    /// `None`: off.
    pub heuristic: Option<Heuristic>,
    /// Where a response says nothing and nothing forbids it.
    pub stale_if_error: u32,
    pub stale_while_revalidate: u32,
}

/// Whether a stored response may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Fresh,
    /// The client takes it stale.
    Stale(Reason),
    /// Serve it, and fetch a newer one meanwhile.
    Meanwhile,
    Validate(Reason),
}

/// Statuses with a lifetime of their own accord (RFC 9110 section 15.1).
pub fn is_heuristic_status(status: u16) -> bool {
    matches!(
        status,
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

impl Freshness {
    /// Reads it off a response. `targeted`: `cc` comes from a targeted field, beside which nothing else counts.
    pub fn of(status: u16, fields: &Fields, cc: &ForResponse, targeted: bool, at: Moment, defaults: &Defaults) -> Self {
        let date = single(fields, Known::Date).and_then(|text| date::parse(text, at.wall));
        let lifetime = explicit(fields, cc, targeted, date, at.wall)
            .or_else(|| heuristic(status, fields, cc, date, at.wall, defaults.heuristic))
            .unwrap_or(0);
        let mut flags = 0;
        let mut set = |condition: bool, flag: u8| flags |= if condition { flag } else { 0 };
        set(cc.must_revalidate || cc.proxy_revalidate, MUST_VALIDATE);
        set(cc.no_cache || pragma_no_cache(fields, cc, targeted), NO_CACHE);
        set(cc.s_maxage.is_some(), NO_MAX_STALE);
        set(cc.immutable, IMMUTABLE);
        set(lifetime > 0, REUSABLE);
        set(cc.public || cc.must_revalidate || cc.s_maxage.is_some(), FOR_AUTHORIZED);
        // What forbids serving it stale forbids the defaults, not what the same response explicitly allows.
        let silent = cc.s_maxage.is_none();
        let default = |written: Option<u32>, default: u32| written.unwrap_or(if silent { default } else { 0 });
        Self {
            born: at.clock - initial_age(fields, date, at),
            lifetime,
            stale_while_revalidate: default(cc.stale_while_revalidate, defaults.stale_while_revalidate),
            stale_if_error: default(cc.stale_if_error, defaults.stale_if_error),
            flags,
        }
    }

    /// Seconds.
    pub fn age(&self, now: i64) -> u32 {
        let age = (now - self.born).max(0) / 1000;
        u32::try_from(age).unwrap_or(FOREVER).min(FOREVER)
    }

    /// Seconds it will stay fresh, below 0: it has been stale for.
    pub fn ttl(&self, now: i64) -> i64 {
        i64::from(self.lifetime) - i64::from(self.age(now))
    }

    pub fn is_fresh(&self, now: i64) -> bool {
        now - self.born < i64::from(self.lifetime) * 1000
    }

    /// Whether it, or one like it, could answer a second request by itself.
    pub fn is_reusable(&self) -> bool {
        self.flags & REUSABLE != 0 && self.flags & NO_CACHE == 0
    }

    pub fn is_for_authorized(&self) -> bool {
        self.flags & FOR_AUTHORIZED != 0
    }

    /// Stale from now on, with everything that allows it to be served so.
    pub fn expire(&mut self, now: i64) {
        if self.is_fresh(now) {
            self.lifetime = 0;
            self.born = now;
        }
    }

    /// Whether it may answer a request that says `ask`, at `now`.
    pub fn verdict(&self, ask: &ForRequest, now: i64) -> Verdict {
        if self.flags & NO_CACHE != 0 {
            return Verdict::Validate(Reason::NoCache);
        }
        if ask.no_cache {
            return Verdict::Validate(Reason::RequestNoCache);
        }
        let fresh = self.is_fresh(now);
        let age = now - self.born;
        let millis = |seconds: u32| i64::from(seconds) * 1000;
        // A page that is reloaded asks for everything on it anew; what never changes need not be (RFC 8246).
        let reload = fresh && self.flags & IMMUTABLE != 0;
        if let Some(most) = ask.max_age
            && !reload
            && (self.age(now) > most || most == 0)
        {
            return Verdict::Validate(Reason::RequestMaxAge);
        }
        if let Some(least) = ask.min_fresh
            && millis(self.lifetime) - age < millis(least)
        {
            return Verdict::Validate(Reason::RequestMinFresh);
        }
        if fresh {
            return Verdict::Fresh;
        }
        let stale_for = age - millis(self.lifetime);
        if self.flags & MUST_VALIDATE != 0 {
            return Verdict::Validate(Reason::Stale);
        }
        if self.flags & NO_MAX_STALE == 0 && ask.max_stale.is_some_and(|most| stale_for <= millis(most)) {
            return Verdict::Stale(Reason::MaxStale);
        }
        if stale_for < millis(self.stale_while_revalidate) {
            return Verdict::Meanwhile;
        }
        Verdict::Validate(Reason::Stale)
    }

    /// Whether it may be served because no newer one is to be had.
    pub fn serves_on_error(&self, ask: &ForRequest, now: i64) -> bool {
        let allowed = match (self.flags & NO_MAX_STALE, ask.stale_if_error) {
            (0, Some(most)) => most.max(self.stale_if_error),
            _ => self.stale_if_error,
        };
        let stale_for = now - self.born - i64::from(self.lifetime) * 1000;
        self.flags & (MUST_VALIDATE | NO_CACHE) == 0 && stale_for < i64::from(allowed) * 1000
    }
}

/// Section 4.2.1; `None`: nothing says it.
fn explicit(fields: &Fields, cc: &ForResponse, targeted: bool, date: Option<i64>, wall: i64) -> Option<u32> {
    if let Some(age) = cc.s_maxage.or(cc.max_age) {
        return Some(age);
    }
    if targeted || !fields.has(Known::Expires) {
        return None;
    }
    let expires = single(fields, Known::Expires).and_then(|text| date::parse(text, wall));
    // Invalid dates, above all "0", are the past.
    let lifetime = expires.map_or(0, |expires| expires.saturating_sub(date.unwrap_or(wall)));
    Some(u32::try_from(lifetime.max(0)).unwrap_or(FOREVER).min(FOREVER))
}

/// Section 4.2.2: a tenth of the time since the last change.
fn heuristic(
    status: u16,
    fields: &Fields,
    cc: &ForResponse,
    date: Option<i64>,
    wall: i64,
    rule: Option<Heuristic>,
) -> Option<u32> {
    let rule = rule?;
    if !is_heuristic_status(status) && !cc.public {
        return None;
    }
    let changed = date::parse(single(fields, Known::LastModified)?, wall)?;
    let tenth = date.unwrap_or(wall).saturating_sub(changed).max(0) / 10;
    Some(u32::try_from(tenth).unwrap_or(FOREVER).min(rule.most))
}

/// Section 4.2.3, in milliseconds.
fn initial_age(fields: &Fields, date: Option<i64>, at: Moment) -> i64 {
    let apparent = date.map_or(0, |date| at.wall.saturating_sub(date).clamp(0, i64::from(FOREVER)));
    let corrected = age_value(fields) * 1000 + at.delay.max(0);
    corrected.max(apparent * 1000)
}

/// The first member of the first line, when that is a number (section 5.1).
fn age_value(fields: &Fields) -> i64 {
    let line = fields.get(Known::Age).unwrap_or_default();
    // A parameter is none of the standard's, and whoever sends one means the number before it.
    let first = line
        .split(|b| matches!(b, b',' | b';'))
        .next()
        .unwrap_or_default()
        .trim_ascii();
    if first.is_empty() || !first.iter().all(u8::is_ascii_digit) {
        return 0;
    }
    first
        .iter()
        .fold(0, |n: i64, d| (n * 10 + i64::from(d - b'0')).min(i64::from(FOREVER)))
}

fn pragma_no_cache(fields: &Fields, cc: &ForResponse, targeted: bool) -> bool {
    // It means nothing in responses by the standard, but who writes it means this; anything explicit counts more.
    let silent = !targeted && *cc == ForResponse::default() && !fields.has(Known::Expires);
    silent
        && fields
            .all(Known::Pragma)
            .any(|line| line.trim_ascii().eq_ignore_ascii_case(b"no-cache"))
}

/// The value of a field that may stand once.
fn single(fields: &Fields, known: Known) -> Option<&[u8]> {
    let mut all = fields.all(known);
    let first = all.next()?;
    all.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests;

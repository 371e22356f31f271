//! Clients bound to endpoints: their cookie is read and taken out of requests, and set in responses.

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;

use super::forward::is_https;
use super::{Response, Scope};
use crate::base::pairs;
use crate::fields::{Fields, Known};
use crate::proxy::record::Record;
use crate::snapshot::Share;
use crate::sticky::{Bound, Place, Seen, Shown, Sticky};
use crate::telemetry::reasons::Stuck;
use crate::upstream::Upstream;

/// One request of an upstream whose clients are bound to endpoints.
pub struct Session<'a> {
    sticky: &'a Sticky,
    shown: Shown,
    /// What was to be had of the client's endpoint before the request was sent.
    place: Place,
    https: bool,
    now: u32,
}

/// The share of a split whose upstream has the client's endpoint: a client stays with the version it got. And what its
/// cookies said.
pub fn share<'a>(split: &'a [Share], fields: &Fields) -> (Option<&'a Share>, Option<Seen>) {
    let mut seen = None;
    let own = split.iter().find(|share| {
        share.upstream.sticky.as_ref().is_some_and(|sticky| {
            let found = sticky.see(pairs::cookies(fields.all(Known::Cookie)), now(), seen);
            seen = Some(found);
            matches!(found.shown, Shown::Bound(bound) if sticky.place(bound) == Place::Open)
        })
    });
    (own, seen)
}

impl<'a> Session<'a> {
    /// Reads the cookie, unless it was `seen`, and takes it out: it is nobody's business but ours, and would tell
    /// responses apart that are the same to a cache.
    pub fn begin(scope: &Scope<'_>, sticky: &'a Sticky, seen: Option<Seen>, fields: &mut Fields) -> Self {
        let now = now();
        let Seen { shown, .. } = sticky.see(pairs::cookies(fields.all(Known::Cookie)), now, seen);
        if shown != Shown::Nothing {
            take_out(fields, sticky.cookie().as_bytes());
        }
        Self {
            sticky,
            shown,
            place: match shown {
                Shown::Bound(bound) => sticky.place(bound),
                _ => Place::Gone,
            },
            https: is_https(scope.down, &scope.http.trusted_proxies, fields),
            now,
        }
    }

    /// The client's endpoint, if it can be had.
    pub fn bound(&self) -> Option<Bound> {
        match self.shown {
            Shown::Bound(bound) if self.place == Place::Open => Some(bound),
            _ => None,
        }
    }

    /// Binds the client to whoever has answered this request alone, unless it is bound to it, or the answer is a failure.
    pub fn end(self, scope: &Scope<'_>, upstream: &Upstream, response: &mut Response, record: &mut Record) {
        let Some(endpoint) = record.endpoint else {
            return;
        };
        let stuck = self.stuck(endpoint, record.attempts);
        upstream.series.local(scope.down.worker.id).stuck(stuck).add(1);
        record.note(|line| line.sticky = Some(stuck.label()));
        let stays = stuck == Stuck::Kept && !self.bound().is_some_and(|bound| bound.renew);
        // Nobody is bound to an endpoint that fails, and who is bound to one may have more luck next time.
        if stays || response.status.is_server_error() {
            return;
        }
        if let Some(cookie) = self.sticky.set_cookie(endpoint, self.now, self.https) {
            response.fields.append(Known::SetCookie, cookie.as_bytes());
            if response.status != StatusCode::SWITCHING_PROTOCOLS {
                keep_private(&mut response.fields);
            }
        }
    }

    /// What became of what the client showed.
    fn stuck(&self, endpoint: u32, attempts: u32) -> Stuck {
        match (self.shown, self.place) {
            (Shown::Nothing, _) => Stuck::New,
            (Shown::Invalid, _) => Stuck::Invalid,
            (Shown::Expired, _) => Stuck::Expired,
            (Shown::Bound(bound), _) if self.sticky.is_at(bound, endpoint) => Stuck::Kept,
            (_, Place::Gone) => Stuck::Gone,
            (_, Place::Closed) => Stuck::Unavailable,
            (_, Place::Open) if attempts > 1 => Stuck::Failed,
            (_, Place::Open) => Stuck::Full,
        }
    }
}

/// Seconds since 1970.
fn now() -> u32 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since.as_secs()).unwrap_or(u32::MAX)
}

/// Removes every cookie with this name. The rest stands in one line, in which browsers send it over HTTP/1 as well.
fn take_out(fields: &mut Fields, name: &[u8]) {
    let mut rest: Vec<u8> = Vec::new();
    for piece in fields
        .all(Known::Cookie)
        .flat_map(|line| line.split(|byte| *byte == b';'))
    {
        let piece = piece.trim_ascii();
        let is_own = piece.strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="));
        if !piece.is_empty() && !is_own {
            if !rest.is_empty() {
                rest.extend_from_slice(b"; ");
            }
            rest.extend_from_slice(piece);
        }
    }
    fields.remove(Known::Cookie);
    if !rest.is_empty() {
        fields.append(Known::Cookie, &rest);
    }
}

/// No cache that clients share may give one client's cookie to another (RFC 9111 section 5.2.2.7).
fn keep_private(fields: &mut Fields) {
    let is_private = |value: &[u8]| {
        let mut directives = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        directives.any(|directive| {
            [&b"private"[..], b"no-store"]
                .iter()
                .any(|own| directive.eq_ignore_ascii_case(own))
        })
    };
    if !fields.all(Known::CacheControl).any(is_private) {
        fields.append(Known::CacheControl, b"private");
    }
    // These count instead of Cache-Control where they are known (RFC 9213 section 2.1).
    fields.remove_named(b"cdn-cache-control");
    fields.remove_named(b"surrogate-control");
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn fields(name: &'static str, values: &[&str]) -> Fields {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(name, value.parse().unwrap());
        }
        Fields::from(&map)
    }

    fn values(fields: &Fields, field: Known) -> Vec<&str> {
        fields
            .all(field)
            .map(|value| std::str::from_utf8(value).unwrap())
            .collect()
    }

    #[test]
    fn the_cookie_is_taken_out_and_the_others_stay() {
        for (cookies, left) in [
            (&["at=1"][..], &[][..]),
            (&["at=1; at=2"], &[]),
            (&["a=b; at=1; c"], &["a=b; c"]),
            (&["at=1;a=b", "sat=1; at"], &["a=b; sat=1; at"]),
            (&[" at=1 ;", "at=3"], &[]),
        ] {
            let mut fields = fields("cookie", cookies);
            take_out(&mut fields, b"at");
            assert_eq!(values(&fields, Known::Cookie), left, "{cookies:?}");
        }
    }

    #[test]
    fn responses_are_kept_out_of_shared_caches() {
        for (before, after) in [
            (&[][..], &["private"][..]),
            (&["public, max-age=60"], &["public, max-age=60", "private"]),
            (&["max-age=5, Private"], &["max-age=5, Private"]),
            (&["no-store"], &["no-store"]),
            (&["private=\"x\""], &["private=\"x\"", "private"]),
        ] {
            let mut fields = fields("cache-control", before);
            keep_private(&mut fields);
            assert_eq!(values(&fields, Known::CacheControl), after, "{before:?}");
        }
    }
}

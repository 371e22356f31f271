//! From an endpoint's response to what is stored: its head judged, its body read for everybody who waits.

use std::sync::Arc;
use std::time::SystemTime;

use http::Method;
use tokio::time::Instant;

use super::wall;
use crate::base::hash::stable_seeded;
use crate::cache::ahead;
use crate::cache::apart;
use crate::cache::conditional;
use crate::cache::directives::ForRequest;
use crate::cache::entry::{Body, Entry, Meta, shared_trailers};
use crate::cache::fill::{Fills, Lead, Opening};
use crate::cache::freshness::Moment;
use crate::cache::key::Key;
use crate::cache::reason::Reason;
use crate::cache::storable::{self, Came, Kept, Limits};
use crate::cache::vary::{self, Vary};
use crate::fields::{Fields, Known};
use crate::proxy::http::Response;
use crate::proxy::http::body::{Filling, ResponseBody};
use crate::snapshot::Cached;

/// What of a request decides how its response is stored.
pub struct Wanted {
    pub method: Method,
    /// It is told apart by its content.
    pub by_content: bool,
    pub cc: ForRequest,
    pub authorized: bool,
    pub fields: Fields,
    pub key: Key,
    /// Purges so far.
    pub stamp: u64,
}

pub fn moment(cached: &Cached, begun: Instant) -> Moment {
    let now = Instant::now();
    Moment {
        clock: cached.cache.clock(now),
        wall: wall(),
        delay: (now - begun).as_millis() as i64,
    }
}

/// The stored response with the fields of one that says it is current.
pub fn renewed(
    cached: &Cached,
    wanted: &Wanted,
    entry: &Entry,
    newer: &Fields,
    at: Moment,
) -> Result<(Arc<Entry>, Key), Reason> {
    let mut newer = newer.clone();
    if !cached.rules.set_cookie {
        newer.remove(Known::SetCookie);
    }
    let merged = conditional::merge(&entry.meta.head.fields(), &newer);
    let kept = keep(cached, wanted, entry.meta.status, &merged, None, at)?;
    let (meta, _, place) = meta(cached, wanted, kept, &merged, at)?;
    Ok((Arc::new(entry.with(meta)), place))
}

/// Takes over what a response to HEAD says of what is stored.
pub fn update(
    cached: &Cached,
    wanted: &Wanted,
    entry: &Arc<Entry>,
    head: &Response,
    begun: Instant,
) -> Option<Arc<Entry>> {
    let at = moment(cached, begun);
    let stored = entry.meta.head.fields();
    let same = head.status.as_u16() == entry.meta.status;
    if same && conditional::is_same(&stored, entry.body.length(), &head.fields) {
        let (entry, place) = renewed(cached, wanted, entry, &head.fields, at).ok()?;
        cached.cache.keep(&place, &entry, at.clock - at.delay, None);
        return Some(entry);
    }
    if same {
        cached.cache.purge(&wanted.key, true, at.clock).1.detach();
    }
    None
}

/// Whether and how a response with this head is stored.
fn keep(
    cached: &Cached,
    wanted: &Wanted,
    status: u16,
    fields: &Fields,
    length: Option<u64>,
    at: Moment,
) -> Result<Kept, Reason> {
    let asked = storable::Asked {
        method: &wanted.method,
        cc: wanted.cc,
        authorized: wanted.authorized,
    };
    let limits = Limits {
        body: cached.max_entry,
        head: cached.max_head,
    };
    let came = Came {
        status,
        fields,
        length,
        at,
        date: &httpdate::fmt_http_date(SystemTime::now()),
    };
    storable::keep(&asked, came, &cached.rules, limits)
}

/// What is known of it, what it varies by, and where it belongs.
fn meta(
    cached: &Cached,
    wanted: &Wanted,
    kept: Kept,
    fields: &Fields,
    at: Moment,
) -> Result<(Meta, Vary, Key), Reason> {
    let Kept {
        status,
        mut stored,
        head,
        ..
    } = kept;
    if wanted.by_content {
        stored.vary = vary::with(&stored.vary, &apart::CONTENT);
    }
    let cache = &cached.cache;
    let mut place = wanted.key.clone();
    cache
        .place(&mut place, fields, &stored.vary, &wanted.fields)
        .ok_or(Reason::VaryTooMany)?;
    let random = stable_seeded(&place.text, cache.seed ^ at.clock as u64);
    stored.freshness.lifetime = ahead::shortened(stored.freshness.lifetime, cached.jitter, random);
    let meta = Meta {
        status,
        freshness: stored.freshness,
        stamp: wanted.stamp,
        tags: cache.store.tags.of(fields, at.clock).map_err(|_| Reason::NoRoom)?,
        head,
    };
    Ok((meta, stored.vary, place))
}

/// What is opened for everybody who waits.
pub fn opening(cached: &Cached, wanted: &Wanted, response: &Response, at: Moment) -> Result<(Opening, Key), Reason> {
    let (wire_status, length) = (response.status.as_u16(), response.length);
    let kept = keep(cached, wanted, wire_status, &response.fields, length, at)?;
    let part = kept.part;
    let (meta, vary, place) = meta(cached, wanted, kept, &response.fields, at)?;
    let opening = Opening {
        meta,
        asked: at.clock - at.delay,
        wire_status,
        length,
        part,
        unkept: None,
        vary,
        key: place.text.as_slice().into(),
    };
    Ok((opening, place))
}

/// A body that is stored while one client reads it.
pub fn share(cached: &Arc<Cached>, opening: Opening, place: Key, body: ResponseBody) -> ResponseBody {
    if body.is_empty() {
        let entry = Entry::of(opening.meta, Body::of(Vec::new()));
        cached.cache.keep(&place, &Arc::new(entry), opening.asked, None);
        return body;
    }
    let (mut lead, seat) = Fills::alone(cached.cache.store.under_way());
    let cached = cached.clone();
    tokio::task::spawn_local(async move { pump(&cached, &opening, place, body, &mut lead).await });
    ResponseBody::Filling(Box::new(Filling(seat)))
}

/// Reads the body for everybody, and stores it.
pub async fn pump(cached: &Cached, opening: &Opening, place: Key, mut body: ResponseBody, lead: &mut Lead) {
    let mut kept = opening.unkept != Some(Reason::NoRoom);
    let (mut total, mut trailers) = (0u64, None);
    loop {
        std::future::poll_fn(|cx| lead.poll_room(cx)).await;
        if !kept && lead.watchers() == 0 {
            return;
        }
        match std::future::poll_fn(|cx| body.poll_frame(cx)).await {
            Some(Ok(frame)) => {
                let data = match frame.into_data() {
                    Ok(data) if data.is_empty() => continue,
                    Ok(data) => data,
                    Err(frame) => {
                        trailers = frame.into_trailers().ok().and_then(|all| shared_trailers(&all));
                        continue;
                    }
                };
                total += data.len() as u64;
                let fits = lead.push(&data) && total <= cached.max_entry;
                if kept && !fits {
                    kept = false;
                    lead.forgo();
                }
            }
            // Whoever reads sees it broken, by the lead's end.
            Some(Err(_)) => return,
            None => break,
        }
    }
    let Some(pieces) = lead.end(trailers.as_ref()) else {
        return;
    };
    let body = match opening.part {
        Some((span, length)) if total == span.1 - span.0 + 1 => Body::part(span, length, pieces),
        None if opening.length.is_none_or(|n| n == total) => Body::of(pieces),
        _ => return,
    };
    let meta = opening.meta.clone();
    let entry = match opening.part {
        Some(_) => joined(cached, &place, meta, body),
        None => Entry::of(meta, body).trailed(trailers, cached.max_head),
    };
    cached.cache.keep(&place, &Arc::new(entry), opening.asked, Some(lead));
    lead.unlist();
}

/// A part with those that were stored before, where all say that they are of the same (RFC 9111 section 3.4).
fn joined(cached: &Cached, place: &Key, meta: Meta, body: Body) -> Entry {
    let before = cached.cache.store.peek(place);
    let fields = meta.head.fields();
    let tag = conditional::strong_tag(&fields);
    let both = before.filter(|before| {
        let stored = before.meta.head.fields();
        tag.is_some() && conditional::strong_tag(&stored) == tag
    });
    let whole = both.and_then(|before| match before.body.is_whole() {
        true => Some(before.body.clone()),
        false => before.body.joined(&body),
    });
    Entry::of(meta, whole.unwrap_or(body))
}

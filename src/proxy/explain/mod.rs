//! What would become of a request, and why: worked out by what requests themselves go through, without sending one.
//!
//! Nothing is counted and nobody's turn is taken. The parts that decide (the strict parser, `route::normalise`, the routing
//! table, cache keys, sticky cookies, balancers) are called as `http/request.rs` calls them.

mod answer;
mod listener;
mod question;
mod upstream;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use http::{Method, StatusCode};

pub use self::answer::{
    Action, Cache, Certificate, Endpoint, Ends, Explanation, Hashed, Listener, Other, Path, Route, Upstream,
};
pub use self::question::{Question, Wrong};

use self::question::Asked;
use super::http::cache;
use super::http::{Downstream, Scope, respond, sticky};
use super::worker::{Peer, Worker};
use crate::balance::KeyParts;
use crate::fields::{Fields, Known};
use crate::h1::head::HeadSearch;
use crate::h1::host;
use crate::h1::request::{self as head, RequestHead};
use crate::route::{self, Considered, Normalised};
use crate::snapshot::current::Current;
use crate::snapshot::{self, Forward, Http, Serve, Share};
use crate::telemetry::access;
use crate::telemetry::shard::WorkerId;

/// A listener's name and one address it is bound to.
pub type Place = (Arc<str>, String);

/// Routes told beside the one that is taken.
const MOST_ROUTES: usize = 10;
/// Upstreams of a split, and endpoints of an upstream.
const MOST_UPSTREAMS: usize = 16;

/// Explains what `current` would make of a request. `places`: where its listeners are bound.
///
/// Takes as long as a request that is answered by hand: milliseconds, more where an upstream has thousands of endpoints.
pub fn explain(current: &Current, places: &[Place], question: &Question) -> Result<Explanation, Wrong> {
    let asked = question.read()?;
    let snapshot = current.get();
    let chosen = listener::choose(&snapshot, places, question, &asked)?;
    let mut told = Explanation {
        method: question.method.clone(),
        url: question.url.clone(),
        from: question.from,
        listener: chosen.told,
        ..Explanation::default()
    };
    if let Some(ends) = listener::mismatch(&chosen.listener, &asked) {
        told.ends = Some(ends);
        return Ok(told);
    }
    told.certificate = listener::certificate(&chosen.listener, &asked);
    // As `to_canonical` for what is accepted.
    let source = question.from.to_canonical();
    match &chosen.listener.serve {
        Serve::Tcp(tcp) => listener::layer4(&mut told, tcp, &asked, source),
        Serve::Http(http) => {
            let down = downstream(current, chosen.listener.slot, source, asked.https);
            let scope = Scope {
                down: &down,
                listener: &chosen.listener,
                http,
                informational: None,
            };
            told.ends = request(&mut told, &scope, http, &asked).err();
        }
    }
    Ok(told)
}

/// A connection as requests see it, of a client that is not there.
fn downstream(current: &Current, slot: usize, source: IpAddr, tls: bool) -> Downstream {
    // Any worker: they differ in their subsets alone.
    let worker = Worker::new(WorkerId(1), current.reader(), access::Sender::default());
    Downstream {
        worker: Rc::new(worker),
        peer: Peer { ip: source, port: None },
        forwarding: Default::default(),
        tls,
        slot,
    }
}

/// The life of a request, told. An error is an end before any action.
fn request(told: &mut Explanation, scope: &Scope<'_>, http: &Http, asked: &Asked) -> Result<(), Ends> {
    let read = parse(http, asked)?;
    if let Some(reason) = read.deviation {
        told.notes
            .push(format!("the request deviates from the standard: {}", reason.label()));
    }
    let fields = &read.fields;
    let (raw, query) = match read.target.parts(fields) {
        ("*", None) if read.method == Method::OPTIONS => ("/", None),
        parts => parts,
    };
    let path = route::normalise(raw).map_err(|e| Ends::with(StatusCode::BAD_REQUEST, e.to_string()))?;
    told.path = Some(Path {
        received: raw.to_owned(),
        query: query.map(str::to_owned),
        route: path.route.to_string(),
        forward: path.forward.to_string(),
    });
    let host = fields.get(Known::Host).unwrap_or_default();
    let host = host::name(std::str::from_utf8(host).unwrap_or_default());
    let place = KeyParts {
        source: scope.down.peer.ip,
        host: &host,
        path: &path.route,
        query,
        headers: fields,
    };
    let routed = route::Request {
        method: &read.method,
        host: place.host,
        path: place.path,
        query: place.query,
        headers: place.headers,
        source: place.source,
    };
    let taken = http.table.find(&routed);
    others(told, http, &routed, taken);
    let Some(route) = taken.and_then(|index| http.routes.get(index)) else {
        return Err(Ends::with(StatusCode::NOT_FOUND, "no route takes it"));
    };
    told.route = Some(Route {
        name: route.name.to_string(),
        predicates: predicates(route),
    });
    match &route.action {
        snapshot::Action::Respond { status, body, .. } => {
            told.action = Some(Action {
                status: Some(status.as_u16()),
                ..Action::of("respond", [format!("{} bytes", body.len())])
            });
        }
        snapshot::Action::Redirect { to, status } => {
            let response = respond::redirect(to, *status, &read.target, fields, &host);
            let location = response.fields.get(Known::Location);
            told.action = Some(Action {
                status: Some(response.status.as_u16()),
                location: location.map(|text| String::from_utf8_lossy(text).into_owned()),
                ..Action::of("redirect", [])
            });
        }
        snapshot::Action::Forward(forward) => forwarded(told, scope, forward, &read, &place, &path),
    }
    Ok(())
}

/// The request as the listener's parser reads it.
fn parse(http: &Http, asked: &Asked) -> Result<RequestHead, Ends> {
    let mut buf = BytesMut::from(asked.head.as_bytes());
    match head::parse(&mut buf, &mut HeadSearch::default(), &http.limits, http.desync) {
        Ok(Some(read)) => Ok(read),
        Ok(None) => Err(Ends::with(StatusCode::BAD_REQUEST, "the head has no end")),
        Err(refused) => {
            let class = refused.reason.map(|reason| format!(" ({})", reason.label()));
            let why = format!("{}{}", refused.error.reason(), class.unwrap_or_default());
            Err(Ends::with(refused.error.status(), why))
        }
    }
}

/// The routes that are not taken, the closest first.
fn others(told: &mut Explanation, http: &Http, routed: &route::Request<'_>, taken: Option<usize>) {
    let considered = http.table.considered(routed, MOST_ROUTES + 1);
    let winner = considered.iter().find(|one| Some(one.route) == taken);
    let why = |one: &Considered<'_>| {
        let (mine, winner) = (http.routes.get(one.route)?, winner.unwrap_or(one));
        let takes = http.routes.get(winner.route)?;
        let lost = one.lost(&mine.matcher, winner, &takes.matcher);
        Some(Other {
            route: mine.name.to_string(),
            why: lost.to_string(),
        })
    };
    let beside = considered.iter().filter(|one| Some(one.route) != taken);
    told.others = beside.take(MOST_ROUTES).filter_map(why).collect();
    if taken.is_none() {
        // Nobody takes it: what comes near may be what was meant.
        let far = http
            .routes
            .iter()
            .enumerate()
            .filter(|(n, _)| considered.iter().all(|one| one.route != *n));
        let mut far: Vec<(bool, &snapshot::Route)> = far
            .take(MOST_LOOKED_AT)
            .map(|(_, route)| (route.matcher.takes_host(routed), route))
            .collect();
        far.sort_by_key(|(takes_host, _)| !takes_host);
        let room = MOST_ROUTES.saturating_sub(told.others.len());
        told.others
            .extend(far.into_iter().take(room).map(|(takes_host, route)| Other {
                route: route.name.to_string(),
                why: match takes_host {
                    true => format!("asks for another path: {}", route.matcher.path),
                    false => format!("is for other hosts: {}", listed(&route.matcher.hosts)),
                },
            }));
    }
    told.others_left_out = http.routes.len() - told.others.len() - usize::from(taken.is_some());
}

/// Where no route matches, so many are looked at for what comes near.
const MOST_LOOKED_AT: usize = 1000;

/// What a route asks, as it is written.
fn predicates(route: &snapshot::Route) -> Vec<String> {
    let matcher = &route.matcher;
    let mut all = Vec::new();
    if !matcher.hosts.is_empty() {
        all.push(format!("hosts {}", listed(&matcher.hosts)));
    }
    all.push(matcher.path.to_string());
    if !matcher.methods.is_empty() {
        all.push(format!("methods {}", listed(&matcher.methods)));
    }
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    all.extend(
        matcher
            .headers
            .iter()
            .map(|(name, value)| format!("header {name}: {}", text(value))),
    );
    all.extend(
        matcher
            .query
            .iter()
            .map(|(name, value)| format!("query {name}={value}")),
    );
    all.extend(
        matcher
            .cookies
            .iter()
            .map(|(name, value)| format!("cookie {name}={value}")),
    );
    if !matcher.sources.is_empty() {
        all.push(format!("sources {}", listed(&matcher.sources)));
    }
    if matcher.priority != 0 {
        all.push(format!("priority {}", matcher.priority));
    }
    all
}

/// The first few of a list.
fn listed(items: &[impl ToString]) -> String {
    const MOST: usize = 5;
    let mut list: Vec<String> = items.iter().take(MOST).map(ToString::to_string).collect();
    if items.len() > MOST {
        list.push(format!("{} more", items.len() - MOST));
    }
    list.join(", ")
}

fn forwarded(
    told: &mut Explanation,
    scope: &Scope<'_>,
    forward: &Forward,
    read: &RequestHead,
    place: &KeyParts<'_>,
    path: &Normalised<'_>,
) {
    let mut details = Vec::new();
    let mut time = |what: &str, time: Option<std::time::Duration>| {
        details.extend(time.map(|time| format!("{what} {time:?}")));
    };
    time("timeout", forward.timeout);
    time("max_duration", forward.max_duration);
    if let Some(most) = forward.max_body.or(scope.http.max_body) {
        details.push(format!("max_body {most} bytes"));
    }
    told.action = Some(Action::of("forward", details));
    told.cache = forward.cache.as_ref().map(|cached| {
        let query = match cache::reads(&read.method) {
            true => place.query.and_then(|query| cached.query.kept(query)),
            false => place.query.map(Into::into),
        };
        let key = cache::key_of(scope, place.headers, place.host, &path.forward, query.as_deref());
        Cache {
            name: cached.cache.name.to_string(),
            key: key.map(|key| String::from_utf8_lossy(key.primary()).into_owned()),
        }
    });
    let total = forward.total();
    let own = match forward.split.as_slice() {
        [_] => None,
        split => sticky::share(split, place.headers).0,
    };
    if own.is_some() {
        told.notes
            .push("the client's cookie decides between the upstreams of the split".to_owned());
    }
    let mut before = 0;
    for share in forward.split.iter().take(MOST_UPSTREAMS) {
        let part = match own {
            Some(own) => f64::from(u8::from(std::ptr::eq::<Share>(own, share))),
            None => (share.up_to - before) as f64 / total.max(1) as f64,
        };
        before = share.up_to;
        if part > 0.0 {
            told.upstreams
                .push(upstream::told(scope.down, &share.upstream, part, read, place));
        }
    }
}

/// The cookie of a client that is bound to an endpoint.
fn cookies(fields: &Fields) -> impl Iterator<Item = (&[u8], &[u8])> {
    crate::base::pairs::cookies(fields.all(Known::Cookie))
}

//! The life of a request: one path, one route, one action; attempts until one endpoint answers.

use std::sync::Arc;

use http::Method;
use tokio::time::Instant;

use super::attempt::{Outgoing, attempt, may_repeat};
use super::forward::{set_forwarding, strip_hop_by_hop};
use super::respond;
use super::upload::Source;
use super::{Request, Response, Scope};
use crate::balance::{KeyParts, PickContext, Spec};
use crate::endpoint::{Active, State};
use crate::fields::Known;
use crate::h1::host;
use crate::h1::target::Target;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::record::Record;
use crate::route;
use crate::snapshot::{Action, Forward};
use crate::telemetry::series::Outcome;
use crate::upstream::Upstream;

/// Answers a request. Never fails: what goes wrong is answered too, and noted in `record`.
pub async fn handle(scope: &Scope<'_>, request: Request, record: &mut Record) -> Response {
    let response = match act(scope, request, record).await {
        Ok(response) => response,
        Err(e) => {
            let response = respond::plain(e.kind.status(), told(&e));
            record.failed(e.to_string());
            response
        }
    };
    record.status = response.status;
    response
}

/// What a client is told of a failure: its own mistakes in words, ours by the status alone.
fn told(e: &ProxyError) -> &str {
    match e.kind {
        Kind::BadRequest | Kind::BodyTooLarge | Kind::BodyTimeout => &e.detail,
        Kind::Unavailable => "no endpoint is available",
        _ => "",
    }
}

async fn act(scope: &Scope<'_>, mut request: Request, record: &mut Record) -> Result<Response, ProxyError> {
    record.count_in(&scope.http.unrouted);
    let fields = &request.fields;
    // `OPTIONS *` asks about the server as a whole: it is routed as `/` is.
    let (raw, query) = match request.target.parts(fields) {
        ("*", None) if request.method == Method::OPTIONS => ("/", None),
        parts => parts,
    };
    let path = route::normalise(raw).map_err(|e| ProxyError::new(Kind::BadRequest, e.to_string()))?;
    let host = fields.get(Known::Host).unwrap_or_default();
    let host = host::name(std::str::from_utf8(host).unwrap_or_default());
    let place = KeyParts {
        source: scope.down.peer.ip,
        host: &host,
        path: &path.route,
        query,
        headers: fields,
    };
    let found = scope.http.table.find(&route::Request {
        method: &request.method,
        host: place.host,
        path: place.path,
        query: place.query,
        headers: place.headers,
        source: place.source,
    });
    let Some(route) = found.and_then(|index| scope.http.routes.get(index)) else {
        return Err(ProxyError::new(Kind::NoRoute, "no route takes it"));
    };
    record.note(|line| line.route = Some(route.name.clone()));
    let forward = match &route.action {
        Action::Forward(forward) => forward,
        Action::Respond { status, headers, body } => {
            record.count_in(&route.series);
            return Ok(respond::whole(*status, headers.clone(), body.clone()));
        }
        Action::Redirect { to, status } => {
            record.count_in(&route.series);
            return Ok(respond::redirect(to, *status, &request.target, fields, &host));
        }
    };
    let (upstream, key) = choose(scope, forward, &place, record)?;
    // Sent as it came, unless the path had to be brought into another form.
    if path.forward != raw {
        request.target = Target::own(match query {
            None => path.forward.into_owned(),
            Some(query) => format!("{}?{query}", path.forward),
        });
    }
    let max_body = forward.max_body.or(scope.http.max_body);
    match forward.timeout {
        None => send(scope, upstream, key, max_body, request, record).await,
        Some(timeout) => {
            let sent = send(scope, upstream, key, max_body, request, record);
            match tokio::time::timeout(timeout, sent).await {
                Ok(answered) => answered,
                Err(_) => Err(ProxyError::new(
                    Kind::Deadline,
                    format!("no response within the route's {timeout:?}"),
                )),
            }
        }
    }
}

/// The upstream this request falls to, and the hash that binds it to an endpoint.
fn choose<'a>(
    scope: &Scope<'_>,
    forward: &'a Forward,
    place: &KeyParts<'_>,
    record: &mut Record,
) -> Result<(&'a Upstream, Option<u64>), ProxyError> {
    let roll = match forward.split.len() {
        1 => 0,
        _ => scope.down.worker.rng.borrow_mut().below(forward.total()),
    };
    let Some(share) = forward.share(roll) else {
        return Err(ProxyError::new(Kind::Unavailable, "the route has no upstream"));
    };
    record.count_in(&share.series);
    record.note(|line| line.upstream = Some(share.upstream.name.clone()));
    let key = match &share.upstream.settings.balance {
        Spec::Maglev { hash } => hash.of(place),
        _ => None,
    };
    Ok((&share.upstream, key))
}

/// Attempts until one endpoint answers, none is left, or the failure is not theirs.
async fn send(
    scope: &Scope<'_>,
    upstream: &Upstream,
    key: Option<u64>,
    max_body: Option<u64>,
    request: Request,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let Request {
        method,
        target,
        version,
        mut fields,
        body,
        length,
        expect_continue,
        upgrade,
        alone,
    } = request;
    if let (Some(length), Some(max)) = (length, max_body)
        && length > max
    {
        let detail = format!("the body is {length} bytes long, {max} are allowed");
        return Err(ProxyError::new(Kind::BodyTooLarge, detail));
    }
    let idempotent = is_idempotent(&method);
    strip_hop_by_hop(&mut fields);
    set_forwarding(&mut fields, scope.down, &scope.http.trusted_proxies, version);
    let retries = upstream.settings.retries;
    let body = (!body.is_empty()).then(|| Source::new(body, max_body, idempotent && retries > 0));
    if body.is_none() || !expect_continue {
        fields.remove(Known::Expect);
    }
    let request = Outgoing {
        method: &method,
        target: target.text(&fields),
        fields: &fields,
        body: body.as_ref(),
        length,
        expect_continue,
        upgrade: upgrade.as_ref(),
        alone,
        idempotent,
    };
    let mut tried = Vec::new();
    let mut last = None;
    loop {
        let Some(active) = pick(scope, upstream, key, &tried) else {
            return Err(match last {
                Some(e) => e,
                None => {
                    upstream.series.local(scope.down.worker.id).unavailable.add(1);
                    ProxyError::new(Kind::Unavailable, "no endpoint of the upstream is available")
                }
            });
        };
        if last.is_some() {
            upstream.series.local(scope.down.worker.id).retries.add(1);
        }
        let endpoint = active.endpoint().clone();
        record.attempts += 1;
        record.note(|line| line.endpoint = Some(endpoint.label.clone()));
        // Counts the attempt as cancelled when the client goes away meanwhile.
        let counted = Counted {
            scope,
            endpoint,
            begun: match last {
                None => record.started,
                Some(_) => Instant::now(),
            },
            outcome: Outcome::Cancelled,
        };
        match attempt(scope, upstream, &request, active, counted.begun, record).await {
            Ok(response) => {
                let outcome = if response.status.is_server_error() {
                    Outcome::ServerError
                } else {
                    Outcome::Success
                };
                counted.end(outcome);
                record.answered();
                return Ok(response);
            }
            Err(e) => {
                tried.push(counted.endpoint.id);
                counted.end(e.kind.outcome());
                let again = record.attempts <= retries && e.kind.is_endpoints_fault() && may_repeat(&request, &e);
                if !again {
                    return Err(e);
                }
                last = Some(e);
            }
        }
    }
}

fn pick(scope: &Scope<'_>, upstream: &Upstream, key: Option<u64>, tried: &[u32]) -> Option<Active> {
    let rng = &mut *scope.down.worker.rng.borrow_mut();
    upstream.pick(&mut PickContext { key, rng, tried })
}

/// Whether the method may be repeated without doing more (RFC 9110 section 9.2.2).
fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
    )
}

/// An attempt whose outcome is counted once, whatever happens.
struct Counted<'a> {
    scope: &'a Scope<'a>,
    endpoint: Arc<State>,
    begun: Instant,
    outcome: Outcome,
}

impl Counted<'_> {
    fn end(mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let series = self.endpoint.series.local(self.scope.down.worker.id);
        series.outcome(self.outcome).add(1);
        if matches!(self.outcome, Outcome::Success | Outcome::ServerError) {
            series.latency.observe(self.begun.elapsed());
        }
    }
}

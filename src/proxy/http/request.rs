//! The life of a request: one path, one route, one action; attempts until one endpoint answers.

use std::borrow::Cow;
use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Method, StatusCode, Version, header};
use tokio::time::Instant;

use super::admit::{self, Affinity, pick};
use super::attempt::{Outgoing, attempt};
use super::body::Timed;
use super::cache;
use super::deadline::{Given, late, within};
use super::forward::{set_forwarding, strip_hop_by_hop};
use super::hedge::{self, race};
use super::respond;
use super::retry::{Asked, Failed, Retry};
use super::sticky::{self, Session};
use super::upload::{Source, UNREAD};
use super::{Request, Response, Scope};
use crate::balance::KeyParts;
use crate::endpoint::{Active, State};
use crate::fields::Known;
use crate::h1::host;
use crate::h1::target::Target;
use crate::policy::adaptive::Sample;
use crate::policy::grpc;
use crate::policy::queue::Importance;
use crate::proxy::error::{Kind, ProxyError};
use crate::proxy::record::Record;
use crate::route;
use crate::snapshot::{Action, Forward};
use crate::sticky::Seen;
use crate::telemetry::series::Outcome;
use crate::upstream::{End, Upstream};

/// How many attempts a response took.
const ATTEMPTS: &str = "x-evenkeel-attempts";
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// Answers a request. Never fails: what goes wrong is answered too, and noted in `record`.
pub async fn handle(scope: &Scope<'_>, request: Request, record: &mut Record) -> Response {
    record.grpc = is_grpc(&request);
    let mut response = match act(scope, request, record).await {
        Ok(response) => {
            record.status = response.status;
            response
        }
        Err(e) => {
            // Calls of gRPC fail with 200; what is logged and counted is the failure.
            record.status = e.kind.status();
            let response = respond::failure(&e, record.grpc);
            record.gone = e.kind == Kind::ClientGone;
            record.failed(e.to_string());
            response
        }
    };
    if record.tells_attempts {
        tell_attempts(&mut response, record.attempts);
    }
    response
}

/// Whether it is a call of gRPC.
fn is_grpc(request: &Request) -> bool {
    request.version == Version::HTTP_2 && request.method == Method::POST && {
        let mut types = request.fields.named(&header::CONTENT_TYPE);
        types.next().is_some_and(|value| value.starts_with(b"application/grpc"))
    }
}

/// `retries.attempts_header`.
fn tell_attempts(response: &mut Response, attempts: u32) {
    response.fields.remove_named(ATTEMPTS.as_bytes());
    let mut text = itoa::Buffer::new();
    response.fields.append_text(ATTEMPTS, text.format(attempts).as_bytes());
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
    let (upstream, key, seen) = choose(scope, forward, &place, record)?;
    let cached = forward.cache.as_ref();
    // What is in no key is not sent on.
    let all = query;
    let shortened = match cached {
        Some(cached) if cache::reads(&request.method) => query.and_then(|query| cached.query.kept(query)),
        _ => query.map(Cow::Borrowed),
    };
    let query = shortened.as_deref();
    let stored_by = cached.and_then(|_| cache::key_of(scope, fields, &host, &path.forward, query));
    // Sent as it came, unless the path had to be brought into another form.
    if path.forward != raw || query.map(str::len) != all.map(str::len) {
        request.target = Target::own(match query {
            None => path.forward.into_owned(),
            Some(query) => format!("{}?{query}", path.forward),
        });
    }
    let given = Given::of(scope.http, &request.fields, record.started);
    let timeout = forward.timeout.or(forward.max_duration);
    let timeout = match (timeout, &given) {
        (Some(timeout), Some(given)) => Some(timeout.min(given.timeout)),
        (timeout, given) => timeout.or(given.as_ref().map(|given| given.timeout)),
    };
    if let Some(Duration::ZERO) = timeout {
        return Err(late(Duration::ZERO));
    }
    let session = upstream
        .sticky
        .as_ref()
        .map(|sticky| Session::begin(scope, sticky, seen, &mut request.fields));
    let bound = session.as_ref().and_then(Session::bound);
    let work = Work {
        upstream,
        affinity: Affinity { key, bound },
        max_body: forward.max_body.or(scope.http.max_body),
        importance: forward.importance,
        // Another endpoint knows nothing of a client that is bound to one.
        hedge: forward
            .hedge
            .filter(|_| bound.is_none())
            .and_then(|after| hedge::delay(after, upstream)),
        deadline: timeout.map(|timeout| record.started + timeout),
        timeout: timeout.unwrap_or_default(),
        given,
        cut: Cell::new(Outcome::Cancelled),
    };
    let Some(cached) = cached else {
        let mut response = within(&work, pin!(send(scope, &work, request, record))).await?;
        if let Some(session) = session {
            session.end(scope, upstream, &mut response, record);
        }
        if let Some(longest) = forward.max_duration {
            response.body = Timed::limit(response.body, record.started + longest);
        }
        return Ok(response);
    };
    let started = record.started;
    let mut response = match cache::look_up(scope, &work, cached, stored_by, request, record) {
        Ok(response) => return Ok(response),
        // In a box: a hit needs no room for it.
        Err(asked) => {
            let mut answering = Box::pin(cache::answer(scope, &work, cached, asked, record));
            within(&work, answering.as_mut()).await?
        }
    };
    if let Some(session) = session {
        session.end(scope, upstream, &mut response, record);
    }
    if let Some(longest) = forward.max_duration {
        response.body = Timed::limit(response.body, started + longest);
    }
    Ok(response)
}

/// What is to be done for a request that is forwarded.
pub struct Work<'a> {
    pub upstream: &'a Arc<Upstream>,
    pub affinity: Affinity,
    pub max_body: Option<u64>,
    pub importance: Importance,
    /// After so long a second attempt is made beside the first.
    pub hedge: Option<Duration>,
    /// For the response's head.
    pub deadline: Option<Instant>,
    /// How long that was from the request's start.
    pub timeout: Duration,
    /// What the client said of it.
    pub given: Option<Given<'a>>,
    /// What an attempt counts as that is given up: unless something else is known, the client went away.
    pub cut: Cell<Outcome>,
}

/// An upstream, the hash that binds a request to an endpoint of it, and what a split has read of the client's cookie.
type Chosen<'a> = (&'a Arc<Upstream>, Option<u64>, Option<Seen>);

/// The upstream this request falls to, the hash that binds it to an endpoint, and what its cookies said if it was that
/// which decided.
fn choose<'a>(
    scope: &Scope<'_>,
    forward: &'a Forward,
    place: &KeyParts<'_>,
    record: &mut Record,
) -> Result<Chosen<'a>, ProxyError> {
    let (own, seen) = match forward.split.as_slice() {
        [only] => (Some(only), None),
        split => sticky::share(split, place.headers),
    };
    let share = own.or_else(|| forward.share(scope.down.worker.rng.borrow_mut().below(forward.total())));
    let Some(share) = share else {
        return Err(ProxyError::new(Kind::Unavailable, "the route has no upstream"));
    };
    record.count_in(&share.series);
    record.tells_attempts = share.upstream.settings.retry.tell;
    record.note(|line| line.upstream = Some(share.upstream.name.clone()));
    let hashing = share.upstream.settings.balance.hashing();
    let key = hashing.and_then(|hashing| hashing.key.of(place));
    Ok((&share.upstream, key, seen))
}

/// Attempts until one endpoint answers, none is left, or the failure is not theirs.
pub async fn send(
    scope: &Scope<'_>,
    work: &Work<'_>,
    request: Request,
    record: &mut Record,
) -> Result<Response, ProxyError> {
    let Work { upstream, affinity, .. } = *work;
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
    if let (Some(length), Some(max)) = (length, work.max_body)
        && length > max
    {
        let detail = format!("the body is {length} bytes long, {max} are allowed");
        return Err(ProxyError::new(Kind::BodyTooLarge, detail));
    }
    let retry = &upstream.settings.retry;
    let repeatable = retry.methods.has(&method);
    strip_hop_by_hop(&mut fields);
    set_forwarding(&mut fields, scope.down, &scope.http.trusted_proxies, version);
    let kept = if repeatable || (retry.max > 0 && upstream.dialer.may_refuse()) {
        retry.buffer
    } else {
        retry.buffer.min(UNREAD)
    };
    let body = (!body.is_empty()).then(|| Source::new(body, work.max_body, kept));
    if body.is_none() || !expect_continue {
        fields.remove(Known::Expect);
    }
    let (mut active, mut begun) = match pick(scope, upstream, affinity, &[], record.started) {
        Ok(active) => (active, record.started),
        // In a box: most requests need not wait. The wait is no part of the endpoint's time.
        Err(refused) => {
            let waiting = Box::pin(admit::wait(scope, upstream, affinity, work.importance, refused, record));
            (waiting.await?, Instant::now())
        }
    };
    let mut before: Option<Box<Retry>> = None;
    loop {
        if let (Some(given), Some(deadline)) = (&work.given, work.deadline) {
            given.pass_on(&mut fields, deadline, Instant::now());
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
            repeatable,
            grpc: record.grpc,
            deadline: work.deadline,
        };
        let asked = Asked {
            scope,
            upstream,
            affinity,
            request: &request,
            cut: &work.cut,
        };
        let mut endpoint = active.endpoint().clone();
        record.attempts += 1;
        let connected = Cell::new(None);
        let (result, other) = match work
            .hedge
            .filter(|_| repeatable && !alone && upgrade.is_none() && before.is_none())
        {
            None => (judged(&asked, active, begun, &connected).await, None),
            Some(delay) => {
                let ended = Box::pin(race(&asked, active, begun, delay, &connected, &mut record.attempts)).await;
                endpoint = ended.endpoint;
                (ended.result, ended.other)
            }
        };
        record.endpoint = Some(endpoint.id);
        record.note(|line| {
            line.endpoint = Some(endpoint.label.clone());
            line.connect = connected.get().or(line.connect);
        });
        let failed = match result {
            Ok(response) => return Ok(answered(&request, response, record)),
            Err(failed) => failed,
        };
        let retry = before.get_or_insert_default();
        other.into_iter().for_each(|id| retry.tried(id));
        // In a box: most requests need none.
        match Box::pin(retry.next(&asked, failed, &endpoint, record.attempts)).await {
            Ok(another) => (active, begun) = (another, Instant::now()),
            Err(failed) => {
                return failed
                    .into_result()
                    .map(|response| answered(&request, response, record));
            }
        }
    }
}

/// One attempt, counted and judged: a response to pass on, or a failure that may be followed by another attempt.
pub async fn judged(
    asked: &Asked<'_>,
    active: Active,
    begun: Instant,
    connected: &Cell<Option<Duration>>,
) -> Result<Response, Failed> {
    let (scope, upstream) = (asked.scope, asked.upstream);
    let retry = &upstream.settings.retry;
    let mut counted = Counted {
        scope,
        upstream,
        endpoint: active.endpoint().clone(),
        begun,
        outcome: None,
        shed: false,
        plain: false,
        cut: asked.cut,
    };
    match attempt(scope, upstream, asked.request, active, begun, connected).await {
        Ok(response) => {
            counted.plain = !response.status.is_client_error();
            let grpc = asked.request.grpc.then(|| grpc_status(&response)).flatten();
            counted.shed = match grpc {
                Some(status) => matches!(status, grpc::Status::UNAVAILABLE | grpc::Status::RESOURCE_EXHAUSTED),
                None => matches!(
                    response.status,
                    StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS
                ),
            };
            let outcome = if response.status.is_server_error() {
                Outcome::ServerError
            } else {
                Outcome::Success
            };
            counted.end(outcome);
            if grpc.is_some_and(|status| retry.on.has_grpc(status)) {
                Err(Failed::Grpc(response))
            } else if retry.on.has_status(response.status) {
                Err(Failed::Answer(response))
            } else {
                Ok(response)
            }
        }
        Err(e) => {
            counted.end(e.kind.outcome());
            Err(Failed::Error(e))
        }
    }
}

/// The status of a call that ended without a message.
fn grpc_status(response: &Response) -> Option<grpc::Status> {
    let status = response.fields.named(&GRPC_STATUS).next().and_then(grpc::Status::read);
    status.filter(|_| response.body.is_empty())
}

/// This response is passed on: no attempt follows.
fn answered(request: &Outgoing<'_>, response: Response, record: &mut Record) -> Response {
    if let Some(body) = request.body {
        body.borrow_mut().forget();
    }
    record.answered();
    response
}

/// An attempt whose outcome is counted once, whatever happens.
struct Counted<'a> {
    scope: &'a Scope<'a>,
    upstream: &'a Upstream,
    endpoint: Arc<State>,
    begun: Instant,
    /// `None`: given up.
    outcome: Option<Outcome>,
    /// The endpoint said that it has too much to do.
    shed: bool,
    /// It answered with what was asked for: errors of clients are found out more quickly.
    plain: bool,
    cut: &'a Cell<Outcome>,
}

impl Counted<'_> {
    fn end(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let worker = self.scope.down.worker.id;
        let series = self.endpoint.series.local(worker);
        let outcome = self.outcome.unwrap_or_else(|| self.cut.get());
        series.outcome(outcome).add(1);
        self.endpoint.streak.took(outcome);
        let now = Instant::now();
        let took = now - self.begun;
        if matches!(outcome, Outcome::Success | Outcome::ServerError) {
            series.latency.observe(took);
            if let Some(p95) = &self.upstream.settings.p95 {
                p95.observe(took);
            }
        }
        if self
            .upstream
            .settings
            .limits
            .as_ref()
            .is_some_and(|limits| limits.adaptive)
        {
            self.teach(outcome, now, took);
        }
        let end = match outcome {
            Outcome::Success if self.shed => End::Failed,
            Outcome::Success => End::Answered,
            Outcome::Cancelled => End::Unfinished,
            ours if ours.is_ours() => return,
            _ => End::Failed,
        };
        self.upstream.report(&self.endpoint, worker, now.into_std(), took, end);
    }
}

impl Counted<'_> {
    /// Tells the endpoint's limit how the attempt ended.
    fn teach(&self, outcome: Outcome, now: Instant, took: Duration) {
        let sample = match outcome {
            _ if self.shed => Sample::Overloaded,
            Outcome::Success if self.plain => Sample::Answered(took),
            Outcome::ConnectTimeout
            | Outcome::TlsTimeout
            | Outcome::Reset
            | Outcome::ResponseTimeout
            | Outcome::TryTimeout => Sample::Overloaded,
            // These say nothing of how much it has to do; deadlines are for clients to choose.
            _ => return,
        };
        let rng = &mut self.scope.down.worker.rng.borrow_mut();
        let limit = &self.endpoint.limit;
        limit.observe(sample, self.endpoint.active(), now.into_std(), rng);
    }
}

//! Layer 4: one connection in, one out, bytes both ways.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use tokio::time::Instant;

use super::drain::within_drain;
use super::worker::{Peer, Worker};
use crate::balance::{KeyParts, PickContext};
use crate::endpoint::Active;
use crate::net::dial::Opening;
use crate::net::peek::{self, Hello};
use crate::net::relay::{self, Direction, End};
use crate::policy::queue::Importance;
use crate::policy::retry::Failure;
use crate::pool::DialError;
use crate::pool::dial::Connected;
use crate::route::HostPattern;
use crate::snapshot::{Listener, Live, Tcp};
use crate::sticky::Bound;
use crate::telemetry::access::Line;
use crate::telemetry::series::Outcome;
use crate::tls::io::Io;
use crate::upstream::{self, Refused, Upstream};

/// For a ClientHello to come (DEFAULTS: SNI peek).
const PEEK: Duration = Duration::from_secs(3);

/// One of the ways to get an endpoint.
type Pick = fn(&Upstream, &mut PickContext<'_>, Option<Bound>) -> Result<Active, Refused>;

/// Serves one connection. `io` has done its TLS handshake where the listener terminates TLS.
pub async fn serve(worker: &Rc<Worker>, listener: &Listener, tcp: &Tcp, logged: bool, peer: &Peer, io: Io) {
    let mut session = Session {
        worker: worker.clone(),
        live: listener.live.clone(),
        line: Line::default(),
        began: logged.then(Instant::now),
    };
    if logged {
        session.line = Line {
            time: SystemTime::now(),
            listener: listener.name.clone(),
            client: peer.to_string(),
            protocol: "TCP",
            ..Line::default()
        };
    }
    if let Err(why) = session.run(tcp, peer, io).await {
        session.line.error = Some(why);
    }
}

/// One connection's line in the access log, written when it ends, however it ends.
struct Session {
    worker: Rc<Worker>,
    live: std::sync::Arc<Live>,
    line: Line,
    /// `None`: no line is wanted.
    began: Option<Instant>,
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(began) = self.began {
            self.line.total = began.elapsed();
            self.worker.access.send(Box::new(std::mem::take(&mut self.line)));
        }
    }
}

impl Session {
    async fn run(&mut self, tcp: &Tcp, peer: &Peer, mut down: Io) -> Result<(), Cow<'static, str>> {
        let worker = self.worker.clone();
        let ahead;
        let upstream = if tcp.sni.is_empty() {
            ahead = match &down {
                Io::Plain(stream) => {
                    relay::ahead(stream, &worker.relays).map_err(|e| format!("from the client: {e}"))?
                }
                Io::Tls(_) => BytesMut::new(),
            };
            tcp.upstream.as_ref()
        } else {
            let peeked = peek::server_name(&mut down, PEEK)
                .await
                .map_err(|e| format!("no ClientHello: {e}"))?;
            ahead = peeked.bytes;
            let name = match &peeked.hello {
                Hello::Name(name) => name.as_deref(),
                Hello::More | Hello::NotTls => None,
            };
            self.line.host = name.unwrap_or_default().to_owned();
            by_name(tcp, name)
        };
        let upstream = upstream.ok_or("no upstream for this server name")?;
        self.line.upstream = Some(upstream.name.clone());
        let opening = if ahead.is_empty() {
            Opening::Unknown
        } else {
            Opening::Ours
        };
        let (mut up, active) = self.connect(upstream, peer, opening).await?;
        let moved = |direction, n| self.count(direction, n);
        let relayed = relay::relay(&mut down, &mut up.io, ahead, &worker.relays, tcp.limits, moved);
        let end = within_drain(&active, upstream.settings.drain_timeout, relayed).await;
        drop(active);
        match end {
            Some(End::Closed) => Ok(()),
            None => {
                down.stream().reset_on_close();
                up.io.stream().reset_on_close();
                Err("the endpoint is draining, and the time for what runs there is over".into())
            }
            Some(End::TimedOut) => {
                // Neither side may take the silence for an orderly end.
                down.stream().reset_on_close();
                up.io.stream().reset_on_close();
                Err("timed out: no byte in either direction".into())
            }
            Some(End::Broken(direction, e)) => {
                down.stream().reset_on_close();
                up.io.stream().reset_on_close();
                let which = if direction == Direction::Up {
                    "to the endpoint"
                } else {
                    "to the client"
                };
                Err(format!("{which}: {e}").into())
            }
        }
    }

    /// An endpoint that could be connected to; others are tried when one cannot.
    async fn connect(
        &mut self,
        upstream: &Upstream,
        peer: &Peer,
        opening: Opening,
    ) -> Result<(Connected, Active), Cow<'static, str>> {
        let worker = self.worker.clone();
        let hashing = upstream.settings.balance.hashing();
        let key = hashing.and_then(|hashing| hashing.key.of(&KeyParts::of_connection(peer.ip)));
        let series = upstream.series.local(worker.id);
        let mut tried = Vec::new();
        let mut last: Option<String> = None;
        let retry = &upstream.settings.retry;
        let retries = if retry.on.has(Failure::Connect) { retry.max } else { 0 };
        while self.line.attempts <= retries {
            let look = |pick: Pick| {
                let context = &mut PickContext {
                    key,
                    rng: &mut worker.rng.borrow_mut(),
                    tried: &tried,
                    now: Instant::now().into_std(),
                    worker: worker.id,
                };
                pick(upstream, context, None)
            };
            let picked = match look(Upstream::admit) {
                Err(Refused::Full) if last.is_none() => {
                    let first = || look(Upstream::admit_first);
                    // In a box: most connections need not wait.
                    let waited = Box::pin(upstream.wait(Importance::Normal, worker.id, first)).await;
                    self.line.queued = self.began.map(|began| began.elapsed());
                    Some(waited.map_err(|shed| shed.reason())?)
                }
                picked => picked.ok(),
            };
            let Some(active) = picked else { break };
            if last.is_some() {
                series.retries.add(1);
            }
            self.line.attempts += 1;
            self.line.endpoint = Some(active.endpoint().label.clone());
            let begun = Instant::now();
            let dialled = upstream.dialer.connect_l4(active.endpoint(), opening).await;
            let now = Instant::now();
            let took = now - begun;
            self.line.connect = Some(took);
            let outcome = match &dialled {
                Ok(_) => Outcome::Success,
                Err(DialError::Full(_)) => Outcome::Full,
                Err(DialError::Timeout(_)) => Outcome::ConnectTimeout,
                Err(DialError::TlsTimeout(_)) => Outcome::TlsTimeout,
                Err(DialError::Tls(_)) => Outcome::TlsFailed,
                Err(e) if e.is_exhausted() => Outcome::Exhausted,
                Err(DialError::Failed(_)) => Outcome::ConnectFailed,
            };
            let counters = active.endpoint().series.local(worker.id);
            counters.outcome(outcome).add(1);
            active.endpoint().streak.took(outcome);
            // Where routes lead as well it is known how long answers take, of which connecting says nothing.
            let tells = !upstream.settings.timed;
            let end = match outcome {
                Outcome::Success if tells => {
                    counters.latency.observe(took);
                    Some(upstream::End::Answered)
                }
                Outcome::Success => None,
                outcome if outcome.is_ours() => None,
                _ => Some(upstream::End::Failed),
            };
            if let Some(end) = end {
                upstream.report(active.endpoint(), worker.id, now.into_std(), took, end);
            }
            match dialled {
                Ok(connected) => return Ok((connected, active)),
                Err(e) => last = Some(e.to_string()),
            }
            tried.push(active.endpoint().id);
        }
        Err(match last {
            Some(e) => e.into(),
            None => {
                series.unavailable.add(1);
                "no endpoint of the upstream is available".into()
            }
        })
    }

    fn count(&mut self, direction: Direction, n: usize) {
        let series = self.live.series.local(self.worker.id);
        match direction {
            Direction::Up => {
                series.bytes_in.add(n as u64);
                self.line.bytes_in += n as u64;
            }
            Direction::Down => {
                series.bytes_out.add(n as u64);
                self.line.bytes_out += n as u64;
            }
        }
    }
}

/// The upstream for clients that ask for `name`: exact names over wildcards, longer wildcards over shorter ones, then the
/// default.
pub fn by_name<'a>(tcp: &'a Tcp, name: Option<&str>) -> Option<&'a std::sync::Arc<Upstream>> {
    name.and_then(|name| named(tcp, name)).or(tcp.upstream.as_ref())
}

fn named<'a>(tcp: &'a Tcp, name: &str) -> Option<&'a std::sync::Arc<Upstream>> {
    let rank = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => (host == name).then_some(usize::MAX),
        HostPattern::Wildcard(parent) => name
            .strip_suffix(parent.as_str())
            .filter(|rest| rest.len() > 1 && rest.ends_with('.'))
            .map(|_| parent.len()),
    };
    tcp.sni
        .iter()
        .filter_map(|(pattern, upstream)| Some((rank(pattern)?, upstream)))
        .max_by_key(|(r, _)| *r)
        .map(|(_, u)| u)
}

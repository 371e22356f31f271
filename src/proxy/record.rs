//! What is remembered of one request, counted and logged when it ends, however it ends.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;
use tokio::time::Instant;

use super::error::ProxyError;
use super::worker::Worker;
use crate::h1::desync::Reason;
use crate::telemetry::access::Line;
use crate::telemetry::series::{CacheResult, RequestSeries};

/// Longer ones are cut in the access log, whose queue would hold them all.
const MAX_USER_AGENT: usize = 512;

/// One request, from its head to the end of its response. Dropped unfinished, it counts as the client gone.
pub struct Record {
    worker: Rc<Worker>,
    pub started: Instant,
    series: Option<Arc<RequestSeries>>,
    pub status: StatusCode,
    pub attempts: u32,
    /// Who was asked last (its id), if the answer is for this request alone.
    pub endpoint: Option<u32>,
    /// It is a call of gRPC: failures are told in its way.
    pub grpc: bool,
    /// The client went away before it had its answer.
    pub gone: bool,
    /// What the cache did.
    pub cache: Option<CacheResult>,
    /// The client is told of them.
    pub tells_attempts: bool,
    finished: bool,
    /// Only when there is an access log.
    line: Option<Box<Line>>,
}

/// What the access log wants to know of a request before anything is done with it.
pub struct Subject<'a> {
    pub listener: &'a Arc<str>,
    pub client: &'a str,
    pub method: &'a str,
    pub host: &'a str,
    pub target: &'a str,
    pub protocol: &'static str,
    pub user_agent: Option<&'a [u8]>,
}

impl Record {
    pub fn begin(worker: &Rc<Worker>, logged: bool, subject: impl FnOnce() -> Line) -> Self {
        Self {
            worker: worker.clone(),
            started: Instant::now(),
            series: None,
            status: super::error::CLIENT_GONE,
            attempts: 0,
            endpoint: None,
            grpc: false,
            gone: false,
            cache: None,
            tells_attempts: false,
            finished: false,
            line: logged.then(|| Box::new(subject())),
        }
    }

    /// Of a fetch that may outlive the request it is for: counted and logged with that request alone.
    pub fn apart(worker: &Rc<Worker>, logged: bool) -> Self {
        let mut apart = Self::begin(worker, logged, Line::default);
        apart.finished = true;
        apart
    }

    /// Takes over what is known of a fetch for this request.
    pub fn adopt(&mut self, fetch: Self) {
        self.attempts = fetch.attempts;
        self.endpoint = fetch.endpoint;
        if let (Some(line), Some(fetched)) = (&mut self.line, fetch.line.as_ref()) {
            line.endpoint.clone_from(&fetched.endpoint);
            line.connect = fetched.connect;
            line.response = fetched.response;
        }
    }

    /// Where this request is counted; told again when a split falls on an upstream.
    pub fn count_in(&mut self, series: &Arc<RequestSeries>) {
        self.series = Some(series.clone());
    }

    /// Notes that the response's head came now.
    pub fn answered(&mut self) {
        if let Some(line) = &mut self.line {
            line.response = Some(self.started.elapsed());
        }
    }

    /// Edits the line of the access log, if there is one.
    pub fn note(&mut self, edit: impl FnOnce(&mut Line)) {
        if let Some(line) = &mut self.line {
            edit(line);
        }
    }

    /// Why it failed.
    pub fn failed(&mut self, why: impl Into<Cow<'static, str>>) {
        if let Some(line) = &mut self.line {
            line.error = Some(why.into());
        }
    }

    /// Notes that the response ended before its end because of the endpoint.
    pub fn cut(&mut self, e: &ProxyError) {
        if let (Some(series), Some(by)) = (&self.series, e.kind.cut_by()) {
            series.local(self.worker.id).cut(by).add(1);
        }
        self.failed(e.to_string());
    }

    /// Why it is not compliant.
    #[cold]
    pub fn deviates(&mut self, reason: Reason) {
        if let Some(line) = &mut self.line {
            line.desync = Some((reason.class().label(), reason.label()));
        }
    }

    pub fn add_bytes_out(&mut self, n: u64) {
        if let Some(line) = &mut self.line {
            line.bytes_out += n;
        }
    }

    pub fn add_bytes_in(&mut self, n: u64) {
        if let Some(line) = &mut self.line {
            line.bytes_in += n;
        }
    }

    /// Counts and logs it, once; tells when.
    pub fn finish(&mut self) -> Instant {
        let now = Instant::now();
        if std::mem::replace(&mut self.finished, true) {
            return now;
        }
        let took = now - self.started;
        if let Some(series) = &self.series {
            series.local(self.worker.id).record(self.status.as_u16(), took);
        }
        if let Some(mut line) = self.line.take() {
            line.status = self.status.as_u16();
            line.attempts = self.attempts;
            line.total = took;
            self.worker.access.send(line);
        }
        now
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if !self.finished {
            self.failed("client_gone: closed before the end");
            self.finish();
        }
    }
}

/// The line a request begins with.
pub fn line(subject: &Subject<'_>) -> Line {
    Line {
        time: SystemTime::now(),
        listener: subject.listener.clone(),
        client: subject.client.to_owned(),
        method: subject.method.to_owned(),
        host: subject.host.to_owned(),
        target: subject.target.to_owned(),
        protocol: subject.protocol,
        user_agent: subject.user_agent.map(|v| {
            let kept = v.get(..MAX_USER_AGENT).unwrap_or(v);
            String::from_utf8_lossy(kept).into_owned()
        }),
        ..Line::default()
    }
}

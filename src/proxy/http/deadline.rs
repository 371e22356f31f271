//! The time a client gives its request, in a field: it shortens what is left, and what is left is passed on.

use std::pin::Pin;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::Response;
use super::request::Work;
use crate::fields::{Fields, Known};
use crate::policy::deadline::{grpc_timeout, timeout, to_grpc_timeout, to_timeout};
use crate::proxy::error::{Kind, ProxyError};
use crate::snapshot::Http;
use crate::telemetry::series::Outcome;

/// What a client asked for.
pub struct Given<'a> {
    http: &'a Http,
    pub timeout: Duration,
    until: Instant,
}

impl<'a> Given<'a> {
    /// Of a request that began at `started`; `None`: it gave no time, or what stands there is none.
    pub fn of(http: &'a Http, fields: &Fields, started: Instant) -> Option<Self> {
        let grpc = fields.get(Known::GrpcTimeout).and_then(grpc_timeout);
        let other = http.deadline_header.as_ref();
        let other = other.and_then(|name| timeout(fields.named(name).next()?));
        let timeout = match (grpc, other) {
            (Some(grpc), Some(other)) => grpc.min(other),
            (grpc, other) => grpc.or(other)?,
        };
        Some(Self {
            http,
            timeout,
            until: started + timeout,
        })
    }

    /// Puts what is left at `now` in the place of what was given. It may be less than the client's by now: `deadline` is
    /// when the proxy will give up.
    pub fn pass_on(&self, fields: &mut Fields, deadline: Instant, now: Instant) {
        let left = deadline.min(self.until).saturating_duration_since(now);
        if fields.has(Known::GrpcTimeout) {
            fields.set(Known::GrpcTimeout, to_grpc_timeout(left).as_bytes());
        }
        if let Some(name) = &self.http.deadline_header {
            let told = fields.named(name).next().map(|before| to_timeout(left, before));
            if let Some(value) = told.and_then(|told| HeaderValue::try_from(told).ok()) {
                fields.remove_named(name.as_str().as_bytes());
                fields.append_named(name, &value);
            }
        }
    }
}

/// The failure of a request that had this long.
pub fn late(timeout: Duration) -> ProxyError {
    ProxyError::new(Kind::Deadline, format!("no response within {timeout:?}"))
}

/// What `answering` gives, within the time there is for it. Pinned by the caller: handed over, it would be held twice.
pub async fn within(
    work: &Work<'_>,
    answering: Pin<&mut impl Future<Output = Result<Response, ProxyError>>>,
) -> Result<Response, ProxyError> {
    let Some(deadline) = work.deadline else {
        return answering.await;
    };
    match tokio::time::timeout_at(deadline, answering).await {
        Ok(answered) => answered,
        Err(_) => {
            work.cut.set(Outcome::Deadline);
            Err(late(work.timeout))
        }
    }
}

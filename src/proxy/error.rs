//! Why a request or connection failed: one list, and one table from kind to status, blame and outcome.

use std::borrow::Cow;

use http::StatusCode;

use crate::policy::grpc;
use crate::policy::retry::Failure;
use crate::telemetry::reasons::CutBy;
use crate::telemetry::series::Outcome;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request itself: path, body framing.
    BadRequest,
    BodyTooLarge,
    /// The client sent no byte of its body for too long.
    BodyTimeout,
    /// The client went away.
    ClientGone,
    NoRoute,
    /// No endpoint is available.
    Unavailable,
    /// No endpoint has room, and as many wait as may.
    Overloaded,
    /// No endpoint had room in time.
    QueueTimeout,
    /// This process has no descriptors or memory left for a connection to an endpoint.
    Exhausted,
    /// An endpoint has as many connections as it may, and none was closed in time.
    ConnectionsFull,
    ConnectFailed,
    ConnectTimeout,
    /// The TLS handshake with an endpoint failed, or did not end in time.
    TlsFailed,
    TlsTimeout,
    /// The endpoint closed or reset before a whole response head.
    Reset,
    /// The endpoint said that it did nothing with the request.
    Refused,
    ResponseTimeout,
    /// The time for one attempt is over.
    TryTimeout,
    /// The time for all attempts is over.
    Deadline,
    /// The response paused for too long.
    ReadTimeout,
    /// The response took too long as a whole.
    MaxDuration,
    BadResponse,
}

/// A failure and what is known about it.
#[derive(Debug, Clone)]
pub struct ProxyError {
    pub kind: Kind,
    /// For the log; the client is not told.
    pub detail: Cow<'static, str>,
    /// Nothing of the request reached an endpoint: it may be sent again whatever its method.
    pub unsent: bool,
}

impl ProxyError {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            unsent: false,
        }
    }

    /// As [`Self::new`], for failures before anything was sent.
    pub fn unsent(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            unsent: true,
            ..Self::new(kind, detail)
        }
    }
}

impl std::fmt::Display for ProxyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.kind.label(), self.detail)
    }
}

impl std::error::Error for ProxyError {}

impl Kind {
    /// What the client is told. 499 is only ever logged and counted (NGINX's "client closed request").
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ClientGone => CLIENT_GONE,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::Unavailable | Self::Overloaded | Self::QueueTimeout | Self::Exhausted | Self::ConnectionsFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::ConnectFailed | Self::TlsFailed | Self::Reset | Self::Refused | Self::BadResponse => {
                StatusCode::BAD_GATEWAY
            }
            Self::ConnectTimeout
            | Self::TlsTimeout
            | Self::ResponseTimeout
            | Self::TryTimeout
            | Self::Deadline
            | Self::ReadTimeout
            | Self::MaxDuration => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// What a client of gRPC is told.
    pub fn grpc(self) -> grpc::Status {
        match self {
            Self::Deadline | Self::MaxDuration => grpc::Status::DEADLINE_EXCEEDED,
            Self::BodyTooLarge => grpc::Status::RESOURCE_EXHAUSTED,
            Self::BodyTimeout | Self::ClientGone => grpc::Status::CANCELLED,
            Self::NoRoute => grpc::Status::UNIMPLEMENTED,
            Self::BadRequest | Self::BadResponse => grpc::Status::INTERNAL,
            _ => grpc::Status::UNAVAILABLE,
        }
    }

    /// The word in logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::BodyTooLarge => "body_too_large",
            Self::BodyTimeout => "body_timeout",
            Self::ClientGone => "client_gone",
            Self::NoRoute => "no_route",
            Self::Unavailable => "no_endpoint_available",
            Self::Overloaded => "overloaded",
            Self::QueueTimeout => "queue_timeout",
            Self::Exhausted => "no_descriptors",
            Self::ConnectionsFull => "connections_full",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::TlsFailed => "tls_failed",
            Self::TlsTimeout => "tls_timeout",
            Self::Reset => "endpoint_reset",
            Self::Refused => "refused_stream",
            Self::ResponseTimeout => "response_timeout",
            Self::TryTimeout => "try_timeout",
            Self::Deadline => "deadline",
            Self::ReadTimeout => "read_timeout",
            Self::MaxDuration => "max_duration",
            Self::BadResponse => "bad_response",
        }
    }

    /// How the attempt ended that failed so.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Exhausted => Outcome::Exhausted,
            Self::ConnectionsFull => Outcome::Full,
            Self::ConnectFailed => Outcome::ConnectFailed,
            Self::ConnectTimeout => Outcome::ConnectTimeout,
            Self::TlsFailed => Outcome::TlsFailed,
            Self::TlsTimeout => Outcome::TlsTimeout,
            Self::Reset => Outcome::Reset,
            Self::Refused => Outcome::Refused,
            Self::TryTimeout => Outcome::TryTimeout,
            Self::ResponseTimeout => Outcome::ResponseTimeout,
            Self::Deadline => Outcome::Deadline,
            Self::BadResponse => Outcome::BadResponse,
            _ => Outcome::Cancelled,
        }
    }

    /// What ended a response early whose head had been passed on.
    pub fn cut_by(self) -> Option<CutBy> {
        match self {
            Self::ReadTimeout => Some(CutBy::ReadTimeout),
            Self::Reset => Some(CutBy::Reset),
            Self::BadResponse => Some(CutBy::BadResponse),
            Self::MaxDuration => Some(CutBy::MaxDuration),
            _ => None,
        }
    }

    /// What it is to the rules of retries; `None`: another endpoint would do no better.
    pub fn failure(self) -> Option<Failure> {
        match self {
            Self::ConnectionsFull | Self::ConnectFailed | Self::ConnectTimeout | Self::TlsFailed | Self::TlsTimeout => {
                Some(Failure::Connect)
            }
            Self::Reset => Some(Failure::Reset),
            Self::Refused => Some(Failure::RefusedStream),
            Self::ResponseTimeout | Self::TryTimeout => Some(Failure::Timeout),
            Self::BadResponse => Some(Failure::BadResponse),
            _ => None,
        }
    }
}

/// The client closed the connection before it had its answer.
pub const CLIENT_GONE: StatusCode = match StatusCode::from_u16(499) {
    Ok(status) => status,
    Err(_) => StatusCode::BAD_REQUEST,
};

//! When an attempt that failed may be followed by another: on what, for which methods, how often.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};

use super::backoff::Backoff;
use super::budget::Share;
use super::grpc;

/// `retries = …` as validated.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Attempts beyond the first.
    pub max: u32,
    pub on: On,
    pub methods: Methods,
    /// From an attempt's begin to the response's head.
    pub per_try_timeout: Option<Duration>,
    pub budget: Share,
    pub backoff: Backoff,
    /// Bytes of a request's body that are kept for another attempt.
    pub buffer: usize,
    /// Clients are told in a response field how many attempts were made.
    pub tell: bool,
}

/// What may be repeated though an endpoint may have begun it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Methods {
    /// Those that RFC 9110 section 9.2.2 calls idempotent.
    Idempotent,
    These(Box<[Method]>),
}

impl Methods {
    pub fn has(&self, method: &Method) -> bool {
        match self {
            Self::Idempotent => matches!(
                *method,
                Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE
            ),
            Self::These(methods) => methods.contains(method),
        }
    }
}

/// How an attempt failed that brought no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Failure {
    /// No connection: refused, unreachable, timed out, or TLS failed.
    Connect = 1,
    /// The connection broke before a whole response head.
    Reset = 2,
    /// The endpoint said that it did nothing with the request (RFC 9113 section 8.7).
    RefusedStream = 4,
    /// No response head in time.
    Timeout = 8,
    /// What came was no response.
    BadResponse = 16,
}

impl Failure {
    /// The words in the configuration.
    pub const WORDS: [(&str, Self); 5] = [
        ("connect_failure", Self::Connect),
        ("reset", Self::Reset),
        ("refused_stream", Self::RefusedStream),
        ("timeout", Self::Timeout),
        ("bad_response", Self::BadResponse),
    ];
}

/// What is repeated: failures and statuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct On {
    failures: u8,
    /// A bit for each status from 100 to 599; by far most look-ups end at `any_status`.
    statuses: [u64; 8],
    any_status: bool,
    /// A bit for each status of gRPC.
    grpc: u32,
}

impl On {
    pub const NOTHING: Self = Self {
        failures: 0,
        statuses: [0; 8],
        any_status: false,
        grpc: 0,
    };

    /// Every failure without a response, and no status.
    pub const FAILURES: Self = Self {
        failures: 31,
        ..Self::NOTHING
    };

    pub fn add(&mut self, failure: Failure) {
        self.failures |= failure as u8;
    }

    pub fn add_status(&mut self, status: StatusCode) {
        let at = usize::from(status.as_u16()).saturating_sub(100);
        if let Some(word) = self.statuses.get_mut(at / 64) {
            *word |= 1 << (at % 64);
            self.any_status = true;
        }
    }

    pub fn add_grpc(&mut self, status: grpc::Status) {
        self.grpc |= 1 << status.number();
    }

    pub fn has_grpc(&self, status: grpc::Status) -> bool {
        self.grpc >> status.number() & 1 == 1
    }

    pub fn has(&self, failure: Failure) -> bool {
        self.failures & failure as u8 != 0
    }

    pub fn has_status(&self, status: StatusCode) -> bool {
        let at = usize::from(status.as_u16()).saturating_sub(100);
        self.any_status
            && self
                .statuses
                .get(at / 64)
                .is_some_and(|word| word >> (at % 64) & 1 == 1)
    }
}

/// What `Retry-After` asks for: seconds or a date (RFC 9110 section 10.2.3). `None`: neither.
pub fn retry_after(value: &[u8], now: SystemTime) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // So many seconds that they do not fit are for ever.
        return Some(Duration::from_secs(text.parse().unwrap_or(u32::MAX).into()));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_and_statuses_are_told_apart() {
        let mut on = On::NOTHING;
        assert!(Failure::WORDS.iter().all(|(_, failure)| !on.has(*failure)));
        assert!(Failure::WORDS.iter().all(|(_, failure)| On::FAILURES.has(*failure)));
        on.add(Failure::Timeout);
        assert!(on.has(Failure::Timeout) && !on.has(Failure::Reset));
        for code in [100, 163, 164, 503, 599] {
            let status = StatusCode::from_u16(code).unwrap();
            assert!(!on.has_status(status) && !On::FAILURES.has_status(status));
            on.add_status(status);
            assert!(on.has_status(status));
        }
        assert!(!on.has_grpc(grpc::Status::UNAVAILABLE));
        on.add_grpc(grpc::Status::UNAVAILABLE);
        assert!(on.has_grpc(grpc::Status::UNAVAILABLE));
        assert!(!on.has_grpc(grpc::Status::INTERNAL));
        for code in [101, 162, 165, 200, 502, 504, 600, 611, 612, 999] {
            assert!(!on.has_status(StatusCode::from_u16(code).unwrap()), "{code}");
        }
    }

    #[test]
    fn only_what_does_no_more_when_done_twice() {
        let idempotent = |method: &str| Methods::Idempotent.has(&method.parse().unwrap());
        assert!(["GET", "HEAD", "OPTIONS", "PUT", "DELETE"].into_iter().all(idempotent));
        assert!(!["POST", "PATCH", "LOCK", "get", "FETCH"].into_iter().any(idempotent));
        let these = Methods::These([Method::GET].into());
        assert!(these.has(&Method::GET) && !these.has(&Method::PUT));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let read = |text: &str| retry_after(text.as_bytes(), now).map(|d| d.as_secs());
        assert_eq!(read("0"), Some(0));
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("99999999999999999999"), Some(u64::from(u32::MAX)));
        assert_eq!(read("Wed, 21 Oct 2015 07:28:30 GMT"), Some(30));
        assert_eq!(read("Wed, 21 Oct 2015 07:27:30 GMT"), Some(0));
        for text in ["", "soon", "-1", "1.5", "Wed"] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(retry_after(b"\xff", now), None);
    }
}

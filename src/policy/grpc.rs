//! The statuses of gRPC by number and name.

/// Names by number (gRPC, "Status codes and their use").
const NAMES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalid_argument",
    "deadline_exceeded",
    "not_found",
    "already_exists",
    "permission_denied",
    "resource_exhausted",
    "failed_precondition",
    "aborted",
    "out_of_range",
    "unimplemented",
    "internal",
    "unavailable",
    "data_loss",
    "unauthenticated",
];

/// A status's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Status(u8);

impl Status {
    pub const CANCELLED: Self = Self(1);
    pub const DEADLINE_EXCEEDED: Self = Self(4);
    pub const RESOURCE_EXHAUSTED: Self = Self(8);
    pub const UNIMPLEMENTED: Self = Self(12);
    pub const INTERNAL: Self = Self(13);
    pub const UNAVAILABLE: Self = Self(14);

    /// The one of this name that tells of a failure.
    pub fn of(name: &str) -> Option<Self> {
        let found = NAMES.iter().skip(1).position(|known| *known == name)?;
        u8::try_from(found + 1).ok().map(Self)
    }

    /// The value of `grpc-status`.
    pub fn read(value: &[u8]) -> Option<Self> {
        let number: u8 = std::str::from_utf8(value).ok()?.parse().ok()?;
        (usize::from(number) < NAMES.len()).then_some(Self(number))
    }

    pub fn number(self) -> u8 {
        self.0
    }

    /// The names of failures.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().skip(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree() {
        assert_eq!(Status::of("unavailable"), Some(Status::UNAVAILABLE));
        assert_eq!(Status::of("deadline_exceeded"), Some(Status::DEADLINE_EXCEEDED));
        assert_eq!(Status::of("resource_exhausted"), Some(Status::RESOURCE_EXHAUSTED));
        assert_eq!(Status::of("cancelled"), Some(Status::CANCELLED));
        assert_eq!(Status::of("unimplemented"), Some(Status::UNIMPLEMENTED));
        assert_eq!(Status::of("internal"), Some(Status::INTERNAL));
        assert!(Status::of("ok").is_none() && Status::of("UNAVAILABLE").is_none());
        assert_eq!(Status::read(b"14"), Some(Status::UNAVAILABLE));
        for value in [&b""[..], b"17", b"-1", b"x", b"300", b"\xff"] {
            assert_eq!(Status::read(value), None);
        }
        assert!(Status::names().all(|name| Status::of(name).is_some()));
    }
}

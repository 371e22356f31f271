//! Why something was not done that might have helped: the labels of counters about retries.

/// Why a failed attempt was not followed by another, though its failure is one that is repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// As many as allowed were made.
    Attempts,
    /// The endpoint may have begun it, and done twice it may do more than done once.
    Method,
    /// More of its body was sent than is kept.
    Body,
    /// Too many repetitions are under way.
    Budget,
    /// Its time would be over before.
    Deadline,
    /// Nobody is left who could be asked.
    Endpoint,
}

impl Denied {
    pub const ALL: [Self; 6] = [
        Self::Attempts,
        Self::Method,
        Self::Body,
        Self::Budget,
        Self::Deadline,
        Self::Endpoint,
    ];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Attempts => "attempts",
            Self::Method => "method",
            Self::Body => "body",
            Self::Budget => "budget",
            Self::Deadline => "deadline",
            Self::Endpoint => "endpoint",
        }
    }
}

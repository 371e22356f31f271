//! Why something was not done, or not to its end: labels of counters.

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

/// Why a response ended before its end, after its head had been passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CutBy {
    /// The endpoint paused for longer than `read_timeout`.
    ReadTimeout,
    /// The connection to the endpoint broke.
    Reset,
    /// What came was no body, or less than announced.
    BadResponse,
    /// The route's `max_duration` was over.
    MaxDuration,
}

impl CutBy {
    pub const ALL: [Self; 4] = [Self::ReadTimeout, Self::Reset, Self::BadResponse, Self::MaxDuration];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::ReadTimeout => "read_timeout",
            Self::Reset => "reset",
            Self::BadResponse => "bad_response",
            Self::MaxDuration => "max_duration",
        }
    }
}

/// Why a request or connection was sent away that had waited for room, or would have had to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShedBy {
    /// As many waited as may.
    QueueFull,
    /// Somebody more important took its place.
    Displaced,
    /// Nothing became free in time.
    Timeout,
}

impl ShedBy {
    pub const ALL: [Self; 3] = [Self::QueueFull, Self::Displaced, Self::Timeout];

    /// The value of the metric label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::QueueFull => "queue_full",
            Self::Displaced => "displaced",
            Self::Timeout => "queue_timeout",
        }
    }
}

/// What became of a request of an upstream with sticky sessions that an endpoint has answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stuck {
    /// The client showed no cookie.
    New,
    /// The client's endpoint answered.
    Kept,
    /// The cookie was not written with one of the secrets.
    Invalid,
    /// The cookie's lifetime is over.
    Expired,
    /// The client's endpoint is no longer in the upstream.
    Gone,
    /// The client's endpoint is down, ejected or disabled.
    Unavailable,
    /// The client's endpoint had no room.
    Full,
    /// An attempt at the client's endpoint failed; another one answered.
    Failed,
}

impl Stuck {
    pub const ALL: [Self; 8] = [
        Self::New,
        Self::Kept,
        Self::Invalid,
        Self::Expired,
        Self::Gone,
        Self::Unavailable,
        Self::Full,
        Self::Failed,
    ];

    /// The value of the metric label `result`, and of `sticky` in the access log.
    pub fn label(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Kept => "kept",
            Self::Invalid => "invalid",
            Self::Expired => "expired",
            Self::Gone => "gone",
            Self::Unavailable => "unavailable",
            Self::Full => "full",
            Self::Failed => "failed",
        }
    }
}

/// How a second attempt beside one that took long ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hedged {
    /// It answered first.
    Won,
    /// The first attempt answered first after all, or the second failed.
    Lost,
    /// It was not made: the budget is used up, no other endpoint has room, or the body is not at hand.
    Denied,
}

impl Hedged {
    pub const ALL: [Self; 3] = [Self::Won, Self::Lost, Self::Denied];

    /// The value of the metric label `result`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Won => "won",
            Self::Lost => "lost",
            Self::Denied => "denied",
        }
    }
}

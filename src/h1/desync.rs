//! Which requests another parser might read differently: every deviation, how grave it is, and what each mode does.
//!
//! The four classes are those of AWS's load balancers (`http-desync-guardian`: docs/README.md, "Classification
//! Reasons"); the table is our own. A request is refused, or sent on in one reading: the one that RFC 9112 gives, or the
//! one without the field in question. It is never sent on as it came: `mended.rs` brings its head into that reading,
//! which then has to pass the same strict parser as every other.

use super::decode::BodyError;
use super::framing::FramingError;
use super::head::HeadError;
use super::mended;
use super::request::RequestError;

/// How far a request is from one that everybody reads alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    Compliant,
    /// Against a recommendation, and read alike by everybody.
    Acceptable,
    /// Others may read it differently; one reading is safe.
    Ambiguous,
    /// Malformed, or made to be read in two ways.
    Severe,
}

impl Class {
    pub const ALL: [Self; 4] = [Self::Compliant, Self::Acceptable, Self::Ambiguous, Self::Severe];

    /// The value of the metric label `class`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Compliant => "compliant",
            Self::Acceptable => "acceptable",
            Self::Ambiguous => "ambiguous",
            Self::Severe => "severe",
        }
    }
}

/// What a listener does with requests that are neither compliant nor acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Refuses them.
    #[default]
    Strict,
    /// Passes ambiguous ones in their one reading and closes both connections after the response.
    Defensive,
    /// As `Defensive`, and severe ones that have one reading too.
    Monitor,
}

impl Mode {
    pub fn label(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Defensive => "defensive",
            Self::Monitor => "monitor",
        }
    }
}

/// One way not to be compliant. In the order of [`TABLE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    EmptyLine,
    ZeroLengthGet,
    GetWithContent,
    RepeatedLength,
    BothFramings,
    FoldedField,
    Underscore,
    HostMismatch,
    RepeatedHost,
    BlankBeforeColon,
    DisguisedField,
    MisplacedFold,
    LineBreak,
    FieldName,
    FieldValue,
    StartLine,
    Version,
    Target,
    Host,
    ContentLength,
    TransferEncoding,
    ChunkedInHttp10,
    Chunk,
    Trailer,
}

/// What is known about a reason.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub reason: Reason,
    pub class: Class,
    /// In the access log.
    pub label: &'static str,
    /// There is one reading that is safe to send on.
    pub readable: bool,
    /// Why it is in this class, and what the reading is. RFC numbers are sections of RFC 9112 where no other is named.
    pub why: &'static str,
}

const fn row(reason: Reason, class: Class, label: &'static str, readable: bool, why: &'static str) -> Row {
    Row {
        reason,
        class,
        label,
        readable,
        why,
    }
}

/// Every deviation. What is acceptable passes as it is in every mode; what is ambiguous passes in its one reading, but
/// in `strict`; what is severe passes in `monitor` alone, and only if it has one reading.
#[rustfmt::skip]
pub const TABLE: [Row; 24] = [
    row(Reason::EmptyLine, Class::Acceptable, "empty_line", true,
        "2.2: a server should ignore an empty line before a request; more than one are refused"),
    row(Reason::ZeroLengthGet, Class::Acceptable, "zero_length_get", true,
        "RFC 9110 8.6: user agents should not send it, and it means what its absence means"),
    row(Reason::GetWithContent, Class::Acceptable, "get_with_content", true,
        "RFC 9110 9.3.1: content of GET and HEAD means nothing, but is framed like any other (AWS: ambiguous; refusing \
         it would refuse search interfaces in wide use)"),
    row(Reason::RepeatedLength, Class::Acceptable, "repeated_length", true,
        "6.3: equal lengths may be taken for one; one is sent on (AWS: ambiguous)"),
    row(Reason::BothFramings, Class::Ambiguous, "both_framings", true,
        "6.1: Transfer-Encoding overrides Content-Length, which must not be sent on; the connection must be closed"),
    row(Reason::FoldedField, Class::Ambiguous, "folded_field", true,
        "5.2: a fold is refused or becomes a blank"),
    row(Reason::Underscore, Class::Ambiguous, "underscore", true,
        "a_b and a-b are one variable in CGI and its heirs: the field is left out, as NGINX does"),
    row(Reason::HostMismatch, Class::Ambiguous, "host_mismatch", true,
        "3.2.2: a target in absolute form counts, and Host is replaced by its authority"),
    row(Reason::RepeatedHost, Class::Severe, "repeated_host", true,
        "3.2: several Host fields must be refused; all of them say the same, so one is sent on"),
    row(Reason::BlankBeforeColon, Class::Severe, "blank_before_colon", true,
        "5.1: must be refused in requests, must be removed in responses; it is removed, in fields that frame nothing"),
    row(Reason::DisguisedField, Class::Severe, "disguised_field", false,
        "a field this proxy acts on under a name that some parsers would take for it (AWS: SuspiciousHeader)"),
    row(Reason::MisplacedFold, Class::Severe, "misplaced_fold", false,
        "2.2, 5.2: a fold before the first field, of blanks alone (the end of the head to some), or in a field this \
         proxy acts on"),
    row(Reason::LineBreak, Class::Severe, "line_break", false,
        "2.2: a bare CR or LF ends a line for some and not for others"),
    row(Reason::FieldName, Class::Severe, "field_name", false,
        "5: no token before a colon; a line that is no field may be the next request to others"),
    row(Reason::FieldValue, Class::Severe, "field_value", false,
        "RFC 9110 5.5: NUL and other control characters"),
    row(Reason::StartLine, Class::Severe, "start_line", false,
        "3: lenient parsing of the request line has security implications"),
    row(Reason::Version, Class::Severe, "version", false,
        "2.3: how another version frames its messages is not known"),
    row(Reason::Target, Class::Severe, "target", false,
        "3.2: no request-target"),
    row(Reason::Host, Class::Severe, "host", false,
        "3.2: no Host, one that is no authority, or several that differ"),
    row(Reason::ContentLength, Class::Severe, "content_length", false,
        "6.3: an invalid length, or lengths that differ, are an unrecoverable error"),
    row(Reason::TransferEncoding, Class::Severe, "transfer_encoding", false,
        "6.1, 6.3: the end of a body whose coding is not exactly `chunked` is not known"),
    row(Reason::ChunkedInHttp10, Class::Severe, "chunked_in_http10", false,
        "6.1: framing is faulty"),
    row(Reason::Chunk, Class::Severe, "chunk", false,
        "7.1: a chunk's size or end is invalid; what was sent on of the body stays incomplete"),
    row(Reason::Trailer, Class::Severe, "trailer", false,
        "7.1.2: a trailer section that is no list of fields"),
];

impl Reason {
    pub fn row(self) -> &'static Row {
        // One row for each, in their order (tested).
        &TABLE[self as usize]
    }

    pub fn class(self) -> Class {
        self.row().class
    }

    /// The value of `desync_reason` in the access log.
    pub fn label(self) -> &'static str {
        self.row().label
    }

    /// Whether a request with this deviation is sent on.
    pub fn passes(self, mode: Mode) -> bool {
        let row = self.row();
        row.readable
            && match row.class {
                Class::Compliant | Class::Acceptable => true,
                Class::Ambiguous => mode != Mode::Strict,
                Class::Severe => mode == Mode::Monitor,
            }
    }

    /// Both connections close after the response: what follows on them might be read in two ways.
    pub fn closes(self) -> bool {
        self.class() >= Class::Ambiguous
    }

    /// The graver of two; the first of equals.
    pub fn graver(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        let class = |reason: Option<Self>| reason.map(Self::class);
        if class(other) > class(one) { other } else { one }
    }

    /// What an error of the strict parser means. `head`: what it was found in, lines ending in CRLF; empty if it
    /// was found before. `None`: a limit, or a wish that is not granted: nothing about how the request is read.
    #[cold]
    pub(super) fn of(error: RequestError, head: &[u8]) -> Option<Self> {
        Some(match error {
            RequestError::Head(HeadError::BareLineBreak) => Self::LineBreak,
            RequestError::Head(HeadError::FieldName) => mended::name_fault(head),
            RequestError::Head(HeadError::FieldValue) => Self::FieldValue,
            RequestError::Head(HeadError::StartLine) => Self::StartLine,
            RequestError::Head(HeadError::Version) | RequestError::Version => Self::Version,
            RequestError::Framing(FramingError::Both) => Self::BothFramings,
            RequestError::Framing(FramingError::ContentLength) => Self::ContentLength,
            RequestError::Framing(FramingError::TransferEncoding | FramingError::UnknownCoding) => {
                Self::TransferEncoding
            }
            RequestError::ChunkedInHttp10 => Self::ChunkedInHttp10,
            RequestError::Target => Self::Target,
            RequestError::Host if mended::repeats_host(head) => Self::RepeatedHost,
            RequestError::Host => Self::Host,
            RequestError::HostMismatch => Self::HostMismatch,
            RequestError::Head(HeadError::TooLarge | HeadError::TooManyFields)
            | RequestError::TargetTooLong
            | RequestError::Method
            | RequestError::Expectation => return None,
        })
    }

    /// The same for a body.
    pub fn of_body(error: BodyError) -> Option<Self> {
        match error {
            BodyError::ChunkSize | BodyError::ChunkEnd => Some(Self::Chunk),
            BodyError::Trailer => Some(Self::Trailer),
            BodyError::TooLarge | BodyError::Truncated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_row_and_a_label_of_its_own() {
        for (at, row) in TABLE.iter().enumerate() {
            assert_eq!(row.reason as usize, at);
            assert!(!row.why.is_empty());
            assert_eq!(TABLE.iter().filter(|other| other.label == row.label).count(), 1);
        }
    }

    #[test]
    fn modes_pass_more_and_more() {
        for row in &TABLE {
            let passes = [Mode::Strict, Mode::Defensive, Mode::Monitor].map(|mode| row.reason.passes(mode));
            let expected = match (row.class, row.readable) {
                (Class::Compliant | Class::Acceptable, _) => [true, true, true],
                (Class::Ambiguous, _) => [false, true, true],
                (Class::Severe, readable) => [false, false, readable],
            };
            assert_eq!(passes, expected, "{row:?}");
            // Without a reading it is severe: that is what the word means.
            assert!(row.readable || row.class == Class::Severe, "{row:?}");
        }
    }

    #[test]
    fn the_graver_counts() {
        let (one, other) = (Some(Reason::EmptyLine), Some(Reason::Underscore));
        assert_eq!(Reason::graver(one, other), other);
        assert_eq!(Reason::graver(other, one), other);
        assert_eq!(Reason::graver(other, Some(Reason::FoldedField)), other);
        assert_eq!(Reason::graver(None, one), one);
        assert_eq!(Reason::graver(one, None), one);
    }
}

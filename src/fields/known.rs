//! The fields this proxy acts on by itself, as numbers: recognised once, when a message is read, and then found
//! and passed over without comparing text.

/// A field this proxy acts on. Everything else is [`Known::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    Other,
    Te,
    Via,
    Date,
    Host,
    Cookie,
    Expect,
    Upgrade,
    Location,
    Forwarded,
    XRealIp,
    Connection,
    KeepAlive,
    UserAgent,
    Authorization,
    ContentLength,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    ProxyConnection,
    TransferEncoding,
    XForwardedProto,
    ProxyAuthenticate,
    ProxyAuthorization,
    Age,
    Etag,
    Vary,
    Range,
    Pragma,
    Expires,
    IfRange,
    SetCookie,
    CacheControl,
    IfNoneMatch,
    LastModified,
    ContentRange,
    AcceptEncoding,
    ContentLocation,
    IfModifiedSince,
    IfMatch,
    IfUnmodifiedSince,
    GrpcTimeout,
}

/// Names by length, in lower case: a name is compared with one or two of them at most.
const BY_LENGTH: [&[(&str, Known)]; 20] = [
    &[],
    &[],
    &[("te", Known::Te)],
    &[("via", Known::Via), ("age", Known::Age)],
    &[
        ("host", Known::Host),
        ("date", Known::Date),
        ("etag", Known::Etag),
        ("vary", Known::Vary),
    ],
    &[("range", Known::Range)],
    &[
        ("cookie", Known::Cookie),
        ("expect", Known::Expect),
        ("pragma", Known::Pragma),
    ],
    &[("upgrade", Known::Upgrade), ("expires", Known::Expires)],
    &[
        ("location", Known::Location),
        ("if-range", Known::IfRange),
        ("if-match", Known::IfMatch),
    ],
    &[("forwarded", Known::Forwarded), ("x-real-ip", Known::XRealIp)],
    &[
        ("connection", Known::Connection),
        ("user-agent", Known::UserAgent),
        ("keep-alive", Known::KeepAlive),
        ("set-cookie", Known::SetCookie),
    ],
    &[],
    &[("grpc-timeout", Known::GrpcTimeout)],
    &[
        ("authorization", Known::Authorization),
        ("cache-control", Known::CacheControl),
        ("if-none-match", Known::IfNoneMatch),
        ("last-modified", Known::LastModified),
        ("content-range", Known::ContentRange),
    ],
    &[("content-length", Known::ContentLength)],
    &[
        ("accept-encoding", Known::AcceptEncoding),
        ("x-forwarded-for", Known::XForwardedFor),
    ],
    &[
        ("x-forwarded-host", Known::XForwardedHost),
        ("x-forwarded-port", Known::XForwardedPort),
        ("proxy-connection", Known::ProxyConnection),
        ("content-location", Known::ContentLocation),
    ],
    &[
        ("transfer-encoding", Known::TransferEncoding),
        ("x-forwarded-proto", Known::XForwardedProto),
        ("if-modified-since", Known::IfModifiedSince),
    ],
    &[("proxy-authenticate", Known::ProxyAuthenticate)],
    &[
        ("proxy-authorization", Known::ProxyAuthorization),
        ("if-unmodified-since", Known::IfUnmodifiedSince),
    ],
];

impl Known {
    /// Which one `name` is, in whatever case.
    pub fn of(name: &[u8]) -> Self {
        let Some(candidates) = BY_LENGTH.get(name.len()) else {
            return Self::Other;
        };
        for (known, field) in *candidates {
            if is(name, known.as_bytes()) {
                return *field;
            }
        }
        Self::Other
    }

    /// Its name in lower case; empty for [`Known::Other`].
    pub fn name(self) -> &'static str {
        let all = BY_LENGTH.iter().flat_map(|group| group.iter());
        let mut found = all.filter(|(_, known)| *known == self);
        found.next().map_or("", |(name, _)| name)
    }

    pub(super) const fn bit(self) -> u64 {
        1 << self as u8
    }
}

/// Whether `name` is `known`, which is in lower case and as long. Most are told apart by their first byte, the rest is
/// compared a word at a time.
fn is(name: &[u8], known: &[u8]) -> bool {
    const LOWER: u64 = u64::from_ne_bytes([0x20; 8]);
    if name.first().map(|b| b | 0x20) != known.first().copied() {
        return false;
    }
    let (names, name_rest) = name.as_chunks::<8>();
    let (knowns, known_rest) = known.as_chunks::<8>();
    // The bit makes letters lower case and leaves `-` and digits. What else it would make a letter or `-` of (control
    // characters, `@` and the like) stands in no name.
    let words = names
        .iter()
        .zip(knowns)
        .all(|(a, b)| u64::from_ne_bytes(*a) | LOWER == u64::from_ne_bytes(*b) | LOWER);
    words && name_rest.eq_ignore_ascii_case(known_rest)
}

/// Some of the known fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set(pub(super) u64);

impl Set {
    pub const fn of(fields: &[Known]) -> Self {
        let mut bits = 0;
        let mut i = 0;
        while i < fields.len() {
            bits |= fields[i].bit();
            i += 1;
        }
        Self(bits)
    }

    pub const fn has(self, known: Known) -> bool {
        self.0 & known.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_stands_where_its_length_says() {
        for (length, group) in BY_LENGTH.iter().enumerate() {
            for (name, known) in *group {
                assert_eq!(name.len(), length, "{name}");
                assert_eq!(known.name(), *name);
                assert_eq!(Known::of(name.as_bytes()), *known);
                assert_eq!(Known::of(name.to_ascii_uppercase().as_bytes()), *known);
            }
        }
        for other in [
            "",
            "x",
            "hosts",
            "content_length",
            "x-forwarded-fox",
            "a-very-long-name-of-a-field",
        ] {
            assert_eq!(Known::of(other.as_bytes()), Known::Other, "{other}");
        }
    }

    #[test]
    fn sets_hold_what_they_were_made_of() {
        let set = Set::of(&[Known::Host, Known::Via]);
        assert!(set.has(Known::Host) && set.has(Known::Via) && !set.has(Known::Te) && !set.has(Known::Other));
    }
}

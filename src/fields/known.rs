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

/// Names by length, in lower case.
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

/// The longest of these names, in words of eight bytes.
const WORDS: usize = 3;
/// Places for the names: at most one name stands in each.
const PLACES: usize = 128;

/// A name to compare with: its words, and which of their bits count. For letters the one that tells upper from lower case
/// does not.
#[derive(Clone, Copy)]
struct Entry {
    words: [u64; WORDS],
    counts: [u64; WORDS],
    len: usize,
    known: Known,
}

/// What the places are computed with, found at compile time so that no two names share one.
const FACTOR: usize = {
    let mut factor = 1;
    while !fits(factor) {
        factor += 1;
    }
    factor
};

/// All names by their place.
static TABLE: [Entry; PLACES] = {
    let none = Entry {
        words: [0; WORDS],
        counts: [0; WORDS],
        len: 0,
        known: Known::Other,
    };
    let mut table = [none; PLACES];
    let mut len = 2;
    while len < BY_LENGTH.len() {
        let mut i = 0;
        while i < BY_LENGTH[len].len() {
            let (name, known) = BY_LENGTH[len][i];
            table[place(name.as_bytes(), len, FACTOR)] = entry(name.as_bytes(), known);
            i += 1;
        }
        len += 1;
    }
    table
};

const fn fits(factor: usize) -> bool {
    let mut taken = [false; PLACES];
    let mut len = 2;
    while len < BY_LENGTH.len() {
        let mut i = 0;
        while i < BY_LENGTH[len].len() {
            let place = place(BY_LENGTH[len][i].0.as_bytes(), len, factor);
            if taken[place] {
                return false;
            }
            taken[place] = true;
            i += 1;
        }
        len += 1;
    }
    true
}

/// The place of the name of this length at the front of `text`, whatever its case: by its length, its first letter and its
/// last but one. It has two at least.
const fn place(text: &[u8], len: usize, factor: usize) -> usize {
    let (first, last) = (text[0] & 0x1f, text[len - 2] & 0x1f);
    (len + first as usize * factor + last as usize) % PLACES
}

const fn entry(name: &[u8], known: Known) -> Entry {
    let (mut words, mut counts) = ([0; WORDS], [0; WORDS]);
    let mut i = 0;
    while i < name.len() {
        let shift = i % 8 * 8;
        words[i / 8] |= (name[i] as u64) << shift;
        let all = if name[i].is_ascii_lowercase() { 0xdf } else { 0xff };
        counts[i / 8] |= all << shift;
        i += 1;
    }
    Entry {
        words,
        counts,
        len: name.len(),
        known,
    }
}

impl Known {
    /// Which one `name` is, in whatever case.
    pub fn of(name: &[u8]) -> Self {
        let mut room = [0; 8 * WORDS];
        match room.get_mut(..name.len()) {
            Some(front) => front.copy_from_slice(name),
            None => return Self::Other,
        }
        Self::at(&room, name.len()).unwrap_or(Self::Other)
    }

    /// Which one the first `len` bytes of `text` are; `None`: too few bytes follow them to tell this way.
    #[inline(always)]
    pub fn at(text: &[u8], len: usize) -> Option<Self> {
        let room = text.first_chunk::<{ 8 * WORDS }>()?;
        if len < 2 || len > room.len() {
            return Some(Self::Other);
        }
        let entry = &TABLE[place(room, len, FACTOR)];
        let (words, _) = room.as_chunks::<8>();
        let mut differs = (entry.len ^ len) as u64;
        for ((word, known), counts) in words.iter().zip(entry.words).zip(entry.counts) {
            differs |= (u64::from_le_bytes(*word) ^ known) & counts;
        }
        Some(if differs == 0 { entry.known } else { Self::Other })
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

    /// Those of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
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

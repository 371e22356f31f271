//! Why a response was or was not stored, or served: one list, told in Cache-Status (RFC 9211) and to whoever explains.

/// One reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    // The request keeps it out of the cache.
    Method,
    RequestBody,
    RequestNoStore,
    /// A field that makes some applications answer another resource, and that is in no key.
    RequestOverride,
    KeyTooLong,
    /// The content of a request that may be cached by it is of another kind, larger, or not proven to ask only.
    ContentType,
    ContentTooLarge,
    NotQuery,
    /// What was learnt from the last answer: waiting for another would be in vain.
    HitForMiss,

    // The response may not be stored (RFC 9111 section 3).
    NoStore,
    Private,
    Authorization,
    SetCookie,
    Status,
    NotUnderstood,
    NotExplicit,
    /// Neither fresh for any time nor anything to validate it by.
    NoLifetime,
    VaryStar,
    VaryTooMany,
    HeadTooLarge,
    TooLarge,
    /// Bodies under way take all the room there is for them.
    NoRoom,
    PartUnusable,
    /// It was purged while it was on its way.
    Purged,

    // A stored one may not be used as it is (section 4).
    Stale,
    NoCache,
    RequestNoCache,
    RequestMaxAge,
    RequestMinFresh,

    // A stale one is served all the same.
    MaxStale,
    WhileRevalidate,
    IfError,

    /// A fresh one is served, and renewed before it is stale.
    Ahead,

    OnlyIfCached,
}

impl Reason {
    pub const ALL: [Self; 34] = [
        Self::Method,
        Self::RequestBody,
        Self::RequestNoStore,
        Self::RequestOverride,
        Self::KeyTooLong,
        Self::ContentType,
        Self::ContentTooLarge,
        Self::NotQuery,
        Self::HitForMiss,
        Self::NoStore,
        Self::Private,
        Self::Authorization,
        Self::SetCookie,
        Self::Status,
        Self::NotUnderstood,
        Self::NotExplicit,
        Self::NoLifetime,
        Self::VaryStar,
        Self::VaryTooMany,
        Self::HeadTooLarge,
        Self::TooLarge,
        Self::NoRoom,
        Self::PartUnusable,
        Self::Purged,
        Self::Stale,
        Self::NoCache,
        Self::RequestNoCache,
        Self::RequestMaxAge,
        Self::RequestMinFresh,
        Self::MaxStale,
        Self::WhileRevalidate,
        Self::IfError,
        Self::Ahead,
        Self::OnlyIfCached,
    ];

    /// The token in `detail`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::RequestBody => "request-body",
            Self::RequestNoStore => "request-no-store",
            Self::RequestOverride => "request-override-field",
            Self::KeyTooLong => "key-too-long",
            Self::ContentType => "content-type",
            Self::ContentTooLarge => "content-too-large",
            Self::NotQuery => "not-a-query",
            Self::HitForMiss => "hit-for-miss",
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorization => "authorization",
            Self::SetCookie => "set-cookie",
            Self::Status => "status",
            Self::NotUnderstood => "status-not-understood",
            Self::NotExplicit => "no-explicit-freshness",
            Self::NoLifetime => "no-lifetime",
            Self::VaryStar => "vary-star",
            Self::VaryTooMany => "vary-too-many",
            Self::HeadTooLarge => "head-too-large",
            Self::TooLarge => "too-large",
            Self::NoRoom => "no-room",
            Self::PartUnusable => "part-unusable",
            Self::Purged => "purged",
            Self::Stale => "stale",
            Self::NoCache => "no-cache",
            Self::RequestNoCache => "request-no-cache",
            Self::RequestMaxAge => "request-max-age",
            Self::RequestMinFresh => "request-min-fresh",
            Self::MaxStale => "max-stale",
            Self::WhileRevalidate => "stale-while-revalidate",
            Self::IfError => "stale-if-error",
            Self::Ahead => "refresh-ahead",
            Self::OnlyIfCached => "only-if-cached",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_is_explained_and_nothing_else_is() {
        let counted = Reason::ALL.iter().enumerate().all(|(n, reason)| *reason as usize == n);
        assert!(counted && Reason::ALL.len() == Reason::OnlyIfCached as usize + 1);
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/caching.md");
        let page = std::fs::read_to_string(page).unwrap();
        let table = page
            .split("\n| `detail` | because |\n")
            .nth(1)
            .expect("a table of reasons");
        let rows = table.lines().take_while(|line| line.starts_with('|')).skip(1);
        let cells = rows.map(|row| row.split('|').nth(1).unwrap());
        let words: Vec<_> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        let explained: BTreeSet<_> = words.iter().copied().collect();
        let there_are: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.label()).collect();
        assert_eq!(explained, there_are);
        assert_eq!(words.len(), Reason::ALL.len(), "each once: {words:?}");
    }
}

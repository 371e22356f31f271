//! What was purged, as the entries on a disk have to know: they outlive the process that was told.

use std::collections::HashMap;

use crate::cache::key::primary_of;
use crate::cache::tags::Fate;
use crate::cache::tier::Purge;

/// Groups and URLs that are remembered; more, and what was asked for before the older half of their purges is forgotten.
const MAX: usize = 1 << 16;
/// Prefixes, for each is looked at for every entry that is read.
const MAX_PREFIXES: usize = 1024;
/// Bytes of a name; no key and no group has a longer one.
pub const MAX_NAME: usize = 12 * 1024;

/// When something was purged last.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Entries with a lower stamp are gone.
    pub hard: u64,
    /// Entries with a lower stamp are stale since.
    pub soft: u64,
    /// Milliseconds since 1970.
    pub soft_at: i64,
}

type Marks = HashMap<Box<[u8]>, Mark>;

/// Everything that is remembered.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Purges {
    all: Mark,
    tags: Marks,
    urls: Marks,
    prefixes: Marks,
    /// Times that a mark was given up because nothing is left that it means.
    done: u64,
}

impl Mark {
    fn note(&mut self, soft: bool, stamp: u64, at: i64) {
        if soft {
            (self.soft, self.soft_at) = (self.soft.max(stamp), self.soft_at.max(at));
        } else {
            self.hard = self.hard.max(stamp);
        }
    }

    fn fate(&self, stamp: u64) -> Fate {
        if stamp < self.hard {
            Fate::Gone
        } else if stamp < self.soft {
            Fate::Expired(self.soft_at)
        } else {
            Fate::Untouched
        }
    }

    fn newest(&self) -> u64 {
        self.hard.max(self.soft)
    }
}

impl Purges {
    /// `at`: milliseconds since 1970.
    pub fn note(&mut self, purge: &Purge, soft: bool, stamp: u64, at: i64) {
        let (marks, most, name) = match purge {
            Purge::All => return self.all.note(soft, stamp, at),
            Purge::Tag(name) => (&mut self.tags, MAX, name),
            Purge::Url(name) => (&mut self.urls, MAX, name),
            Purge::Prefix(name) => (&mut self.prefixes, MAX_PREFIXES, name),
        };
        if name.len() > MAX_NAME {
            return;
        }
        if let Some(mark) = marks.get_mut(name) {
            return mark.note(soft, stamp, at);
        }
        if marks.len() >= most {
            self.all.hard = self.all.hard.max(halve(marks));
        }
        marks.entry(name.clone()).or_default().note(soft, stamp, at);
    }

    /// No file of a URL is left that a purge with this stamp means.
    pub fn done(&mut self, url: &[u8], stamp: u64) {
        if let Some(mark) = self.urls.get_mut(url)
            && mark.hard <= stamp
        {
            mark.hard = 0;
            self.done += 1;
            if mark.soft == 0 {
                self.urls.remove(url);
            }
        }
    }

    /// Changes when a mark is given up: who read a file meanwhile cannot tell by the marks whether it was meant.
    pub fn times_done(&self) -> u64 {
        self.done
    }

    /// URLs of which there may be files, and up to which stamp they are meant.
    pub fn undone(&self) -> Vec<(Box<[u8]>, u64)> {
        let hard = self.urls.iter().filter(|(_, mark)| mark.hard > 0);
        hard.map(|(url, mark)| (url.clone(), mark.hard)).collect()
    }

    /// What became of an entry that was asked for at this stamp.
    pub fn fate<'a>(&self, key: &[u8], tags: impl Iterator<Item = &'a [u8]>, stamp: u64) -> Fate {
        let url = self.urls.get(primary_of(key));
        let tags = tags.filter_map(|name| self.tags.get(name));
        let prefixes = self.prefixes.iter().filter(|(prefix, _)| key.starts_with(prefix));
        let marks = [&self.all].into_iter().chain(url).chain(tags);
        let mut fate = Fate::Untouched;
        for mark in marks.chain(prefixes.map(|(_, mark)| mark)) {
            match (mark.fate(stamp), fate) {
                (Fate::Untouched, _) => {}
                (Fate::Gone, _) => return Fate::Gone,
                // The first of two counts: it was stale from then on.
                (Fate::Expired(at), Fate::Expired(before)) => fate = Fate::Expired(at.min(before)),
                (expired, _) => fate = expired,
            }
        }
        fate
    }

    /// Each mark, with what it is of.
    pub fn each(&self, mut f: impl FnMut(&Purge, Mark)) {
        f(&Purge::All, self.all);
        for (marks, of) in [
            (&self.tags, Purge::Tag as fn(Box<[u8]>) -> Purge),
            (&self.urls, Purge::Url),
            (&self.prefixes, Purge::Prefix),
        ] {
            marks.iter().for_each(|(name, mark)| f(&of(name.clone()), *mark));
        }
    }
}

/// Lets go of the older half; what was asked for before the newest of these has to go with it.
fn halve(marks: &mut Marks) -> u64 {
    let mut stamps: Vec<u64> = marks.values().map(Mark::newest).collect();
    stamps.sort_unstable();
    let floor = stamps.get(stamps.len() / 2).copied().unwrap_or_default();
    marks.retain(|_, mark| mark.newest() > floor);
    floor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fate(purges: &Purges, key: &str, tags: &[&str], stamp: u64) -> Fate {
        purges.fate(key.as_bytes(), tags.iter().map(|tag| tag.as_bytes()), stamp)
    }

    #[test]
    fn purges_mean_what_was_asked_for_before() {
        let mut purges = Purges::default();
        purges.note(&Purge::Tag((*b"t").into()), false, 5, 50);
        purges.note(&Purge::Url((*b"http://a/x").into()), true, 6, 60);
        purges.note(&Purge::Prefix((*b"http://a/p").into()), true, 7, 70);
        for (key, tags, stamp, expected) in [
            ("http://a/", &["t"][..], 4, Fate::Gone),
            ("http://a/", &["t"], 5, Fate::Untouched),
            ("http://a/", &["u"], 4, Fate::Untouched),
            ("http://a/x", &[], 5, Fate::Expired(60)),
            ("http://a/x\n12345678\nde", &[], 5, Fate::Expired(60)),
            ("http://a/xy", &[], 5, Fate::Untouched),
            ("http://a/pq", &[], 6, Fate::Expired(70)),
            ("http://a/pq", &["t"], 3, Fate::Gone),
            ("http://a/x", &[], 6, Fate::Untouched),
        ] {
            assert_eq!(fate(&purges, key, tags, stamp), expected, "{key} {tags:?} {stamp}");
        }
        purges.note(&Purge::All, true, 4, 40);
        assert_eq!(fate(&purges, "http://a/x", &[], 3), Fate::Expired(40));
        assert_eq!(fate(&purges, "http://b/", &[], 4), Fate::Untouched);
    }

    #[test]
    fn urls_are_remembered_until_their_files_are_gone() {
        let mut purges = Purges::default();
        let url = Purge::Url((*b"u").into());
        purges.note(&url, false, 5, 0);
        assert_eq!(purges.undone(), [((*b"u").into(), 5)]);
        purges.done(b"u", 4);
        assert_eq!(fate(&purges, "u", &[], 4), Fate::Gone);
        purges.done(b"u", 5);
        assert_eq!(purges.times_done(), 1);
        assert_eq!(purges.undone(), []);
        assert_eq!(fate(&purges, "u", &[], 4), Fate::Untouched);
        purges.note(&url, true, 6, 9);
        purges.note(&url, false, 7, 9);
        purges.done(b"u", 7);
        assert_eq!(fate(&purges, "u", &[], 5), Fate::Expired(9));
    }

    #[test]
    fn they_are_bounded_and_what_is_forgotten_is_purged_for_good() {
        let mut purges = Purges::default();
        for n in 1..=200_000u64 {
            purges.note(&Purge::Tag(n.to_be_bytes().into()), n % 2 == 0, n, 0);
            purges.note(&Purge::Prefix(n.to_be_bytes().into()), false, n, 0);
        }
        let mut count = 0;
        purges.each(|_, _| count += 1);
        assert!(count <= MAX + MAX_PREFIXES + 1, "{count}");
        for n in [1u64, 100_000, 199_990] {
            let tag = n.to_be_bytes();
            assert_ne!(purges.fate(b"k", [&tag[..]].into_iter(), n - 1), Fate::Untouched, "{n}");
        }
        assert_eq!(purges.fate(b"k", std::iter::empty(), 200_000), Fate::Untouched);
        purges.note(&Purge::Prefix(vec![0; MAX_NAME + 1].into()), false, 300_000, 0);
        assert_eq!(
            purges.fate(&[0; MAX_NAME + 2], std::iter::empty(), 250_000),
            Fate::Untouched
        );
    }
}

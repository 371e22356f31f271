//! Purges on the disk: a file that is appended to before a purge is acknowledged, and written anew at each start.
//!
//! It also numbers the runs of the process that used the folder, from which purges get stamps that are higher than all
//! before. Without it, or where a byte of it is wrong, nothing is known of what was purged: everything has to go.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::purges::{MAX_NAME, Mark, Purges};
use crate::base::hash::stable;
use crate::cache::tier::Purge;

const MAGIC: [u8; 8] = *b"evkpur\0\x01";
const HEAD: usize = 32;
/// Bytes of a record beside its name.
const RECORD: usize = 28;
/// It is written anew when it has grown to twice of what it was, and by this much.
const SLACK: u64 = 1 << 20;

/// The file, open for more.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: File,
    run: u64,
    /// Of all that decides whether what is stored may be used.
    pub settings: u64,
    size: u64,
    /// Bytes when it was last written as a whole.
    compact: u64,
}

/// What a file tells.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub run: u64,
    pub settings: u64,
    pub purges: Purges,
}

/// The stamp at which a run begins.
pub fn first_stamp(run: u64) -> u64 {
    run << 32
}

/// Reads the file at `path`. `None`: there is none, or it cannot be believed.
pub fn read(path: &Path) -> io::Result<Option<Told>> {
    match std::fs::read(path) {
        Ok(text) => Ok(parse(&text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn parse(text: &[u8]) -> Option<Told> {
    let (head, mut rest) = text.split_at_checked(HEAD)?;
    let (told, sum) = head.split_at_checked(HEAD - 8)?;
    let number = |bytes: &[u8]| Some(u64::from_le_bytes(bytes.try_into().ok()?));
    if !told.starts_with(&MAGIC) || stable(told) != number(sum)? {
        return None;
    }
    let mut found = Told {
        run: number(told.get(8..16)?)?,
        settings: number(told.get(16..24)?)?,
        purges: Purges::default(),
    };
    while !rest.is_empty() {
        let length = usize::from(u16::from_le_bytes(rest.get(18..20)?.try_into().ok()?));
        let (record, later) = rest.split_at_checked(RECORD + length)?;
        let (told, sum) = record.split_at_checked(RECORD - 8 + length)?;
        if stable(told) != number(sum)? {
            return None;
        }
        let name = || Box::from(told.get(20..).unwrap_or_default());
        let purge = match told.first()? {
            0 => Purge::All,
            1 => Purge::Tag(name()),
            2 => Purge::Prefix(name()),
            3 => Purge::Url(name()),
            _ => return None,
        };
        let (stamp, at) = (number(told.get(2..10)?)?, number(told.get(10..18)?)?);
        found.purges.note(&purge, told.get(1)? == &1, stamp, at as i64);
        rest = later;
    }
    Some(found)
}

fn head(run: u64, settings: u64) -> Vec<u8> {
    let mut text = [&MAGIC[..], &run.to_le_bytes(), &settings.to_le_bytes()].concat();
    text.extend_from_slice(&stable(&text).to_le_bytes());
    text
}

fn record(out: &mut Vec<u8>, purge: &Purge, soft: bool, stamp: u64, at: i64) {
    let (kind, name) = match purge {
        Purge::All => (0, &[][..]),
        Purge::Tag(name) => (1, &**name),
        Purge::Prefix(name) => (2, &**name),
        Purge::Url(name) => (3, &**name),
    };
    // What is longer means nothing (Purges::note).
    let Some(length) = u16::try_from(name.len()).ok().filter(|_| name.len() <= MAX_NAME) else {
        return;
    };
    let from = out.len();
    out.extend_from_slice(&[kind, u8::from(soft)]);
    out.extend_from_slice(&stamp.to_le_bytes());
    out.extend_from_slice(&at.to_le_bytes());
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(name);
    let sum = stable(out.get(from..).unwrap_or_default());
    out.extend_from_slice(&sum.to_le_bytes());
}

impl Journal {
    /// Begins a run: it is on the disk before anything is stamped with it.
    pub fn begin(path: PathBuf, run: u64, settings: u64, purges: &Purges) -> io::Result<Self> {
        let (file, size) = write(&path, &whole(run, settings, purges))?;
        Ok(Self {
            path,
            file,
            run,
            settings,
            size,
            compact: size,
        })
    }

    /// All of it, as [`Self::rewrite`] writes it.
    pub fn whole(&self, purges: &Purges) -> Vec<u8> {
        whole(self.run, self.settings, purges)
    }

    pub fn rewrite(&mut self, text: &[u8]) -> io::Result<()> {
        let (file, size) = write(&self.path, text)?;
        (self.file, self.size, self.compact) = (file, size, size);
        Ok(())
    }

    /// One purge more: it survives whatever follows.
    pub fn append(&mut self, purge: &Purge, soft: bool, stamp: u64, at: i64) -> io::Result<()> {
        let mut text = Vec::new();
        record(&mut text, purge, soft, stamp, at);
        self.file.write_all(&text)?;
        self.file.sync_data()?;
        self.size += text.len() as u64;
        Ok(())
    }

    pub fn is_long(&self) -> bool {
        self.size > 2 * self.compact + SLACK
    }
}

fn whole(run: u64, settings: u64, purges: &Purges) -> Vec<u8> {
    let mut text = head(run, settings);
    purges.each(|purge, mark: Mark| {
        if mark.hard > 0 {
            record(&mut text, purge, false, mark.hard, 0);
        }
        if mark.soft > 0 {
            record(&mut text, purge, true, mark.soft, mark.soft_at);
        }
    });
    text
}

/// Beside the old one, which stands until the new one is whole.
fn write(path: &Path, text: &[u8]) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    Ok((file, text.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::tags::Fate;

    #[test]
    fn what_was_noted_is_read_and_each_byte_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("purges");
        assert_eq!(read(&path).unwrap(), None);
        let mut journal = Journal::begin(path.clone(), 3, 77, &Purges::default()).unwrap();
        let mut purges = Purges::default();
        for (purge, soft) in [
            (Purge::All, true),
            (Purge::Tag((*b"tag").into()), false),
            (Purge::Tag((*b"tag").into()), true),
            (Purge::Prefix((*b"http://a/").into()), false),
            (Purge::Url((*b"http://a/b").into()), true),
        ] {
            let stamp = first_stamp(3) + 5;
            journal.append(&purge, soft, stamp, 1234).unwrap();
            purges.note(&purge, soft, stamp, 1234);
        }
        journal
            .append(&Purge::Prefix(vec![b'x'; 100_000].into()), false, 1, 1)
            .unwrap();
        let told = |purges| {
            Some(Told {
                run: 3,
                settings: 77,
                purges,
            })
        };
        let found = read(&path).unwrap().unwrap();
        assert_eq!(found.purges.fate(b"http://a/b", std::iter::empty(), 1), Fate::Gone);
        assert_eq!(Some(found), told(purges));
        let text = std::fs::read(&path).unwrap();
        for at in 0..text.len() {
            let mut wrong = text.clone();
            wrong[at] ^= 0x20;
            assert_eq!(parse(&wrong), None, "byte {at}");
        }
        let wholes = (0..text.len()).filter(|n| parse(&text[..*n]).is_some()).count();
        assert_eq!(wholes, 5, "it ends between records only");
        let purges = parse(&text).unwrap().purges;
        let text = journal.whole(&purges);
        journal.rewrite(&text).unwrap();
        journal.append(&Purge::All, false, 9, 9).unwrap();
        let again = read(&path).unwrap().unwrap();
        let mut expected = purges;
        expected.note(&Purge::All, false, 9, 9);
        assert_eq!(Some(again), told(expected));
    }
}

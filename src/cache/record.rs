//! A stored response as bytes, for what keeps it behind memory: a file, or a server that several share. Times are
//! milliseconds since 1970, so that it means the same after a restart and on another machine.
//!
//! ```text
//! magic and version   8    "evkrec" and two bytes
//! length of the head  4
//! length of the body  8
//! checksum            8    of these three and the head (XXH3)
//! head                     what it is, its key, its fields, and a checksum for each 64 KiB of the body
//! body
//! ```
//!
//! Numbers are little-endian. What reads it believes nothing: every length is bounded, every byte is covered by a
//! checksum, nothing may be left over, and the key must be the one that was asked for.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderName;

use super::entry::{Body, Entry, Meta};
use super::freshness::{FLAGS, Freshness};
use super::head::Head;
use super::tags::{Full, MAX_NAME, MAX_TAGS, Tags};
use super::vary::{MAX_FIELDS, Vary};
use crate::base::hash::{Running, stable};

const MAGIC: [u8; 8] = *b"evkrec\0\x01";
/// Bytes before the head.
pub const PRELUDE: usize = 28;
/// A part of the body with a checksum of its own: what is read of it can be sent on before the rest is read.
pub const BLOCK: usize = 64 * 1024;
/// Bytes of a head beside the checksums of its body: a key, groups and fields of the largest sizes.
const MAX_HEAD: usize = 256 * 1024;
/// Bytes of a body.
const MAX_BODY: u64 = 1 << 40;

const VARIES: u8 = 0;
const WHOLE: u8 = 1;
const PART: u8 = 2;

/// What stands at a key.
#[derive(Debug, Clone)]
pub enum Record {
    /// Responses here vary: each has a key of its own, with this number in it.
    Varies {
        vary: Vary,
        id: u64,
    },
    Response(Kept),
}

/// A response, in terms that hold anywhere.
#[derive(Debug, Clone)]
pub struct Kept {
    pub status: u16,
    pub head: Head,
    /// Born in milliseconds since 1970.
    pub freshness: Freshness,
    /// When it was asked for, in milliseconds since 1970.
    pub asked: i64,
    /// Purges there had been when it was asked for, as the writer counts them.
    pub stamp: u64,
    /// The groups it is in.
    pub tags: Box<[Box<[u8]>]>,
    pub body: Body,
}

/// What is no record of this key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// What is one, of another key: of two that have the same name.
pub const OTHER_KEY: Refused = Refused("of another key");

/// A record, as bytes.
#[derive(Debug)]
pub struct Encoded {
    pub head: Vec<u8>,
    /// Follows in its pieces. It may be one that stands in a file.
    pub body: Body,
}

/// The head of a record that was read, and what its body must be.
#[derive(Debug)]
pub struct Opened {
    /// Its body is empty.
    pub record: Record,
    pub body: Sums,
    /// `(first, last), length` of the whole, where the body is one range of it.
    part: Option<((u64, u64), u64)>,
}

/// Length and checksums of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sums {
    pub length: u64,
    blocks: Arc<[u64]>,
}

/// Both clocks at one moment, in milliseconds: the cache's own, and the time since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clocks {
    pub cache: i64,
    pub wall: i64,
}

impl Clocks {
    pub fn to_wall(self, cache: i64) -> i64 {
        self.wall.saturating_add(cache.saturating_sub(self.cache))
    }

    pub fn to_cache(self, wall: i64) -> i64 {
        self.cache.saturating_add(wall.saturating_sub(self.wall))
    }
}

impl Kept {
    /// `asked`: by the cache's clock.
    pub fn of(entry: &Entry, asked: i64, clocks: Clocks) -> Self {
        let meta = &entry.meta;
        let tags = meta.tags.as_deref().unwrap_or_default();
        Self {
            status: meta.status,
            head: meta.head.clone(),
            freshness: Freshness {
                born: clocks.to_wall(meta.freshness.born),
                ..meta.freshness
            },
            asked: clocks.to_wall(asked),
            stamp: meta.stamp,
            tags: tags.iter().map(|tag| tag.name.clone()).collect(),
            body: entry.body.clone(),
        }
    }

    /// The entry it was. `stamp`: purges so far, when it was looked for. What was born later than now was so by a clock that
    /// has been set back: nothing tells how old it is, so it is stale.
    pub fn entry(self, stamp: u64, tags: &Tags, clocks: Clocks) -> Result<Entry, Full> {
        let mut freshness = self.freshness;
        freshness.born = clocks.to_cache(freshness.born);
        if freshness.born > clocks.cache {
            freshness.expire(clocks.cache);
        }
        let names = self.tags.iter().map(|name| &**name);
        let tags = match self.tags.is_empty() {
            true => None,
            false => Some(tags.named(names, clocks.cache)?),
        };
        let meta = Meta {
            status: self.status,
            head: self.head,
            freshness,
            stamp,
            tags,
        };
        Ok(Entry::of(meta, self.body))
    }
}

/// What `record` is written as under `key`.
pub fn encode(key: &[u8], record: &Record) -> Encoded {
    let mut out = Vec::with_capacity(PRELUDE + 256 + key.len());
    out.extend_from_slice(&[0; PRELUDE]);
    let body = match record {
        Record::Varies { vary, id } => {
            out.push(VARIES);
            long(&mut out, key);
            out.extend_from_slice(&id.to_le_bytes());
            list(&mut out, vary.iter().map(|name| name.as_str().as_bytes()));
            Body::of(Vec::new())
        }
        Record::Response(kept) => {
            response(&mut out, key, kept);
            kept.body.clone()
        }
    };
    seal(&mut out, body.stored());
    Encoded { head: out, body }
}

fn response(out: &mut Vec<u8>, key: &[u8], kept: &Kept) {
    out.push(if kept.body.is_whole() { WHOLE } else { PART });
    long(out, key);
    let freshness = &kept.freshness;
    out.extend_from_slice(&kept.status.to_le_bytes());
    out.extend_from_slice(&freshness.born.to_le_bytes());
    out.extend_from_slice(&freshness.lifetime.to_le_bytes());
    out.extend_from_slice(&freshness.stale_while_revalidate.to_le_bytes());
    out.extend_from_slice(&freshness.stale_if_error.to_le_bytes());
    out.push(freshness.flags);
    out.extend_from_slice(&kept.asked.to_le_bytes());
    out.extend_from_slice(&kept.stamp.to_le_bytes());
    list(out, kept.tags.iter().map(|name| &**name));
    long(out, kept.head.text());
    if !kept.body.is_whole() {
        let (first, last) = kept.body.span();
        for number in [first, last, kept.body.length()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    match &kept.body {
        Body::Stored(large) => {
            let blocks = large.sums.blocks.iter();
            blocks.for_each(|sum| out.extend_from_slice(&sum.to_le_bytes()));
        }
        body => sums(out, body.chunks()),
    }
}

/// Fills in what stands before the head.
fn seal(out: &mut [u8], body: u64) {
    let Some((prelude, head)) = out.split_at_mut_checked(PRELUDE) else {
        return;
    };
    let length = u32::try_from(head.len()).unwrap_or(u32::MAX);
    let start = [&MAGIC[..], &length.to_le_bytes(), &body.to_le_bytes()].concat();
    let mut sum = Running::default();
    sum.add(&start);
    sum.add(head);
    prelude.copy_from_slice(&[&start[..], &sum.take().to_le_bytes()].concat());
}

fn sums(out: &mut Vec<u8>, chunks: &[Bytes]) {
    let mut sum = Running::default();
    let mut room = BLOCK;
    for chunk in chunks {
        let mut rest = &chunk[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(room));
            sum.add(now);
            room -= now.len();
            if room == 0 {
                out.extend_from_slice(&sum.take().to_le_bytes());
                room = BLOCK;
            }
            rest = later;
        }
    }
    if room < BLOCK {
        out.extend_from_slice(&sum.take().to_le_bytes());
    }
}

fn long(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(text);
}

fn list<'a>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = &'a [u8]>) {
    out.extend_from_slice(&u16::try_from(names.len()).unwrap_or(u16::MAX).to_le_bytes());
    for name in names {
        out.extend_from_slice(&u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        out.extend_from_slice(name);
    }
}

/// Reads a whole record.
pub fn decode(key: &[u8], text: &Bytes) -> Result<Record, Refused> {
    let head = head_len(text)?;
    let (Some(start), true) = (text.get(..PRELUDE + head), text.len() >= PRELUDE + head) else {
        return Err(Refused("cut short"));
    };
    let opened = open(key, start)?;
    // Its own, so that it does not hold the head as well.
    let body = Bytes::copy_from_slice(text.get(PRELUDE + head..).unwrap_or_default());
    opened.with(body)
}

/// How long the head is, from at least the first [`PRELUDE`] bytes.
pub fn head_len(text: &[u8]) -> Result<usize, Refused> {
    let mut reader = Reader(text.get(..PRELUDE).ok_or(Refused("cut short"))?);
    if reader.take(MAGIC.len())? != MAGIC {
        return Err(Refused("of another version, or nothing of this kind"));
    }
    let head = reader.u32()? as usize;
    let blocks = blocks(reader.u64()?)?;
    if head > MAX_HEAD + 8 * blocks {
        return Err(Refused("its head is too long"));
    }
    Ok(head)
}

fn blocks(length: u64) -> Result<usize, Refused> {
    if length > MAX_BODY {
        return Err(Refused("its body is too long"));
    }
    Ok(length.div_ceil(BLOCK as u64) as usize)
}

/// Reads all but the body: `text` ends where that begins.
pub fn open(key: &[u8], text: &[u8]) -> Result<Opened, Refused> {
    let length = head_len(text)?;
    let (prelude, head) = text.split_at_checked(PRELUDE).ok_or(Refused("cut short"))?;
    if head.len() != length {
        return Err(Refused("cut short"));
    }
    let (start, told) = prelude.split_at_checked(PRELUDE - 8).ok_or(Refused("cut short"))?;
    let mut sum = Running::default();
    sum.add(start);
    sum.add(head);
    if sum.take() != Reader(told).u64()? {
        return Err(Refused("its checksum is another"));
    }
    let body = Reader(start.get(12..).unwrap_or_default()).u64()?;
    let mut reader = Reader(head);
    let kind = reader.u8()?;
    if reader.long()? != key {
        return Err(OTHER_KEY);
    }
    let mut part = None;
    let record = match kind {
        VARIES => reader.varies()?,
        WHOLE | PART => {
            let kept = reader.response()?;
            if kind == PART {
                part = Some(((reader.u64()?, reader.u64()?), reader.u64()?));
            }
            Record::Response(kept)
        }
        _ => return Err(Refused("of a kind that is not known")),
    };
    if let Some(((first, last), whole)) = part
        && (first > last || last >= whole || last - first + 1 != body)
    {
        return Err(Refused("its range is none"));
    }
    let blocks: Arc<[u64]> = (0..blocks(body)?).map(|_| reader.u64()).collect::<Result<_, _>>()?;
    if !reader.0.is_empty() || (kind == VARIES && body > 0) {
        return Err(Refused("something is left over"));
    }
    Ok(Opened {
        record,
        body: Sums { length: body, blocks },
        part,
    })
}

impl Opened {
    pub fn is_whole(&self) -> bool {
        self.part.is_none()
    }

    /// With its body, when it is that.
    pub fn with(mut self, body: Bytes) -> Result<Record, Refused> {
        if !self.body.fits(0, &body) || body.len() as u64 != self.body.length {
            return Err(Refused("its body is another"));
        }
        if let Record::Response(kept) = &mut self.record {
            kept.body = match self.part {
                Some((span, length)) => Body::part(span, length, vec![body]),
                None => Body::of(vec![body]),
            };
        }
        Ok(self.record)
    }
}

impl Sums {
    /// Whether `data` is what stands from the block with this number on.
    pub fn fits(&self, first: usize, data: &[u8]) -> bool {
        let mut at = first as u64 * BLOCK as u64;
        data.chunks(BLOCK).zip(first..).all(|(block, number)| {
            at += block.len() as u64;
            (block.len() == BLOCK || at == self.length) && self.blocks.get(number) == Some(&stable(block))
        })
    }
}

/// What is left to be read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Refused> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Refused("cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Refused> {
        let taken = self.take(N)?;
        taken.try_into().map_err(|_| Refused("cut short"))
    }

    fn u8(&mut self) -> Result<u8, Refused> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, Refused> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, Refused> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, Refused> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn i64(&mut self) -> Result<i64, Refused> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    fn long(&mut self) -> Result<&'a [u8], Refused> {
        let length = self.u32()? as usize;
        self.take(length)
    }

    /// A name of at most `most` bytes.
    fn name(&mut self, most: usize) -> Result<&'a [u8], Refused> {
        let length = usize::from(self.u16()?);
        match length {
            0 => Err(Refused("a name is empty")),
            _ if length > most => Err(Refused("a name is too long")),
            _ => self.take(length),
        }
    }

    fn varies(&mut self) -> Result<Record, Refused> {
        let id = self.u64()?;
        let count = usize::from(self.u16()?);
        if count == 0 || count > MAX_FIELDS {
            return Err(Refused("it varies by too much, or nothing"));
        }
        let mut vary: Vec<HeaderName> = Vec::with_capacity(count);
        for _ in 0..count {
            let text = self.name(usize::from(u16::MAX))?;
            let name = HeaderName::from_lowercase(text).map_err(|_| Refused("it varies by what is no field"))?;
            if vary.last().is_some_and(|last| last.as_str() >= name.as_str()) {
                return Err(Refused("what it varies by is in another order"));
            }
            vary.push(name);
        }
        Ok(Record::Varies { vary: vary.into(), id })
    }

    fn response(&mut self) -> Result<Kept, Refused> {
        let status = self.u16()?;
        if !(200..=999).contains(&status) {
            return Err(Refused("its status is none"));
        }
        let freshness = Freshness {
            born: self.i64()?,
            lifetime: self.u32()?,
            stale_while_revalidate: self.u32()?,
            stale_if_error: self.u32()?,
            flags: self.u8()?,
        };
        if freshness.flags & !FLAGS != 0 {
            return Err(Refused("a flag is not known"));
        }
        let (asked, stamp) = (self.i64()?, self.u64()?);
        let count = usize::from(self.u16()?);
        if count > MAX_TAGS {
            return Err(Refused("it is in too many groups"));
        }
        let tags = (0..count).map(|_| self.name(MAX_NAME).map(Box::from));
        let tags = tags.collect::<Result<_, _>>()?;
        let head = self.long()?;
        Ok(Kept {
            status,
            freshness,
            asked,
            stamp,
            tags,
            head: Head::read(head).ok_or(Refused("its fields are none"))?,
            body: Body::of(Vec::new()),
        })
    }
}

#[cfg(test)]
mod tests;

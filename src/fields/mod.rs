//! The fields of a message, kept as the text they came as: found without hashing, written without taking them apart.
//!
//! A proxy reads few of the fields it carries. So a message's head stays the bytes it was, beside a list of where
//! each line begins; a field that goes is marked, one that comes is text behind it. `http::HeaderMap` stands at the
//! edge to hyper alone.

mod known;

use std::fmt;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

pub use known::{Known, Set};

/// All fields of a message, in their order.
#[derive(Clone, Default)]
pub struct Fields {
    /// The head they came in.
    head: Bytes,
    /// Lines added since.
    added: Vec<u8>,
    list: Vec<Line>,
    /// Bits of the known fields in it.
    present: u64,
}

/// One line: where it stands and what it is.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// In the head, or in the text added.
    name: u32,
    value: u32,
    value_len: u32,
    name_len: u16,
    known: Known,
    /// Bits of the constants below.
    state: u8,
}

/// The line stands in the text added.
const ADDED: u8 = 1;
/// It has been removed.
const GONE: u8 = 2;
/// It reads `name: value` CRLF and nothing else, so that it can be copied as it stands.
const PLAIN: u8 = 4;

/// A piece of a value.
#[derive(Debug, Clone, Copy)]
pub enum Part<'a> {
    /// Without CR, LF and NUL.
    Text(&'a [u8]),
    /// The value of the first field of this kind.
    Of(Known),
}

/// Fields that are added together, again and again.
#[derive(Debug, Clone)]
pub struct Lines {
    text: Box<[u8]>,
    /// Places in it.
    list: Box<[Line]>,
    present: u64,
}

/// A head is larger than this counts in, or a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Where the fields of a head stand, while it is being read.
#[derive(Debug)]
pub struct Found {
    list: Vec<Line>,
    present: u64,
}

impl Found {
    /// Room for `count` fields, and for those that are added on the way through.
    pub fn with_capacity(count: usize) -> Self {
        Self {
            list: Vec::with_capacity(count + 6),
            present: 0,
        }
    }

    /// The next field of `head`: name and value at these places in it.
    pub fn add(&mut self, head: &[u8], name: Range<usize>, value: Range<usize>) -> Result<(), TooLarge> {
        let text = head.get(name.clone()).ok_or(TooLarge)?;
        let known = Known::of(text);
        let plain = head.get(name.end..value.start) == Some(b": ")
            && head.get(value.end..).is_some_and(|rest| rest.starts_with(b"\r\n"));
        self.list.push(Line {
            name: name.start.try_into().map_err(|_| TooLarge)?,
            value: value.start.try_into().map_err(|_| TooLarge)?,
            value_len: value.len().try_into().map_err(|_| TooLarge)?,
            name_len: name.len().try_into().map_err(|_| TooLarge)?,
            known,
            state: if plain { PLAIN } else { 0 },
        });
        self.present |= known.bit();
        Ok(())
    }

    /// The next field, a line `name: value` CRLF that begins at `at`. The head is smaller than 64 KiB.
    #[inline]
    pub fn add_plain(&mut self, at: usize, name_len: usize, value_len: usize, known: Known) {
        self.list.push(Line {
            name: at as u32,
            value: (at + name_len + 2) as u32,
            value_len: value_len as u32,
            name_len: name_len as u16,
            known,
            state: PLAIN,
        });
        self.present |= known.bit();
    }

    pub fn len(&self) -> usize {
        self.list.len()
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The fields, in the head they were found in.
    pub fn within(self, head: Bytes) -> Fields {
        Fields {
            head,
            added: Vec::new(),
            list: self.list,
            present: self.present,
        }
    }
}

impl Fields {
    /// The bytes the fields came in.
    pub fn head(&self) -> &Bytes {
        &self.head
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.iter().filter(|line| line.state & GONE == 0).count()
    }

    /// Bytes they take at most when written.
    pub fn text_len(&self) -> usize {
        self.head.len() + self.added.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn has(&self, known: Known) -> bool {
        self.present & known.bit() != 0
    }

    /// Whether it has a field of one of these kinds.
    pub fn has_any(&self, set: Set) -> bool {
        self.present & set.0 != 0
    }

    /// The value of the first field of this kind.
    pub fn get(&self, known: Known) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The values of all fields of this kind, in their order.
    pub fn all(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        let lines = if self.has(known) { self.list.as_slice() } else { &[] };
        lines
            .iter()
            .filter(move |line| line.known == known && line.state & GONE == 0)
            .map(|line| self.value(line))
    }

    /// The values of all fields of this name, in their order.
    pub fn named<'a>(&'a self, name: &'a HeaderName) -> impl Iterator<Item = &'a [u8]> {
        let wanted = name.as_str().as_bytes();
        self.lines()
            .filter(move |line| line.name_len as usize == wanted.len() && self.name(line).eq_ignore_ascii_case(wanted))
            .map(|line| self.value(line))
    }

    /// Names as they stand, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines().map(|line| (self.name(line), self.value(line)))
    }

    /// Adds a field at the end.
    pub fn append(&mut self, known: Known, value: &[u8]) {
        debug_assert!(known != Known::Other, "a name is needed");
        self.add(known.name().as_bytes(), known, value);
    }

    /// Adds a field at the end whose value is made of `parts`.
    pub fn append_parts(&mut self, known: Known, parts: &[Part<'_>]) {
        debug_assert!(known != Known::Other, "a name is needed");
        let begin = self.begin_line(known.name().as_bytes());
        for part in parts {
            match part {
                Part::Text(text) => self.added.extend_from_slice(text),
                Part::Of(field) => {
                    let Some(line) = self.lines().find(|line| line.known == *field).copied() else {
                        continue;
                    };
                    let place = line.value as usize..line.value as usize + line.value_len as usize;
                    if line.state & ADDED != 0 {
                        self.added.extend_from_within(place);
                    } else {
                        self.added.extend_from_slice(self.head.get(place).unwrap_or_default());
                    }
                }
            }
        }
        self.end_line(begin, known.name().len(), known);
    }

    /// Adds a field at the end, of whatever name.
    pub fn append_named(&mut self, name: &HeaderName, value: &HeaderValue) {
        let name = name.as_str().as_bytes();
        self.add(name, Known::of(name), value.as_bytes());
    }

    /// As [`Self::append_named`], for a name that is written here.
    pub fn append_text(&mut self, name: &'static str, value: &[u8]) {
        self.add(name.as_bytes(), Known::of(name.as_bytes()), value);
    }

    /// One field of this kind with this value, in place of all.
    pub fn set(&mut self, known: Known, value: &[u8]) {
        self.remove(known);
        self.append(known, value);
    }

    pub fn remove(&mut self, known: Known) {
        self.remove_all(Set(known.bit()));
    }

    /// Removes every field of these kinds.
    pub fn remove_all(&mut self, set: Set) {
        if self.present & set.0 == 0 {
            return;
        }
        self.present &= !set.0;
        for line in &mut self.list {
            if set.has(line.known) {
                line.state |= GONE;
            }
        }
    }

    /// Removes every field with this name, which need not be a valid one.
    pub fn remove_named(&mut self, name: &[u8]) {
        let known = Known::of(name);
        if known != Known::Other {
            return self.remove(known);
        }
        for at in 0..self.list.len() {
            if self.name(&self.list[at]).eq_ignore_ascii_case(name) {
                self.list[at].state |= GONE;
            }
        }
    }

    /// What `add` adds, to be added again to others.
    pub fn recorded(&mut self, add: impl FnOnce(&mut Self)) -> Lines {
        let (text, list) = (self.added.len(), self.list.len());
        add(self);
        let mut lines = Lines {
            text: self.added.get(text..).unwrap_or_default().into(),
            list: self.list.get(list..).unwrap_or_default().into(),
            present: 0,
        };
        for line in &mut lines.list {
            line.name -= text as u32;
            line.value -= text as u32;
            lines.present |= line.known.bit();
        }
        lines
    }

    /// Adds them all at the end.
    pub fn append_lines(&mut self, lines: &Lines) {
        let begin = self.added.len() as u32;
        self.added.extend_from_slice(&lines.text);
        self.list.extend(lines.list.iter().map(|line| Line {
            name: line.name + begin,
            value: line.value + begin,
            ..*line
        }));
        self.present |= lines.present;
    }

    /// Writes the lines of all fields but those in `except`.
    pub fn write(&self, out: &mut BytesMut, except: Set) {
        // Lines that follow one another are copied at once.
        let mut run = Run::default();
        for line in self.lines() {
            if except.has(line.known) {
                continue;
            }
            let begin = line.name as usize;
            let end = line.value as usize + line.value_len as usize + 2;
            let added = line.state & ADDED != 0;
            if line.state & PLAIN == 0 {
                self.copy(&run, out);
                run = Run::default();
                out.put_slice(self.name(line));
                out.put_slice(b": ");
                out.put_slice(self.value(line));
                out.put_slice(b"\r\n");
            } else if begin == run.end && added == run.added {
                run.end = end;
            } else {
                self.copy(&run, out);
                run = Run { begin, end, added };
            }
        }
        self.copy(&run, out);
    }

    /// As hyper has them, without those in `except`.
    pub fn to_map(&self, except: Set) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.list.len());
        for line in self.lines() {
            if except.has(line.known) {
                continue;
            }
            let value = self.value(line);
            let shared = match line.state & ADDED {
                0 => HeaderValue::from_maybe_shared(self.head.slice_ref(value)),
                _ => HeaderValue::from_bytes(value),
            };
            // Only valid ones were let in.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(self.name(line)), shared) {
                map.append(name, value);
            }
        }
        map
    }

    fn copy(&self, run: &Run, out: &mut BytesMut) {
        let text: &[u8] = if run.added { &self.added } else { &self.head };
        out.put_slice(text.get(run.begin..run.end).unwrap_or_default());
    }

    fn add(&mut self, name: &[u8], known: Known, value: &[u8]) {
        // What could end the line early is no value; nothing above lets it come so far.
        if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
            debug_assert!(false, "invalid value");
            return;
        }
        let begin = self.begin_line(name);
        self.added.extend_from_slice(value);
        self.end_line(begin, name.len(), known);
    }

    fn begin_line(&mut self, name: &[u8]) -> usize {
        if self.added.capacity() == 0 {
            // Where one is added others follow: forwarding fields.
            self.added.reserve(512);
        }
        let begin = self.added.len();
        self.added.extend_from_slice(name);
        self.added.extend_from_slice(b": ");
        begin
    }

    fn end_line(&mut self, begin: usize, name_len: usize, known: Known) {
        let value = begin + name_len + 2;
        self.list.push(Line {
            name: begin as u32,
            value: value as u32,
            value_len: (self.added.len() - value) as u32,
            name_len: name_len as u16,
            known,
            state: ADDED | PLAIN,
        });
        self.added.extend_from_slice(b"\r\n");
        self.present |= known.bit();
    }

    fn lines(&self) -> impl Iterator<Item = &Line> {
        self.list.iter().filter(|line| line.state & GONE == 0)
    }

    fn name(&self, line: &Line) -> &[u8] {
        self.text(line, line.name as usize, line.name_len as usize)
    }

    fn value(&self, line: &Line) -> &[u8] {
        self.text(line, line.value as usize, line.value_len as usize)
    }

    fn text(&self, line: &Line, begin: usize, len: usize) -> &[u8] {
        let text: &[u8] = if line.state & ADDED != 0 {
            &self.added
        } else {
            &self.head
        };
        text.get(begin..begin + len).unwrap_or_default()
    }
}

/// Lines that follow one another in one of the texts.
#[derive(Default)]
struct Run {
    begin: usize,
    end: usize,
    added: bool,
}

impl From<&HeaderMap> for Fields {
    fn from(map: &HeaderMap) -> Self {
        let text: usize = map
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 4)
            .sum();
        let mut fields = Self {
            added: Vec::with_capacity(text),
            list: Vec::with_capacity(map.len() + 6),
            ..Self::default()
        };
        for (name, value) in map {
            fields.append_named(name, value);
        }
        fields
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let readable = self
            .iter()
            .map(|(name, value)| (name.escape_ascii(), value.escape_ascii()));
        f.debug_map()
            .entries(readable.map(|(n, v)| (n.to_string(), v.to_string())))
            .finish()
    }
}

#[cfg(test)]
mod tests;

//! The one safe reading of a head that is not compliant, as text that the strict parser reads again.
//!
//! Nothing here decides what passes ([`super::desync`] does) or what it means (the strict parser does, for the text
//! made here as for any other): a mistake here can make a request that is refused, or another compliant one, never one
//! with two readings.

use std::borrow::Cow;

use bytes::Bytes;

use super::desync::{Mode, Reason};
use super::head::Limits;
use super::request::{Refused, RequestError, RequestHead, read};
use crate::fields::Known;

/// Each mends all of one kind, so that more would be in vain.
const ROUNDS: usize = 8;

/// What becomes of a head that the strict parser refused. Its lines end in CRLF, the last of them is empty.
#[cold]
pub(super) fn second_reading(
    error: RequestError,
    head: Bytes,
    limits: &Limits,
    mode: Mode,
    before: Option<Reason>,
) -> Result<RequestHead, Refused> {
    let (mut error, mut head) = (error, head);
    let mut gravest = before;
    for _ in 0..ROUNDS {
        let reason = Reason::of(error, &head);
        gravest = Reason::graver(gravest, reason);
        let Some(mended) = reason.filter(|r| r.passes(mode)).and_then(|r| mend(&head, r)) else {
            break;
        };
        match read(mended.into(), limits, None) {
            Ok(mut read) => {
                read.deviation = Reason::graver(gravest, read.deviation);
                // What follows might be read in two ways, by us or by who sent it (RFC 9112 section 6.1).
                read.keep_alive = false;
                read.upgrade = None;
                return Ok(read);
            }
            Err((next, text)) => (error, head) = (next, text),
        }
    }
    // An empty line is nobody's reason to refuse.
    let reason = gravest.filter(|_| gravest != before);
    Err(Refused { error, reason })
}

/// The head without what `reason` is about; `None`: nothing to mend.
fn mend(head: &[u8], reason: Reason) -> Option<Vec<u8>> {
    match reason {
        Reason::FoldedField | Reason::Underscore | Reason::BlankBeforeColon => plain_names(head),
        Reason::BothFramings => rewrite(head, |known, _| match known {
            Known::ContentLength => Line::Gone,
            _ => Line::AsIs,
        }),
        Reason::HostMismatch => {
            let authority = authority(head)?.to_vec();
            rewrite(head, |known, _| match known {
                Known::Host => Line::Now(authority.clone()),
                _ => Line::AsIs,
            })
        }
        Reason::RepeatedHost => {
            let mut first = true;
            rewrite(head, |known, _| match known {
                Known::Host if !std::mem::replace(&mut first, false) => Line::Gone,
                _ => Line::AsIs,
            })
        }
        _ => None,
    }
}

/// What is wrong with the name of a field: the gravest of all lines, as the parser stops at the first.
pub(super) fn name_fault(head: &[u8]) -> Reason {
    let mut found = None;
    let mut before: Option<Known> = None;
    for line in lines(head).skip(1) {
        let (fault, known) = if is_fold(line) {
            let misplaced = before != Some(Known::Other) || line.trim_ascii().is_empty();
            let fold = if misplaced {
                Reason::MisplacedFold
            } else {
                Reason::FoldedField
            };
            (Some(fold), before)
        } else {
            let name = name(line);
            (
                name.and_then(fault_in).or(name.is_none().then_some(Reason::FieldName)),
                name.map(Known::of),
            )
        };
        before = known;
        found = Reason::graver(found, fault);
    }
    found.unwrap_or(Reason::FieldName)
}

/// What is wrong with this name.
fn fault_in(name: &[u8]) -> Option<Reason> {
    let bare = name.trim_ascii_end();
    if bare.is_empty() || !bare.iter().all(|b| is_token(*b)) {
        return Some(Reason::FieldName);
    }
    let acted_on = |name: &[u8]| Known::of(name) != Known::Other;
    let frames = |name: &[u8]| matches!(Known::of(name), Known::ContentLength | Known::TransferEncoding);
    let dashed: Cow<'_, [u8]> = match bare.contains(&b'_') {
        true => bare.iter().map(|b| if *b == b'_' { b'-' } else { *b }).collect(),
        false => bare.into(),
    };
    match (bare.len() < name.len(), matches!(dashed, Cow::Owned(_))) {
        (true, _) if acted_on(&dashed) => Some(Reason::DisguisedField),
        (_, true) if frames(&dashed) => Some(Reason::DisguisedField),
        (true, _) => Some(Reason::BlankBeforeColon),
        (false, true) => Some(Reason::Underscore),
        (false, false) => None,
    }
}

/// Whether there are several Host fields that say the same.
pub(super) fn repeats_host(head: &[u8]) -> bool {
    let mut hosts = lines(head).skip(1).filter_map(|line| {
        let name = name(line).filter(|name| Known::of(name) == Known::Host)?;
        Some(line[name.len() + 1..].trim_ascii())
    });
    match hosts.next() {
        Some(first) => {
            let mut others = hosts.peekable();
            others.peek().is_some() && others.all(|other| other.eq_ignore_ascii_case(first))
        }
        None => false,
    }
}

/// The authority of a target in absolute form.
fn authority(head: &[u8]) -> Option<&[u8]> {
    let target = lines(head).next()?.split(|b| *b == b' ').nth(1)?;
    let at = memchr::memmem::find(target, b"://")? + 3;
    let rest = &target[at..];
    let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
    Some(&rest[..end])
}

/// What becomes of a line.
enum Line {
    AsIs,
    Gone,
    /// The same name with this value.
    Now(Vec<u8>),
}

fn rewrite(head: &[u8], mut change: impl FnMut(Known, &[u8]) -> Line) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(head.len() + 256);
    let mut all = lines(head);
    put(&mut out, &[all.next()?]);
    for line in all {
        let name = name(line)?;
        match change(Known::of(name), line) {
            Line::AsIs => put(&mut out, &[line]),
            Line::Gone => {}
            Line::Now(value) => put(&mut out, &[name, b": ", &value]),
        }
    }
    put(&mut out, &[]);
    Some(out)
}

/// The head with folds as blanks, without blanks before colons, without fields whose name has an underscore.
fn plain_names(head: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(head.len());
    let mut all = lines(head).peekable();
    put(&mut out, &[all.next()?]);
    while let Some(line) = all.next() {
        let name = name(line)?;
        let mut value = line[name.len() + 1..].to_vec();
        while let Some(fold) = all.next_if(|next| is_fold(next)) {
            value.push(b' ');
            value.extend_from_slice(fold.trim_ascii());
        }
        if !name.contains(&b'_') {
            put(&mut out, &[name.trim_ascii_end(), b":", &value]);
        }
    }
    put(&mut out, &[]);
    Some(out)
}

fn put(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.extend_from_slice(b"\r\n");
}

/// The lines of a head without their ends and without the empty one.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let text = head.strip_suffix(b"\r\n\r\n").unwrap_or_default();
    text.split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn is_fold(line: &[u8]) -> bool {
    line.starts_with(b" ") || line.starts_with(b"\t")
}

/// What stands before the colon.
fn name(line: &[u8]) -> Option<&[u8]> {
    line.get(..memchr::memchr(b':', line)?)
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

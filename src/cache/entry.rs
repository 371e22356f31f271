//! A stored response.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::ahead::Heat;
use super::disk::Large;
use super::freshness::Freshness;
use super::head::Head;
use super::range::Span;
use super::tags::Tag;
use crate::h1::decode::is_allowed_trailer;

/// What is known of a response once its head is there.
#[derive(Debug, Clone)]
pub struct Meta {
    pub status: u16,
    pub head: Head,
    pub freshness: Freshness,
    /// How many purges there had been when it was asked for: later ones mean it.
    pub stamp: u64,
    pub tags: Option<Box<[Arc<Tag>]>>,
}

/// A whole response, or one range of it.
#[derive(Debug)]
pub struct Entry {
    pub meta: Meta,
    pub body: Body,
    /// What came behind the body (RFC 9110 section 6.5).
    pub trailers: Option<Box<HeaderMap>>,
    pub heat: Heat,
}

/// A stored body.
#[derive(Debug, Clone)]
pub enum Body {
    /// All of it in one piece.
    One(Bytes),
    Chunks(Box<[Bytes]>),
    Part(Box<Part>),
    /// All of it, in a file.
    Stored(Arc<Large>),
}

/// One range of a body whose length is known.
#[derive(Debug, Clone)]
pub struct Part {
    pub span: Span,
    pub length: u64,
    pub chunks: Vec<Bytes>,
}

/// Up to so many bytes a body is kept in one piece; longer ones in pieces of at least this, as they came.
const PIECE: usize = 64 * 1024;
/// What an entry costs beside its key, head and body: itself, its place in the map, the parts of its buffers that are
/// not told of.
const OVERHEAD: usize = 200;
const PER_CHUNK: usize = 72;

impl Entry {
    /// What it takes of the memory there is. Never changes.
    pub fn weight(&self, key: usize) -> u64 {
        let tags = self.meta.tags.as_ref().map_or(0, |tags| tags.len() * 8);
        let chunks = self.body.chunks().len() * PER_CHUNK;
        let trailers = self.trailers.as_ref().map_or(0, |trailers| trailers_weight(trailers));
        (OVERHEAD + key + self.meta.head.len() + tags + chunks) as u64 + self.body.held() + trailers
    }

    pub fn of(meta: Meta, body: Body) -> Self {
        Self {
            meta,
            body,
            trailers: None,
            heat: Heat::default(),
        }
    }

    /// The same response with other fields.
    pub fn with(&self, meta: Meta) -> Self {
        Self {
            trailers: self.trailers.clone(),
            ..Self::of(meta, self.body.clone())
        }
    }

    /// With what came behind its body, unless that is more than `most` bytes: a cache may leave trailers out, but not
    /// take them for fields (RFC 9111 section 3.1).
    pub fn trailed(mut self, trailers: Option<HeaderMap>, most: usize) -> Self {
        let fits = |trailers: &HeaderMap| trailers_weight(trailers) <= most as u64;
        self.trailers = trailers.filter(fits).map(Box::new);
        self
    }
}

/// A field's place in a map, twice what is used of it.
const PER_TRAILER: usize = 240;

fn trailers_weight(trailers: &HeaderMap) -> u64 {
    let fields = trailers.iter();
    let sizes = fields.map(|(name, value)| PER_TRAILER + name.as_str().len() + value.len());
    sizes.sum::<usize>() as u64
}

/// Those of a response's trailers that others may see.
pub fn shared_trailers(trailers: &HeaderMap) -> Option<HeaderMap> {
    // Copied: a value may hold the buffer it was read in.
    let copied = |(name, value): (&HeaderName, &HeaderValue)| {
        let value = HeaderValue::from_bytes(value.as_bytes()).ok()?;
        is_allowed_trailer(name).then(|| (name.clone(), value))
    };
    let shared: HeaderMap = trailers.iter().filter_map(copied).collect();
    (!shared.is_empty()).then_some(shared)
}

impl Body {
    /// A whole body made of what came.
    pub fn of(pieces: Vec<Bytes>) -> Self {
        let mut packed = pack(pieces);
        match packed.len() {
            0 => Self::One(Bytes::new()),
            1 => Self::One(packed.remove(0)),
            _ => Self::Chunks(packed.into()),
        }
    }

    pub fn part(span: Span, length: u64, pieces: Vec<Bytes>) -> Self {
        Self::Part(Box::new(Part {
            span,
            length,
            chunks: pack(pieces),
        }))
    }

    /// What of it is in memory.
    pub fn chunks(&self) -> &[Bytes] {
        match self {
            Self::One(bytes) => std::slice::from_ref(bytes),
            Self::Chunks(chunks) => chunks,
            Self::Part(part) => &part.chunks,
            Self::Stored(_) => &[],
        }
    }

    /// Bytes of the whole body.
    pub fn length(&self) -> u64 {
        match self {
            Self::Part(part) => part.length,
            _ => self.stored(),
        }
    }

    /// The bytes there are.
    pub fn span(&self) -> Span {
        match self {
            Self::Part(part) => part.span,
            _ => (0, self.stored().saturating_sub(1)),
        }
    }

    /// All of what there is stands in memory.
    pub fn is_held(&self) -> bool {
        !matches!(self, Self::Stored(_))
    }

    /// Bytes there are, wherever.
    pub fn stored(&self) -> u64 {
        match self {
            Self::Stored(large) => large.sums.length,
            _ => self.held(),
        }
    }

    pub fn is_whole(&self) -> bool {
        !matches!(self, Self::Part(_))
    }

    fn held(&self) -> u64 {
        self.chunks().iter().map(|chunk| chunk.len() as u64).sum()
    }

    /// The two together, where one goes on within or right behind the other.
    pub fn joined(&self, other: &Self) -> Option<Self> {
        let (first, second) = if self.span().0 <= other.span().0 {
            (self, other)
        } else {
            (other, self)
        };
        let (a, b) = (first.span(), second.span());
        if !self.is_held() || !other.is_held() || first.length() != second.length() || b.0 > a.1.saturating_add(1) {
            return None;
        }
        let mut pieces: Vec<Bytes> = first.chunks().to_vec();
        super::range::cut(second.chunks(), b.0, (a.1 + 1, u64::MAX), &mut pieces);
        let span = (a.0, a.1.max(b.1));
        Some(match span == (0, first.length().saturating_sub(1)) {
            true => Self::of(pieces),
            false => Self::part(span, first.length(), pieces),
        })
    }
}

/// Small pieces put together: each costs more than its bytes.
fn pack(pieces: Vec<Bytes>) -> Vec<Bytes> {
    if pieces.len() < 2 {
        return pieces;
    }
    let mut packed = Vec::new();
    let mut run: Vec<Bytes> = Vec::new();
    let mut size = 0;
    let flush = |run: &mut Vec<Bytes>, packed: &mut Vec<Bytes>| match run.len() {
        0 => {}
        1 => packed.append(run),
        _ => packed.push(Bytes::from(std::mem::take(run).concat())),
    };
    for piece in pieces {
        if size > 0 && size + piece.len() > PIECE {
            flush(&mut run, &mut packed);
            size = 0;
        }
        size += piece.len();
        run.push(piece);
    }
    flush(&mut run, &mut packed);
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(first: u64, text: &'static str) -> Body {
        Body::part(
            (first, first + text.len() as u64 - 1),
            10,
            vec![Bytes::from_static(text.as_bytes())],
        )
    }

    #[test]
    fn small_pieces_become_one_and_large_ones_stay() {
        let body = Body::of(vec![Bytes::from_static(b"a"); 100]);
        assert_eq!((body.chunks().len(), body.length()), (1, 100));
        let large = Bytes::from(vec![0; PIECE]);
        let body = Body::of(vec![large.clone(), large.clone(), Bytes::from_static(b"x")]);
        assert_eq!((body.chunks().len(), body.length()), (3, 2 * PIECE as u64 + 1));
        assert_eq!(body.chunks()[0].as_ptr(), large.as_ptr());
    }

    #[test]
    fn parts_that_meet_are_joined() {
        let text = |body: &Body| String::from_utf8(body.chunks().concat()).unwrap();
        let joined = part(0, "0123").joined(&part(4, "45")).unwrap();
        assert_eq!(
            (joined.span(), text(&joined).as_str(), joined.is_whole()),
            ((0, 5), "012345", false)
        );
        let whole = part(3, "3456789").joined(&joined).unwrap();
        assert_eq!((text(&whole).as_str(), whole.is_whole()), ("0123456789", true));
        assert!(part(0, "01").joined(&part(3, "3")).is_none());
        let inside = part(0, "01234").joined(&part(1, "12")).unwrap();
        assert_eq!(text(&inside), "01234");
    }
}

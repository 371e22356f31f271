//! A request-target in origin form, or `*`: mostly a place in the head it came in.

use crate::fields::Fields;

/// Path and query of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    text: Text,
    /// Bytes before the `?`.
    path: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Text {
    /// In the head of the fields it came with.
    Within {
        at: usize,
        len: usize,
    },
    Own(Box<str>),
}

impl Target {
    /// The `text` that stands at `at` in the head.
    pub fn within(at: usize, text: &str) -> Self {
        Self {
            text: Text::Within { at, len: text.len() },
            path: path_len(text),
        }
    }

    /// A target that stands in no head.
    pub fn own(text: String) -> Self {
        Self {
            path: path_len(&text),
            text: Text::Own(text.into()),
        }
    }

    /// All of it. `fields` are those it came with.
    pub fn text<'a>(&'a self, fields: &'a Fields) -> &'a str {
        match &self.text {
            Text::Own(text) => text,
            Text::Within { at, len } => {
                let bytes = fields.head().get(*at..*at + *len).unwrap_or_default();
                // Only visible ASCII was let in.
                std::str::from_utf8(bytes).unwrap_or_default()
            }
        }
    }

    /// Path, and query without its `?`.
    pub fn parts<'a>(&'a self, fields: &'a Fields) -> (&'a str, Option<&'a str>) {
        let text = self.text(fields);
        (text.get(..self.path).unwrap_or_default(), text.get(self.path + 1..))
    }
}

fn path_len(text: &str) -> usize {
    memchr::memchr(b'?', text.as_bytes()).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::fields::Found;

    #[test]
    fn path_and_query() {
        let fields = Found::with_capacity(0).within(Bytes::from_static(b"GET /a?b=1?c HTTP/1.1\r\n"));
        for (target, path, query) in [
            (Target::within(4, "/a?b=1?c"), "/a", Some("b=1?c")),
            (Target::within(4, "/a"), "/a", None),
            (Target::own("/x?".into()), "/x", Some("")),
            (Target::own("*".into()), "*", None),
        ] {
            assert_eq!(target.parts(&fields), (path, query), "{target:?}");
        }
    }
}

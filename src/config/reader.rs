//! Typed access to tables: what is wrong with a value is reported at its place, and reading goes on.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::base::units::{parse_duration, parse_size};

use super::diagnostic::{At, Context, Diagnostic, Span};
use super::value::{Node, Table, Value};

/// The keys a kind of table may have.
#[derive(Debug)]
pub struct Shape {
    /// As in "… is not a key of a listener".
    pub what: &'static str,
    pub keys: &'static [&'static str],
    /// Names that are reserved: what they stand for is not written yet.
    pub later: &'static [&'static str],
}

/// A key and its value.
pub type Entry = (At<String>, Node);

/// Longest time that can be set for anything.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// One table, with its keys checked.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    pub cx: &'a Context<'a>,
    table: &'a Table,
    /// The header of the table, or the whole of it where it is inline.
    pub span: Span,
    shape: &'static Shape,
}

impl<'a> Fields<'a> {
    /// Reports every key that `shape` does not have.
    pub fn new(cx: &'a Context<'a>, table: &'a Table, span: Span, shape: &'static Shape) -> Self {
        for (key, _) in &table.0 {
            let name = key.value.as_str();
            if shape.later.contains(&name) {
                cx.push(not_yet(key.span, name));
            } else if !shape.keys.contains(&name) {
                let error = Diagnostic::error(key.span, format!("`{name}` is not a key of {}", shape.what))
                    .label("unknown key")
                    .did_you_mean(name, shape.keys.iter().copied());
                let has_help = error.help.is_some();
                cx.push(match has_help {
                    true => error,
                    false => error.help(format!("its keys are {}", listed(shape.keys.iter(), "and"))),
                });
            }
        }
        Self { cx, table, span, shape }
    }

    /// As [`Fields::new`] when `node` is a table; else reports that it is not.
    pub fn of(cx: &'a Context<'a>, node: &'a Node, shape: &'static Shape) -> Option<Self> {
        match &node.value {
            Value::Table(table) => Some(Self::new(cx, table, node.span, shape)),
            _ => mismatch(cx, node, "a table", &format!("{} is a table", shape.what)),
        }
    }

    pub fn get(&self, key: &str) -> Option<&'a Node> {
        debug_assert!(
            self.shape.keys.contains(&key),
            "{key} is missing in the keys of {}",
            self.shape.what
        );
        self.table.get(key)
    }

    /// As [`Fields::get`]; reports when the key is absent.
    pub fn require(&self, key: &str) -> Option<&'a Node> {
        let node = self.get(key);
        if node.is_none() {
            let error = Diagnostic::error(self.span, format!("`{key}` is missing"));
            self.cx.push(error.label(format!("{} needs `{key}`", self.shape.what)));
        }
        node
    }

    /// Reports those of `keys` that are there, because of `reason`.
    pub fn refuse(&self, keys: &[&str], reason: &str) {
        for (key, _) in &self.table.0 {
            if keys.contains(&key.value.as_str()) {
                self.cx
                    .push(Diagnostic::error(key.span, format!("`{}` {reason}", key.value)));
            }
        }
    }

    /// Those of `keys` that are there, in the order of the file.
    pub fn present(&self, keys: &[&str]) -> Vec<&'a At<String>> {
        let present = self.table.0.iter().map(|(key, _)| key);
        present.filter(|key| keys.contains(&key.value.as_str())).collect()
    }

    /// Every key that is written, and those of the tables within as `table.key`.
    pub fn written(&self) -> Vec<At<String>> {
        let mut all = Vec::new();
        for (key, node) in &self.table.0 {
            all.push(key.clone());
            if let Value::Table(within) = &node.value {
                let dotted = |(inner, _): &Entry| inner.with(format!("{}.{}", key.value, inner.value));
                all.extend(within.0.iter().map(dotted));
            }
        }
        all
    }

    pub fn text(&self, key: &str) -> Option<At<&'a str>> {
        text(self.cx, self.get(key)?)
    }

    pub fn flag(&self, key: &str) -> Option<bool> {
        let node = self.get(key)?;
        match node.value {
            Value::Boolean(flag) => Some(flag),
            _ => mismatch(self.cx, node, "`true` or `false`", "expected `true` or `false`"),
        }
    }

    /// An integer within `range`.
    pub fn number<T: TryFrom<i64> + PartialOrd + Display>(&self, key: &str, range: RangeInclusive<T>) -> Option<T> {
        let node = self.get(key)?;
        let Value::Integer(number) = node.value else {
            return mismatch(self.cx, node, "an integer", &within(&range));
        };
        match T::try_from(number) {
            Ok(number) if range.contains(&number) => Some(number),
            _ => self.out_of_range(key, node, &number, within(&range)),
        }
    }

    /// A number that may have a fraction.
    pub fn fraction(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.get(key)?;
        let number = match node.value {
            Value::Float(number) => number,
            Value::Integer(number) => number as f64,
            _ => return mismatch(self.cx, node, "a number", &within(&range)),
        };
        match range.contains(&number) {
            true => Some(number),
            false => self.out_of_range(key, node, &number, within(&range)),
        }
    }

    /// A duration of at least `least`, at most a year; `default` when absent or wrong.
    pub fn duration(&self, key: &str, least: Duration, default: Duration) -> Duration {
        self.optional_duration(key, least).unwrap_or(default)
    }

    pub fn optional_duration(&self, key: &str, least: Duration) -> Option<Duration> {
        let node = self.get(key)?;
        let expected = "expected a duration such as \"250ms\", \"5s\" or \"1h30m\"";
        let duration = match &node.value {
            Value::Integer(number) => return needs_unit(self.cx, node, "a duration", expected, &format!("{number}s")),
            Value::String(_) => parsed(self.cx, node, expected, parse_duration)?.value,
            _ => return mismatch(self.cx, node, "a duration", expected),
        };
        match (least..=LONGEST).contains(&duration) {
            true => Some(duration),
            false => self.out_of_range(
                key,
                node,
                &self.cx.text(node.span),
                match least.is_zero() {
                    true => "expected at most 365 days".into(),
                    false => format!("expected {least:?} to 365 days"),
                },
            ),
        }
    }

    /// A size in bytes; `range` is told as `range_text`.
    pub fn size(&self, key: &str, range: RangeInclusive<u64>, range_text: &str) -> Option<u64> {
        let node = self.get(key)?;
        let expected = "expected a size such as \"512B\", \"64KiB\" or \"256MiB\"";
        let size = match &node.value {
            Value::Integer(number) => return needs_unit(self.cx, node, "a size", expected, &format!("{number}B")),
            Value::String(_) => parsed(self.cx, node, expected, parse_size)?.value,
            _ => return mismatch(self.cx, node, "a size", expected),
        };
        match range.contains(&size) {
            true => Some(size),
            false => self.out_of_range(key, node, &self.cx.text(node.span), format!("expected {range_text}")),
        }
    }

    /// A string that `parse` accepts; its error is the message, `expected` stands at the place.
    pub fn parsed<T>(&self, key: &str, expected: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<At<T>> {
        parsed(self.cx, self.get(key)?, expected, parse)
    }

    /// One of a few words; those in `later` have a meaning that is not written yet.
    pub fn word<T: Copy>(&self, key: &str, words: &[(&str, T)], later: &[&str]) -> Option<At<T>> {
        let found = self.text(key)?;
        word(self.cx, &found, &format!("`{key}`"), words, later)
    }

    /// A list, each of its values read by `read`.
    pub fn list<T>(&self, key: &str, what: &str, read: impl FnMut(&'a Node) -> Option<T>) -> Option<At<Vec<T>>> {
        let node = self.get(key)?;
        match &node.value {
            Value::Array(nodes) => Some(At {
                value: nodes.iter().filter_map(read).collect(),
                span: node.span,
            }),
            _ => mismatch(self.cx, node, what, &format!("expected {what}")),
        }
    }

    /// As [`Fields::list`], where a single value may stand without brackets.
    pub fn one_or_many<T>(&self, key: &str, mut read: impl FnMut(&'a Node) -> Option<T>) -> Option<At<Vec<T>>> {
        let node = self.get(key)?;
        let value = match &node.value {
            Value::Array(nodes) => nodes.iter().filter_map(read).collect(),
            _ => read(node).into_iter().collect(),
        };
        Some(At { value, span: node.span })
    }

    /// A table whose keys are the user's, such as header names.
    pub fn entries(&self, key: &str, what: &str) -> Option<At<&'a [Entry]>> {
        let node = self.get(key)?;
        match &node.value {
            Value::Table(table) => Some(At {
                value: &table.0,
                span: node.span,
            }),
            _ => mismatch(self.cx, node, what, &format!("expected {what}")),
        }
    }

    fn out_of_range<T>(&self, key: &str, node: &Node, found: &dyn Display, expected: String) -> Option<T> {
        let error = Diagnostic::error(node.span, format!("`{key}` cannot be {found}"));
        self.cx.push(error.label(expected));
        None
    }
}

/// The text of a string.
pub fn text<'a>(cx: &Context<'_>, node: &'a Node) -> Option<At<&'a str>> {
    match &node.value {
        Value::String(text) => Some(At {
            value: text,
            span: node.span,
        }),
        _ => mismatch(cx, node, "a string", "expected a string"),
    }
}

/// A string that `parse` accepts.
pub fn parsed<T>(
    cx: &Context<'_>,
    node: &Node,
    expected: &str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Option<At<T>> {
    let Value::String(text) = &node.value else {
        return mismatch(cx, node, "a string", expected);
    };
    match parse(text) {
        Ok(value) => Some(At { value, span: node.span }),
        Err(message) => {
            cx.push(Diagnostic::error(node.span, message).label(expected));
            None
        }
    }
}

/// One of a few words.
pub fn word<T: Copy>(
    cx: &Context<'_>,
    found: &At<&str>,
    what: &str,
    words: &[(&str, T)],
    later: &[&str],
) -> Option<At<T>> {
    if let Some((_, value)) = words.iter().find(|(name, _)| *name == found.value) {
        return Some(found.with(*value));
    }
    if later.contains(&found.value) {
        cx.push(not_yet(found.span, found.value));
        return None;
    }
    let names = || words.iter().map(|(name, _)| *name);
    cx.push(
        Diagnostic::error(found.span, format!("{what} cannot be `{}`", found.value))
            .label(format!("expected {}", listed(names(), "or")))
            .did_you_mean(found.value, names().chain(later.iter().copied())),
    );
    None
}

/// Reports a value of the wrong type, unless it was reported before.
pub fn mismatch<T>(cx: &Context<'_>, node: &Node, wanted: &str, label: &str) -> Option<T> {
    if !matches!(node.value, Value::Invalid) {
        let message = format!("expected {wanted}, found {}", node.value.kind());
        let error = Diagnostic::error(node.span, message.clone());
        cx.push(match label.strip_prefix("expected ") {
            Some(same) if same == wanted => error,
            _ => error.label(label),
        });
    }
    None
}

/// `a`, `b` and `c`.
pub fn listed(names: impl IntoIterator<Item = impl Display>, word: &str) -> String {
    let mut names: Vec<_> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.pop() {
        Some(last) if names.is_empty() => last,
        Some(last) => format!("{} {word} {last}", names.join(", ")),
        None => "nothing".into(),
    }
}

/// Something with a place in the language but not in this version.
pub fn not_yet(span: Span, name: &str) -> Diagnostic {
    Diagnostic::error(span, format!("`{name}` is not in this version yet"))
}

fn needs_unit<T>(cx: &Context<'_>, node: &Node, wanted: &str, label: &str, example: &str) -> Option<T> {
    let error = Diagnostic::error(node.span, format!("expected {wanted}, found an integer without a unit"));
    cx.push(error.label(label).help(format!("write a unit, as in \"{example}\"")));
    None
}

fn within<T: Display>(range: &RangeInclusive<T>) -> String {
    format!("expected {} to {}", range.start(), range.end())
}

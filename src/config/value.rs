//! A TOML document as an owned tree in which every value knows its place and variables are expanded.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{At, Context, Diagnostic, Span, line_of};
use super::variable;

/// A value and its place.
#[derive(Debug)]
pub struct Node {
    pub value: Value,
    pub span: Span,
}

#[derive(Debug)]
pub enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime,
    Array(Vec<Node>),
    Table(Table),
    /// Already reported: readers pass over it without a word.
    Invalid,
}

/// Keys and values in the order of the file.
#[derive(Debug, Default)]
pub struct Table(pub Vec<(At<String>, Node)>);

impl Value {
    /// What it is, for "found …".
    pub fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
            Self::Invalid => "nothing readable",
        }
    }
}

impl Table {
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.0.iter().find(|(name, _)| name.value == key).map(|(_, node)| node)
    }
}

/// Parses source number `source` of `cx`. Syntax errors are reported and what can be read besides is returned, with
/// `false` when something was lost.
pub fn parse(cx: &mut Context<'_>, source: usize) -> (Table, bool) {
    let text = cx.sources.get(source).map(|file| file.text.clone()).unwrap_or_default();
    let (root, errors) = DeTable::parse_recoverable(&text);
    let mut errors: Vec<_> = errors
        .iter()
        .map(|error| {
            let place = error.span().unwrap_or_default();
            let span = Span {
                source,
                start: place.start,
                end: place.end,
            };
            (span, error.message())
        })
        .collect();
    errors.sort_by_key(|(span, _)| span.start);
    let is_whole = errors.is_empty();
    let mut reported = Vec::new();
    for (span, message) in &errors {
        if cx.is_damaged(*span) {
            continue;
        }
        let line = unreadable_lines(&text, span.start);
        let around = enclosing(root.get_ref(), span.start).unwrap_or(line.clone());
        let region = Span {
            source,
            start: around.start.min(line.start),
            end: around.end.max(line.end),
        };
        cx.damage(region);
        // What is not closed causes a row of errors up to the end of the file: only its start is worth reading.
        let unclosed = errors
            .iter()
            .find(|(other, text)| text.starts_with("unclosed") && (region.start..=region.end).contains(&other.start));
        reported.push(match unclosed {
            Some((_, message)) => syntax_error(
                &text,
                Span {
                    start: around.start,
                    end: around.start + 1,
                    source,
                },
                message,
            ),
            None => syntax_error(&text, *span, message),
        });
    }
    cx.push_all(reported);
    let table = convert_table(cx, source, root.get_ref());
    (table, is_whole)
}

/// The line of a syntax error, and when it is a header that of everything that would be in the wrong section.
fn unreadable_lines(text: &str, at: usize) -> Range<usize> {
    let line = line_of(text, at);
    let is_header = |line: &str| line.trim_start().starts_with('[');
    if !text.get(line.clone()).is_some_and(is_header) {
        return line;
    }
    let mut end = line.end;
    for next in text.get(line.end..).unwrap_or("").split_inclusive('\n').skip(1) {
        if is_header(next) {
            break;
        }
        end += next.len();
    }
    line.start..end
}

/// The place of the outermost value that is not a whole section and holds byte `at`.
fn enclosing(table: &DeTable<'_>, at: usize) -> Option<Range<usize>> {
    fn within(value: &Spanned<DeValue<'_>>, at: usize) -> Option<Range<usize>> {
        let span = value.span();
        if span.start <= at && at <= span.end {
            return Some(span);
        }
        match value.get_ref() {
            DeValue::Table(table) => enclosing(table, at),
            DeValue::Array(array) => array.iter().find_map(|value| within(value, at)),
            _ => None,
        }
    }
    table.iter().find_map(|(_, value)| within(value, at))
}

fn syntax_error(text: &str, span: Span, message: &str) -> Diagnostic {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    if what == "duplicate key" {
        let key = text.get(span.start..span.end).unwrap_or("");
        let error = Diagnostic::error(span, format!("`{key}` is defined twice")).label("again here");
        return match first_definition(text, span) {
            Some(first) => error.related(first, "first here"),
            None => error,
        };
    }
    let (what, expected) = match (what, expected) {
        ("string values must be quoted", _) if span.start == span.end => ("the value is missing", "a value"),
        ("string values must be quoted", _) => ("this is no value", "a string in quotes, a number, `true` or `false`"),
        ("invalid basic string", "`\"`") => ("the string is not closed", "`\"`"),
        ("invalid literal string", "`'`") => ("the string is not closed", "`'`"),
        ("unclosed table", expected) => ("the header is not closed", expected),
        ("unclosed array", expected) => ("the list is not closed", expected),
        ("unclosed inline table", expected) => ("the table is not closed", expected),
        ("key with no value", expected) => ("the key has no value", expected),
        other => other,
    };
    let error = Diagnostic::error(span, what);
    match expected {
        "" => error,
        _ => error.label(format!("expected {expected}")),
    }
}

/// Where the key at `again` was first defined: the same section header further up, or the key within its section.
fn first_definition(text: &str, again: Span) -> Option<Span> {
    let line = line_of(text, again.start);
    let key = text.get(again.start..again.end)?;
    let header = text.get(line.clone())?.trim_start();
    let before = text.get(..line.start)?;
    let mut at = line.start;
    for earlier in before.split_inclusive('\n').rev() {
        at -= earlier.len();
        let start = at + earlier.len() - earlier.trim_start().len();
        let earlier = earlier.trim();
        let found = match header.starts_with('[') {
            true => (earlier == header.trim_end()).then_some(earlier.len()),
            false if earlier.starts_with('[') => return None,
            false => earlier
                .strip_prefix(key)
                .is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
                .then_some(key.len()),
        };
        if let Some(len) = found {
            return Some(Span {
                source: again.source,
                start,
                end: start + len,
            });
        }
    }
    None
}

fn convert_table(cx: &Context<'_>, source: usize, table: &DeTable<'_>) -> Table {
    let mut entries: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            let place = key.span();
            let key = At {
                value: key.get_ref().to_string(),
                span: Span {
                    source,
                    start: place.start,
                    end: place.end,
                },
            };
            (key, convert(cx, source, value))
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.span.start);
    Table(entries)
}

/// Recursion is bounded: the parser refuses deep nesting.
fn convert(cx: &Context<'_>, source: usize, value: &Spanned<DeValue<'_>>) -> Node {
    let place = value.span();
    let span = Span {
        source,
        start: place.start,
        end: place.end,
    };
    let value = match value.get_ref() {
        DeValue::String(text) => match variable::expand(text, |name| cx.env.variable(name)) {
            Ok(text) => Value::String(text),
            Err(problem) => {
                cx.push(problem.diagnostic(cx, span));
                Value::Invalid
            }
        },
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                cx.push(Diagnostic::error(
                    span,
                    format!("`{number}` is not an integer of 64 bits"),
                ));
                Value::Invalid
            }
        },
        DeValue::Float(number) => number.as_str().parse().map_or(Value::Invalid, Value::Float),
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(list) => Value::Array(list.iter().map(|value| convert(cx, source, value)).collect()),
        DeValue::Table(table) => Value::Table(convert_table(cx, source, table)),
    };
    Node { value, span }
}

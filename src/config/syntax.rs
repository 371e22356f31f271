//! What is not TOML: syntax errors told in few words, and the places marked that they make unreadable.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

use super::diagnostic::{Context, Diagnostic, Source, Span};

/// More than these in one file are not told: it is then no configuration.
const MOST: usize = 100;

/// Reports what the parser found in source number `source`; `root` is what it could read besides.
///
/// One error often causes a row of others up to the end of a list or of the file: only the first is told.
pub fn report(cx: &mut Context<'_>, source: usize, root: &DeTable<'_>, errors: Vec<Error>) {
    let mut errors: Vec<(Range<usize>, &str)> = errors
        .iter()
        .map(|error| (error.span().unwrap_or_default(), error.message()))
        .collect();
    errors.sort_by_key(|(place, _)| place.start);
    let mut told = Vec::new();
    for (n, (place, message)) in errors.iter().enumerate() {
        let span = at(source, place.clone());
        let Some(file) = cx.sources.get(source) else {
            return;
        };
        if cx.is_damaged(span) {
            continue;
        }
        if told.len() == MOST {
            told.push(Diagnostic::error(span, "this file has many more errors"));
            cx.damage(at(source, place.start..usize::MAX));
            break;
        }
        if *message == "duplicate key" {
            told.push(defined_twice(file, span));
            cx.damage(at(source, file.line(span.start)));
            continue;
        }
        let lines = unreadable_lines(file, span.start);
        let value = enclosing(root, span.start).unwrap_or(lines.clone());
        let region = value.start.min(lines.start)..value.end.max(lines.end);
        let unclosed = errors
            .iter()
            .skip(n)
            .take_while(|(other, _)| other.start <= region.end)
            .find(|(_, message)| message.starts_with("unclosed"));
        told.push(match unclosed {
            Some((_, message)) => syntax_error(at(source, value.start..value.start + 1), message),
            None => syntax_error(span, message),
        });
        cx.damage(at(source, region));
    }
    for error in told {
        cx.push_always(error);
    }
}

fn at(source: usize, place: Range<usize>) -> Span {
    Span {
        source,
        start: place.start,
        end: place.end,
    }
}

/// The parser's message, in the words of this project where it has its own.
fn syntax_error(span: Span, message: &str) -> Diagnostic {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
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

/// The line of a syntax error; when it is a header, also what follows, which would now be in the wrong section.
fn unreadable_lines(file: &Source, at: usize) -> Range<usize> {
    let line = file.line(at);
    let is_header = |line: &str| line.trim_start().starts_with('[');
    if !file.text.get(line.clone()).is_some_and(is_header) {
        return line;
    }
    let mut end = line.end;
    for next in file.text.get(line.end..).unwrap_or("").split_inclusive('\n').skip(1) {
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

fn defined_twice(file: &Source, again: Span) -> Diagnostic {
    let key = file.text.get(again.start..again.end).unwrap_or("");
    let error = Diagnostic::error(again, format!("`{key}` is defined twice")).label("again here");
    match first_definition(file, again) {
        Some(first) => error.related(first, "first here"),
        None => error,
    }
}

/// Where the key at `again` was first defined: the same header further up, or the key within the same section.
fn first_definition(file: &Source, again: Span) -> Option<Span> {
    let line = file.line(again.start);
    let key = file.text.get(again.start..again.end)?;
    let header = file.text.get(line.clone())?.trim();
    let mut at = line.start;
    for earlier in file.text.get(..line.start)?.split_inclusive('\n').rev() {
        at -= earlier.len();
        let start = at + earlier.len() - earlier.trim_start().len();
        let earlier = earlier.trim();
        let found = match header.starts_with('[') {
            true => (earlier == header).then_some(earlier.len()),
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

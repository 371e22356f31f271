//! Diagnostics as people read them (the line with a caret) and as programs do (file, line, column).

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::diagnostic::{Diagnostic, Label, Severity, Source, Span};

/// Everything that was found wrong with a configuration, in the order of its files and lines.
#[derive(Debug, Clone)]
pub struct Report {
    pub diagnostics: Vec<Diagnostic>,
    sources: Arc<Vec<Source>>,
}

/// One diagnostic with its place worked out, for machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// `error` or `warning`.
    pub severity: &'static str,
    pub message: String,
    pub file: Option<String>,
    /// Counted from 1, in characters.
    pub line: Option<usize>,
    pub column: Option<usize>,
    /// What was expected there.
    pub label: Option<String>,
    pub help: Option<String>,
}

impl Report {
    pub(super) fn new(sources: Arc<Vec<Source>>, diagnostics: Vec<Diagnostic>) -> Self {
        Self { diagnostics, sources }
    }

    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Those that are errors.
    pub fn errors(&self) -> impl Iterator<Item = &Diagnostic> {
        self.diagnostics.iter().filter(|d| d.severity == Severity::Error)
    }

    /// The diagnostics as data.
    pub fn entries(&self) -> Vec<Entry> {
        self.diagnostics.iter().map(|d| self.entry(d)).collect()
    }

    /// As text, each diagnostic with its lines and carets; `color` for a terminal.
    pub fn render(&self, color: bool) -> String {
        let renderer = match color {
            true => Renderer::styled(),
            false => Renderer::plain(),
        };
        let mut text = String::new();
        for (n, diagnostic) in self.diagnostics.iter().enumerate() {
            if n > 0 {
                text.push('\n');
            }
            text.push_str(&renderer.render(&[self.group(diagnostic)]));
            text.push('\n');
        }
        text
    }

    fn entry(&self, diagnostic: &Diagnostic) -> Entry {
        let place = diagnostic.place.as_ref();
        let position = place.and_then(|at| Some((self.source(at.span)?, at.span)));
        let line_and_column = position.map(|(source, span)| {
            let line = source.line(span.start);
            let before = source.text.get(line.start..span.start);
            let column = before.map_or(0, |part| part.chars().count());
            (source.line_number(span.start) + 1, column + 1)
        });
        Entry {
            severity: match diagnostic.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            },
            message: diagnostic.message.clone(),
            file: position.map(|(source, _)| source.name.clone()),
            line: line_and_column.map(|(line, _)| line),
            column: line_and_column.map(|(_, column)| column),
            label: place.map(|at| at.text.clone()).filter(|text| !text.is_empty()),
            help: diagnostic.help.clone(),
        }
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let level = match diagnostic.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut group = Group::with_title(level.primary_title(diagnostic.message.as_str()));
        let mut others: Vec<&Label> = diagnostic.related.iter().collect();
        if let Some(place) = &diagnostic.place {
            let (near, far) = others
                .into_iter()
                .partition(|other| self.are_near(place.span, other.span));
            others = far;
            group = self.add_snippet(group, place, &near);
        }
        for other in others {
            group = self.add_snippet(group, other, &[]);
        }
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    /// Adds the lines of `main` and of `beside`, which stand in the same source.
    fn add_snippet<'a>(&'a self, group: Group<'a>, main: &'a Label, beside: &[&'a Label]) -> Group<'a> {
        let Some(source) = self.source(main.span) else {
            return group;
        };
        let all = || std::iter::once(main).chain(beside.iter().copied());
        let first = all().map(|l| l.span.start).min().unwrap_or(main.span.start);
        let last = all().map(|l| l.span.start).max().unwrap_or(main.span.start);
        // Only these lines are handed over, so that many errors in a long file stay cheap.
        let window = source.line(first).start..source.line(last).end;
        let Some(text) = source.text.get(window.clone()) else {
            return group;
        };
        let number = source.line_number(first) + 1;
        let mut snippet = Snippet::source(text).path(source.name.as_str()).line_start(number);
        for label in all() {
            let kind = match std::ptr::eq(label, main) {
                true => AnnotationKind::Primary,
                false => AnnotationKind::Context,
            };
            let range = first_line(source, label.span);
            let annotation = kind.span(range.start - window.start..range.end - window.start);
            snippet = snippet.annotation(match label.text.is_empty() {
                true => annotation,
                false => annotation.label(label.text.as_str()),
            });
        }
        group.element(snippet)
    }

    fn are_near(&self, a: Span, b: Span) -> bool {
        let lines = |source: &Source| source.line_number(a.start).abs_diff(source.line_number(b.start));
        a.source == b.source && self.source(a).is_some_and(|source| lines(source) < 20)
    }

    fn source(&self, span: Span) -> Option<&Source> {
        self.sources.get(span.source)
    }
}

/// The part of `span` on its first line: carets under a whole table would hide what they point at.
fn first_line(source: &Source, span: Span) -> Range<usize> {
    let text = &source.text;
    let line = source.line(span.start);
    let has_return = text.get(line.clone()).is_some_and(|text| text.ends_with('\r'));
    let start = text.floor_char_boundary(span.start);
    let end = text.floor_char_boundary(span.end);
    start..end.clamp(start, start.max(line.end - usize::from(has_return)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str, start: usize, end: usize) -> Report {
        let source = Source::new("a.toml".into(), "".into(), text.into());
        let span = Span { source: 0, start, end };
        let diagnostic = Diagnostic::error(span, "no").label("here").help("try");
        Report::new(Arc::new(vec![source]), vec![diagnostic])
    }

    #[test]
    fn places_agree_with_what_is_rendered() {
        // A wide character and a tab stand before the place on its line.
        let report = report("x = 1\ny = \"ü\"\t# z\n", 16, 17);
        let entry = report.entries().remove(0);
        assert_eq!((entry.line, entry.column), (Some(2), Some(10)));
        assert_eq!(
            (entry.label.as_deref(), entry.help.as_deref()),
            (Some("here"), Some("try"))
        );
        assert!(report.to_string().contains("a.toml:2:10"), "{report}");
        assert!(report.render(true).contains('\u{1b}') && !report.to_string().contains('\u{1b}'));
    }

    #[test]
    fn renders_any_place_without_panicking() {
        let text = "a = [\r\n 1, 'ü',\r\n]\r\n";
        for start in 0..=text.len() + 2 {
            for end in start..=text.len() + 2 {
                assert!(report(text, start, end).to_string().contains("error: no"));
            }
        }
    }
}

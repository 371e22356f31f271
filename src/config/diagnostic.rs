//! What is said about a configuration: places in its files, diagnostics, and where they are collected.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use super::environment::Environment;

/// One file (or text) of the configuration.
#[derive(Debug)]
pub struct Source {
    /// As the user named it, or as the including file's path and the pattern gave it.
    pub name: String,
    /// What relative paths in it are relative to.
    pub dir: PathBuf,
    pub text: Arc<str>,
    /// Where each line begins.
    lines: Vec<usize>,
}

impl Source {
    pub fn new(name: String, dir: PathBuf, text: String) -> Self {
        let lines = std::iter::once(0).chain(memchr::memchr_iter(b'\n', text.as_bytes()).map(|n| n + 1));
        Self {
            name,
            dir,
            lines: lines.collect(),
            text: text.into(),
        }
    }

    /// The number, from 0, of the line that byte `at` stands on.
    pub fn line_number(&self, at: usize) -> usize {
        self.lines
            .partition_point(|start| *start <= at.min(self.text.len()))
            .saturating_sub(1)
    }

    /// The line that byte `at` stands on, without its `\n`.
    pub fn line(&self, at: usize) -> Range<usize> {
        let n = self.line_number(at);
        let start = self.lines.get(n).copied().unwrap_or_default();
        let end = self.lines.get(n + 1).map_or(self.text.len(), |next| next - 1);
        start..end
    }
}

/// A place: bytes `start..end` of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Index into the list of sources.
    pub source: usize,
    pub start: usize,
    pub end: usize,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct At<T> {
    pub value: T,
    pub span: Span,
}

impl<T> At<T> {
    /// The same place with another value.
    pub fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    Warning,
}

/// A place and what to say about it.
#[derive(Debug, Clone)]
pub struct Label {
    pub span: Span,
    pub text: String,
}

/// One error or warning.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    pub severity: Severity,
    pub message: String,
    /// `None`: about no place in particular, such as a file that cannot be read.
    pub place: Option<Label>,
    /// Other places that play a part.
    pub related: Vec<Label>,
    pub help: Option<String>,
}

impl Diagnostic {
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::at(Severity::Error, span, message.into())
    }

    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self::at(Severity::Warning, span, message.into())
    }

    /// An error that stands nowhere in the text.
    pub fn nowhere(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            place: None,
            related: Vec::new(),
            help: None,
        }
    }

    fn at(severity: Severity, span: Span, message: String) -> Self {
        Self {
            severity,
            message,
            place: Some(Label {
                span,
                text: String::new(),
            }),
            related: Vec::new(),
            help: None,
        }
    }

    /// What was expected, beside the caret.
    pub fn label(mut self, text: impl Into<String>) -> Self {
        if let Some(place) = &mut self.place {
            place.text = text.into();
        }
        self
    }

    pub fn related(mut self, span: Span, text: impl Into<String>) -> Self {
        self.related.push(Label {
            span,
            text: text.into(),
        });
        self
    }

    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// `help: did you mean …?` when one of `names` is near `word`.
    pub fn did_you_mean<'a>(self, word: &str, names: impl IntoIterator<Item = &'a str>) -> Self {
        match nearest(word, names) {
            Some(name) => self.help(format!("did you mean `{name}`?")),
            None => self,
        }
    }
}

/// Everything one run from text to plan shares: the world outside, the sources, and what was said so far.
#[derive(Debug)]
pub struct Context<'e> {
    pub env: &'e Environment,
    pub sources: Vec<Source>,
    diagnostics: RefCell<Vec<Diagnostic>>,
    /// How many of them are errors.
    errors: Cell<usize>,
    /// Regions a syntax error made unreadable: nothing more is said about them. Ordered by source.
    damaged: Vec<Span>,
}

impl<'e> Context<'e> {
    pub fn new(env: &'e Environment) -> Self {
        Self {
            env,
            sources: Vec::new(),
            diagnostics: RefCell::default(),
            errors: Cell::new(0),
            damaged: Vec::new(),
        }
    }

    /// Collects `diagnostic`, unless its place lies where a syntax error was already reported.
    pub fn push(&self, diagnostic: Diagnostic) {
        let is_noise = diagnostic.place.as_ref().is_some_and(|at| self.is_damaged(at.span));
        if !is_noise {
            self.push_always(diagnostic);
        }
    }

    /// Collects `diagnostic`, also where damage was marked: for the error that did it.
    pub fn push_always(&self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Error {
            self.errors.set(self.errors.get() + 1);
        }
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// From now on nothing is said about `span`.
    pub fn damage(&mut self, span: Span) {
        self.damaged.push(span);
    }

    pub fn is_damaged(&self, span: Span) -> bool {
        let first = self.damaged.partition_point(|d| d.source < span.source);
        let mut here = self.damaged.iter().skip(first).take_while(|d| d.source == span.source);
        here.any(|d| span.start <= d.end && d.start <= span.end)
    }

    /// How many errors were collected so far.
    pub fn errors(&self) -> usize {
        self.errors.get()
    }

    /// The sources, and the diagnostics in the order of their places.
    pub fn finish(self) -> (Vec<Source>, Vec<Diagnostic>) {
        let mut diagnostics = self.diagnostics.into_inner();
        diagnostics.sort_by_key(|d| d.place.as_ref().map(|at| (at.span.source, at.span.start)));
        (self.sources, diagnostics)
    }

    /// The text at `span`; empty where there is none.
    pub fn text(&self, span: Span) -> &str {
        let text = self.sources.get(span.source).map_or("", |source| &*source.text);
        text.get(span.start..span.end).unwrap_or("")
    }

    /// `path` as it stands at `span`: relative to the file it stands in.
    pub fn resolve(&self, path: &str, span: Span) -> PathBuf {
        match self.sources.get(span.source) {
            Some(source) => source.dir.join(path),
            None => PathBuf::from(path),
        }
    }
}

/// The name nearest to `word`, when it is near enough to be a slip: a third of its letters at most.
pub fn nearest<'a>(word: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Both bounds keep the cost of a broken file small.
    let (longest_word, most_names) = (64, 500);
    let slips = (word.chars().count() / 3).max(1);
    let word = word.to_lowercase();
    names
        .into_iter()
        .take(most_names)
        .filter(|name| word.len().abs_diff(name.len()) <= slips && word.len().max(name.len()) <= longest_word)
        .map(|name| (strsim::damerau_levenshtein(&word, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggests_only_what_is_near() {
        let names = ["interval", "timeout", "rise", "fall"];
        assert_eq!(nearest("intervall", names), Some("interval"));
        assert_eq!(nearest("Timeout", names), Some("timeout"));
        assert_eq!(nearest("riise", names), Some("rise"));
        assert_eq!(nearest("jitter", names), None);
    }

    #[test]
    fn finds_lines() {
        let source = Source::new(String::new(), PathBuf::new(), "ab\ncd\n".into());
        for (at, number, line) in [
            (0, 0, "ab"),
            (2, 0, "ab"),
            (3, 1, "cd"),
            (5, 1, "cd"),
            (6, 2, ""),
            (99, 2, ""),
        ] {
            assert_eq!(source.line_number(at), number, "{at}");
            assert_eq!(&source.text[source.line(at)], line, "{at}");
        }
    }
}

//! What is said about a configuration: places in its files, diagnostics, and where they are collected.

use std::cell::RefCell;
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
    /// Regions a syntax error made unreadable: nothing more is said about them.
    damaged: Vec<Span>,
}

impl<'e> Context<'e> {
    pub fn new(env: &'e Environment) -> Self {
        Self {
            env,
            sources: Vec::new(),
            diagnostics: RefCell::default(),
            damaged: Vec::new(),
        }
    }

    /// Collects `diagnostic`, unless its place lies where a syntax error was already reported.
    pub fn push(&self, diagnostic: Diagnostic) {
        let is_noise = diagnostic.place.as_ref().is_some_and(|at| self.is_damaged(at.span));
        if !is_noise {
            self.diagnostics.borrow_mut().push(diagnostic);
        }
    }

    /// Collects the errors that damage was marked for.
    pub fn push_all(&self, diagnostics: Vec<Diagnostic>) {
        self.diagnostics.borrow_mut().extend(diagnostics);
    }

    /// From now on nothing is said about `span`.
    pub fn damage(&mut self, span: Span) {
        self.damaged.push(span);
    }

    pub fn is_damaged(&self, span: Span) -> bool {
        self.damaged
            .iter()
            .any(|d| d.source == span.source && span.start <= d.end && d.start <= span.end)
    }

    /// How many errors were collected so far.
    pub fn errors(&self) -> usize {
        let diagnostics = self.diagnostics.borrow();
        diagnostics.iter().filter(|d| d.severity == Severity::Error).count()
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
    let (longest_word, most_names) = (64, 1000);
    let slips = (word.chars().count() / 3).max(1);
    names
        .into_iter()
        .take(most_names)
        .filter(|name| word.len() <= longest_word && name.len() <= longest_word)
        .map(|name| {
            (
                strsim::damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase()),
                name,
            )
        })
        .filter(|(distance, _)| *distance <= slips)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// The line of `text` that byte `at` stands on, without its line end.
pub fn line_of(text: &str, at: usize) -> Range<usize> {
    let at = at.min(text.len());
    let bytes = text.as_bytes();
    let start = bytes.iter().take(at).rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let end = memchr::memchr(b'\n', bytes.get(at..).unwrap_or_default()).map_or(text.len(), |n| at + n);
    start..end
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
        let text = "ab\ncd\n";
        for (at, line) in [(0, "ab"), (2, "ab"), (3, "cd"), (5, "cd"), (6, ""), (99, "")] {
            assert_eq!(&text[line_of(text, at)], line, "{at}");
        }
    }
}

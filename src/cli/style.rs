//! How text for people looks on a terminal.

use std::fmt::Display;

use crate::base::terminal::colours;

/// Colours, or none.
#[derive(Debug, Clone, Copy)]
pub struct Style(bool);

impl Style {
    /// For standard output as it is.
    pub fn of_stdout() -> Self {
        Self(colours(&std::io::stdout()))
    }

    pub fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    pub fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    pub fn red(self, text: impl Display) -> String {
        self.with("31", text)
    }

    pub fn green(self, text: impl Display) -> String {
        self.with("32", text)
    }

    pub fn yellow(self, text: impl Display) -> String {
        self.with("33", text)
    }

    fn with(self, code: &str, text: impl Display) -> String {
        match self.0 {
            true => format!("\x1b[{code}m{text}\x1b[0m"),
            false => text.to_string(),
        }
    }
}

/// Lines with a name in front, all texts one below the other.
pub struct Sheet {
    style: Style,
    text: String,
}

/// Of the names.
const WIDTH: usize = 13;

impl Sheet {
    pub fn new(style: Style) -> Self {
        Self {
            style,
            text: String::new(),
        }
    }

    /// A line with a name; an empty name: one that belongs to the line before.
    pub fn line(&mut self, name: &str, text: impl Display) {
        let padded = format!("{name:<WIDTH$}");
        self.text.push_str(&self.style.bold(padded));
        self.text.push_str(text.to_string().trim_end());
        self.text.push('\n');
    }

    /// A line that explains the one before.
    pub fn why(&mut self, text: impl Display) {
        let dim = self.style.dim(text);
        self.text.push_str(&format!("{:WIDTH$}{dim}\n", ""));
    }

    /// A line of its own.
    pub fn plain(&mut self, text: impl Display) {
        self.text.push_str(&format!("{text}\n"));
    }

    pub fn into_text(self) -> String {
        self.text
    }
}

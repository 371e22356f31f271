//! From files to one document: reading, includes, and merging with every name's first place remembered.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::diagnostic::{At, Context, Diagnostic, Source, Span};
use super::reader::{Fields, Shape, mismatch, text};
use super::value::{Node, Table, Value, parse};

/// Where a configuration begins.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    File(&'a Path),
    /// A text that stands in no file; its relative paths are relative to the current directory.
    Text {
        name: &'a str,
        text: &'a str,
    },
}

/// All files together. Within each list the including file comes before the included ones, those in the order of
/// their names.
#[derive(Debug, Default)]
pub struct Document {
    pub server: Option<Node>,
    pub admin: Option<Node>,
    pub log: Option<Node>,
    pub access_log: Option<Node>,
    pub listeners: Vec<(At<String>, Node)>,
    pub routes: Vec<Node>,
    pub upstreams: Vec<(At<String>, Node)>,
    pub caches: Vec<(At<String>, Node)>,
    /// Something could not be read: what seems to be absent may stand there.
    pub is_partial: bool,
}

pub const ROOT: Shape = Shape {
    what: "a configuration",
    keys: &[
        "include",
        "server",
        "admin",
        "log",
        "access_log",
        "listeners",
        "routes",
        "upstreams",
        "caches",
    ],
    later: &[],
};

const MAX_FILE: u64 = 16 << 20;
const MAX_FILES: usize = 1000;
const MAX_DEPTH: usize = 16;

/// Reads everything `origin` consists of.
pub fn gather(cx: &mut Context<'_>, origin: Origin<'_>) -> Document {
    let mut gathering = Gathering {
        cx,
        document: Document::default(),
        names: BTreeMap::new(),
        files: Vec::new(),
        open: Vec::new(),
    };
    match origin {
        Origin::File(path) => gathering.add_file(path, None),
        Origin::Text { name, text } => gathering.add_text(name.into(), PathBuf::new(), text.into()),
    }
    gathering.document
}

struct Gathering<'c, 'e> {
    cx: &'c mut Context<'e>,
    document: Document,
    /// Where each section, listener and upstream was first defined.
    names: BTreeMap<(&'static str, String), Span>,
    /// Every file read so far, by its canonical path, and those being read now.
    files: Vec<PathBuf>,
    open: Vec<PathBuf>,
}

impl Gathering<'_, '_> {
    /// `from`: the string that includes it.
    fn add_file(&mut self, path: &Path, from: Option<Span>) {
        let identity = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let refusal = if self.open.contains(&identity) {
            Some(format!("`{}` includes itself", path.display()))
        } else if self.files.contains(&identity) {
            Some(format!("`{}` is included twice", path.display()))
        } else if self.open.len() >= MAX_DEPTH {
            Some(format!("includes are nested more than {MAX_DEPTH} deep"))
        } else if self.files.len() >= MAX_FILES {
            Some(format!("more than {MAX_FILES} files are included"))
        } else {
            None
        };
        let content = match refusal {
            Some(message) => Err(message),
            None => read(path),
        };
        match content {
            Ok(content) => {
                self.files.push(identity.clone());
                self.open.push(identity);
                let dir = path.parent().unwrap_or(Path::new("")).to_path_buf();
                self.add_text(path.display().to_string(), dir, content);
                self.open.pop();
            }
            Err(message) => {
                self.document.is_partial = true;
                self.cx.push(match from {
                    Some(span) => Diagnostic::error(span, message),
                    None => Diagnostic::nowhere(message),
                });
            }
        }
    }

    fn add_text(&mut self, name: String, dir: PathBuf, text: String) {
        let source = self.cx.sources.len();
        self.cx.sources.push(Source::new(name, dir, text));
        let (table, is_whole) = parse(self.cx, source);
        self.document.is_partial |= !is_whole;
        let includes = self.merge(source, table);
        for pattern in includes {
            self.include(&pattern);
        }
    }

    /// Takes over every section of one file; returns what it includes.
    fn merge(&mut self, source: usize, table: Table) -> Vec<At<String>> {
        let start = Span {
            source,
            start: 0,
            end: 0,
        };
        let fields = Fields::new(self.cx, &table, start, &ROOT);
        let pattern = |node| text(self.cx, node).map(|found| found.with(found.value.to_owned()));
        let includes = fields.one_or_many("include", pattern);
        for (key, node) in table.0 {
            let document = &mut self.document;
            let (section, slot) = match key.value.as_str() {
                "server" => ("server", &mut document.server),
                "admin" => ("admin", &mut document.admin),
                "log" => ("log", &mut document.log),
                "access_log" => ("access_log", &mut document.access_log),
                "listeners" => {
                    self.merge_named("listener", node);
                    continue;
                }
                "upstreams" => {
                    self.merge_named("upstream", node);
                    continue;
                }
                "caches" => {
                    self.merge_named("cache", node);
                    continue;
                }
                "routes" => {
                    match node.value {
                        Value::Array(routes) => document.routes.extend(routes),
                        _ => {
                            document.is_partial = true;
                            let hint = "routes are a list: each begins with `[[routes]]`";
                            mismatch::<()>(self.cx, &node, "a list of routes", hint);
                        }
                    }
                    continue;
                }
                _ => continue,
            };
            match self.names.get(&(section, String::new())) {
                Some(first) => self.cx.push(
                    Diagnostic::error(node.span, format!("`[{section}]` stands in two files"))
                        .label("again here")
                        .related(*first, "first here"),
                ),
                None => {
                    self.names.insert((section, String::new()), node.span);
                    *slot = Some(node);
                }
            }
        }
        includes.map(|found| found.value).unwrap_or_default()
    }

    fn merge_named(&mut self, what: &'static str, node: Node) {
        let Value::Table(table) = node.value else {
            self.document.is_partial = true;
            let hint = format!("each {what} has a table of its own: `[{what}s.NAME]`");
            mismatch::<()>(self.cx, &node, "a table", &hint);
            return;
        };
        for (name, node) in table.0 {
            match self.names.get(&(what, name.value.clone())) {
                Some(first) => self.cx.push(
                    Diagnostic::error(name.span, format!("the {what} `{}` is defined twice", name.value))
                        .label("again here")
                        .related(*first, "first here"),
                ),
                None => {
                    self.names.insert((what, name.value.clone()), name.span);
                    match what {
                        "listener" => self.document.listeners.push((name, node)),
                        "cache" => self.document.caches.push((name, node)),
                        _ => self.document.upstreams.push((name, node)),
                    }
                }
            }
        }
    }

    /// A plain name must exist; a pattern (`*`, `?`, `[…]`) may match nothing.
    fn include(&mut self, pattern: &At<String>) {
        let span = pattern.span;
        let is_pattern = pattern.value.contains(['*', '?', '[']);
        if !is_pattern {
            let path = self.cx.resolve(&pattern.value, span);
            return self.add_file(&path, Some(span));
        }
        let dir = self.cx.resolve("", span);
        let dir = glob::Pattern::escape(&dir.to_string_lossy());
        let full = Path::new(&dir).join(&pattern.value);
        let paths = match glob::glob(&full.to_string_lossy()) {
            Ok(paths) => paths,
            Err(error) => {
                let message = format!("`{}` is not a pattern of file names: {}", pattern.value, error.msg);
                return self.cx.push(Diagnostic::error(span, message));
            }
        };
        let mut files: Vec<PathBuf> = Vec::new();
        for path in paths.take(MAX_FILES + 1) {
            match path {
                Ok(path) if path.is_dir() => {}
                Ok(path) => files.push(path),
                Err(error) => {
                    let message = format!("cannot read `{}`: {}", error.path().display(), error.error());
                    self.cx.push(Diagnostic::error(span, message));
                }
            }
        }
        if files.is_empty() {
            self.cx.push(Diagnostic::warning(
                span,
                format!("no file matches `{}`", pattern.value),
            ));
        }
        files.sort();
        for path in files {
            self.add_file(&path, Some(span));
        }
    }
}

fn read(path: &Path) -> Result<String, String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(format!("`{}` is larger than 16 MiB", path.display()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = error
            .as_bytes()
            .iter()
            .take(error.utf8_error().valid_up_to())
            .filter(|b| **b == b'\n')
            .count()
            + 1;
        format!("`{}` is not UTF-8 text: see line {line}", path.display())
    })
}

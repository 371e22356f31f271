//! `[[routes]]`: the predicates; what is done then stands in [`super::action`].

use http::Method;
use regex::RegexBuilder;

use super::action::{self, Action};
use super::name::{check_name, header_fields, host_pattern, is_token, networks, reference};
use crate::config::diagnostic::{At, Context, Diagnostic, Span};
use crate::config::reader::{Fields, Shape, listed, parsed, text};
use crate::config::value::Node;
use crate::route::{Matcher, PathMatch};

#[derive(Debug)]
pub struct Route {
    pub name: Option<At<String>>,
    pub span: Span,
    /// Its keys.
    pub written: Vec<At<String>>,
    /// `None`: all HTTP listeners.
    pub listeners: Option<At<Vec<At<String>>>>,
    pub matcher: Matcher,
    /// `None`: reported as missing or wrong.
    pub action: Option<Action>,
    /// Nothing of it was dropped because it was wrong.
    pub is_whole: bool,
}

pub const ROUTE: Shape = Shape {
    what: "a route",
    keys: &[
        "name",
        "listeners",
        "hosts",
        "path",
        "path_exact",
        "path_regex",
        "methods",
        "headers",
        "query",
        "cookies",
        "sources",
        "priority",
        "upstream",
        "split",
        "redirect",
        "respond",
        "timeout",
        "max_duration",
        "importance",
        "hedge",
        "max_body",
        "cache",
    ],
    later: &[],
};

/// Bound on a compiled path pattern in bytes; ordinary ones take some kilobytes.
const MAX_REGEX: usize = 1 << 20;

pub fn read(cx: &Context<'_>, node: &Node) -> Option<Route> {
    let before = cx.errors();
    let fields = Fields::of(cx, node, &ROUTE)?;
    let name = fields.text("name").map(|found| found.with(found.value.to_owned()));
    if let Some(name) = &name {
        check_name(cx, name);
    }
    let listeners = fields.list("listeners", "a list of listeners", |node| reference(cx, node));
    let matcher = Matcher {
        hosts: some(&fields, "hosts", |node| {
            parsed(cx, node, "expected a host name", host_pattern).map(|found| found.value)
        }),
        path: path(&fields),
        methods: some(&fields, "methods", |node| method(cx, node)),
        headers: header_fields(&fields, "headers"),
        query: pairs(&fields, "query", |_| Ok(())),
        cookies: pairs(&fields, "cookies", |name| match is_token(name) {
            true => Ok(()),
            false => Err(format!("`{name}` is not the name of a cookie")),
        }),
        sources: networks(&fields, "sources"),
        priority: fields.number("priority", i32::MIN..=i32::MAX).unwrap_or_default(),
    };
    if let Some(node) = fields.get("sources")
        && matcher.sources.is_empty()
        && cx.errors() == before
    {
        cx.push(empty(node.span, "sources"));
    }
    let action = action::read(&fields);
    Some(Route {
        name,
        span: fields.span,
        written: fields.written(),
        listeners,
        matcher,
        action,
        is_whole: cx.errors() == before,
    })
}

/// A list that, when it is written, has something in it: a predicate that nothing fulfils is a slip.
fn some<'a, T>(fields: &Fields<'a>, key: &str, read: impl FnMut(&'a Node) -> Option<T>) -> Vec<T> {
    let before = fields.cx.errors();
    let Some(list) = fields.list(key, "a list of strings", read) else {
        return Vec::new();
    };
    if list.value.is_empty() && fields.cx.errors() == before {
        fields.cx.push(empty(list.span, key));
    }
    list.value
}

fn empty(span: Span, key: &str) -> Diagnostic {
    Diagnostic::error(span, format!("`{key}` is empty: leave it out to match everything"))
}

fn path(fields: &Fields<'_>) -> PathMatch {
    let keys = fields.present(&["path", "path_exact", "path_regex"]);
    if let [first, second, ..] = keys.as_slice() {
        let message = format!(
            "{} exclude each other",
            listed(keys.iter().map(|key| &key.value), "and")
        );
        fields
            .cx
            .push(Diagnostic::error(second.span, message).related(first.span, "already said here"));
    }
    let expected = "expected a path such as \"/api\"";
    let prefix = || {
        let path = fields.parsed("path", expected, plain_path)?.value;
        Some(without_last_slash(PathMatch::Prefix(path)))
    };
    let exact = || {
        Some(PathMatch::Exact(
            fields.parsed("path_exact", expected, plain_path)?.value,
        ))
    };
    let regex = || {
        let expected = "expected a regular expression for the whole path";
        Some(PathMatch::Regex(fields.parsed("path_regex", expected, regex)?.value))
    };
    // All of them are read, so that each is checked.
    let (prefix, exact, regex) = (prefix(), exact(), regex());
    prefix.or(exact).or(regex).unwrap_or_default()
}

/// `/api/` says the same as `/api`, for whole segments are matched.
fn without_last_slash(path: PathMatch) -> PathMatch {
    match path {
        PathMatch::Prefix(text) if text.len() > 1 && text.ends_with('/') => {
            PathMatch::Prefix(text.trim_end_matches('/').to_owned())
        }
        other => other,
    }
}

/// A path as requests have it once they are normalised.
pub fn plain_path(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err(format!("`{text}` does not start with `/`"));
    }
    if text.contains(['?', '#']) {
        return Err(format!(
            "`{text}`: a path is matched without its query, which `query` matches"
        ));
    }
    if text.contains("//") || text.split('/').any(|segment| segment == "." || segment == "..") {
        return Err(format!(
            "`{text}` matches no request: `//`, `.` and `..` are resolved before routes are looked up"
        ));
    }
    if let Some(c) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Err(format!(
            "`{text}`: {c:?} stands in paths percent-encoded, as in `%20` for a space"
        ));
    }
    Ok(text.into())
}

fn regex(text: &str) -> Result<regex::Regex, String> {
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("`{text}` matches no path: every path starts with `/`"));
    }
    // Alone first: `a)|(b` would become valid by the anchors around it.
    for pattern in [text, &format!("^(?:{text})$")] {
        let compiled = RegexBuilder::new(pattern)
            .size_limit(MAX_REGEX)
            .dfa_size_limit(MAX_REGEX)
            .build();
        match compiled {
            Ok(regex) if pattern != text => return Ok(regex),
            Ok(_) => {}
            Err(regex::Error::CompiledTooBig(_)) => return Err(format!("`{text}` is too large a regular expression")),
            Err(error) => {
                // The error draws a picture of its own; its last line says what is wrong.
                let picture = error.to_string();
                let last = picture.lines().last().unwrap_or_default();
                let reason = last.trim_start_matches("error: ");
                return Err(format!("`{text}` is not a regular expression: {reason}"));
            }
        }
    }
    Err(format!("`{text}` is not a regular expression"))
}

fn method(cx: &Context<'_>, node: &Node) -> Option<Method> {
    let found = text(cx, node)?;
    let upper = found.value.to_ascii_uppercase();
    match Method::from_bytes(found.value.as_bytes()) {
        Ok(method) if upper == found.value => Some(method),
        Ok(_) => {
            let message = format!("`{}` is no method: methods are upper case", found.value);
            cx.push(Diagnostic::error(found.span, message).help(format!("did you mean `{upper}`?")));
            None
        }
        Err(_) => {
            cx.push(Diagnostic::error(
                found.span,
                format!("`{}` is not a method", found.value),
            ));
            None
        }
    }
}

/// `{ name = "value" }` where the names are case-sensitive.
fn pairs(fields: &Fields<'_>, key: &str, check: impl Fn(&str) -> Result<(), String>) -> Vec<(String, String)> {
    let Some(entries) = fields.entries(key, "a table of names and values") else {
        return Vec::new();
    };
    let read = |(name, node): &(At<String>, Node)| {
        if let Err(message) = check(&name.value) {
            fields.cx.push(Diagnostic::error(name.span, message));
        }
        Some((name.value.clone(), text(fields.cx, node)?.value.to_owned()))
    };
    entries.value.iter().filter_map(read).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_hold_for_the_whole_path() {
        let regex = regex("/a|/b/[0-9]+").unwrap();
        for (path, matches) in [
            ("/a", true),
            ("/b/12", true),
            ("/ab", false),
            ("/x/a", false),
            ("/b/1x", false),
        ] {
            assert_eq!(regex.is_match(path), matches, "{path}");
        }
    }

    #[test]
    fn refuses_patterns() {
        for text in ["/a)|(/b", "/(", "/a{1000}{1000}", "api", "/\\p{nonsense}"] {
            let error = super::regex(text).unwrap_err();
            assert!(error.contains(text) && error.lines().count() == 1, "{error}");
        }
    }

    #[test]
    fn a_last_slash_makes_no_difference() {
        let path = |text: &str| without_last_slash(PathMatch::Prefix(text.into()));
        assert!(matches!(path("/api/"), PathMatch::Prefix(text) if text == "/api"));
        assert!(matches!(path("/"), PathMatch::Prefix(text) if text == "/"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[/a(){}|*+?\\[\\]\\\\.^$0-9,ü]{0,12}") {
            let _ = (regex(&text), plain_path(&text));
        }
    }
}

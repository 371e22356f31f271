//! Which POST requests ask a GraphQL server and change nothing. What is not proven to be a query is none: an answer to
//! what changes something must never come from a store.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::reason::Reason;

/// Braces and brackets within each other; deeper documents are not looked into.
const MAX_DEPTH: usize = 256;
/// Operations of a document.
const MAX_OPERATIONS: usize = 64;
/// Letters of an operation's name; a longer one is none.
const MAX_NAME: usize = 128;

/// A body as "GraphQL over HTTP" has it. Another member, or one that stands twice, is an error: some server may read it
/// otherwise.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request<'a> {
    #[serde(borrow)]
    query: Cow<'a, str>,
    #[serde(borrow, default, rename = "operationName")]
    name: Option<Cow<'a, str>>,
    #[serde(default, rename = "variables")]
    _variables: IgnoredAny,
    #[serde(default)]
    extensions: Option<BTreeMap<String, IgnoredAny>>,
}

/// The name of the query that a body asks for; empty: it has none.
pub fn query(content_type: &[u8], body: &[u8]) -> Result<String, Reason> {
    let (kind, parameters) = match memchr::memchr(b';', content_type) {
        Some(at) => content_type.split_at(at),
        None => (content_type, &b""[..]),
    };
    let parameters = parameters.trim_ascii().to_ascii_lowercase();
    if !matches!(
        parameters.as_slice(),
        b"" | b";" | b"; charset=utf-8" | b";charset=utf-8" | b"; charset=\"utf-8\""
    ) {
        return Err(Reason::ContentType);
    }
    let kind = kind.trim_ascii().to_ascii_lowercase();
    let (document, name) = match kind.as_slice() {
        b"application/json" => {
            // A list is a batch, and one without `query` names what the server has stored.
            let request: Request<'_> = serde_json::from_slice(body).map_err(|_| Reason::NotQuery)?;
            let by_hash = request
                .extensions
                .is_some_and(|extensions| extensions.contains_key("persistedQuery"));
            if by_hash {
                return Err(Reason::NotQuery);
            }
            (request.query, request.name)
        }
        b"application/graphql" => {
            let text = std::str::from_utf8(body).map_err(|_| Reason::NotQuery)?;
            (Cow::Borrowed(text), None)
        }
        _ => return Err(Reason::ContentType),
    };
    let names = queries(&document).ok_or(Reason::NotQuery)?;
    let chosen = match (name.as_deref().filter(|name| !name.is_empty()), names.as_slice()) {
        (None, [only]) => *only,
        (Some(name), names) => names.iter().find(|found| **found == name).ok_or(Reason::NotQuery)?,
        _ => return Err(Reason::NotQuery),
    };
    Ok(if chosen.len() <= MAX_NAME {
        chosen.to_owned()
    } else {
        String::new()
    })
}

/// The names of a document's operations, empty for one without. `None`: not all are queries, or it is no document.
fn queries(document: &str) -> Option<Vec<&str>> {
    let mut tokens = Tokens(document);
    let mut names = Vec::new();
    loop {
        let is_query = match tokens.next() {
            Token::End => return (!names.is_empty()).then_some(names),
            Token::Mark(b'{') => {
                names.push("");
                tokens.close(b'{')?;
                continue;
            }
            Token::Name("query") => true,
            Token::Name("fragment") => false,
            _ => return None,
        };
        let mut first = true;
        loop {
            match tokens.next() {
                Token::Name(name) if first && is_query => names.push(name),
                Token::Mark(b'{') => {
                    if first && is_query {
                        names.push("");
                    }
                    tokens.close(b'{')?;
                    break;
                }
                Token::Mark(open @ (b'(' | b'[')) => {
                    if first && is_query {
                        names.push("");
                    }
                    tokens.close(open)?;
                }
                Token::Mark(b'@' | b':' | b'$' | b'!') | Token::Name(_) => {
                    if first && is_query {
                        names.push("");
                    }
                }
                _ => return None,
            }
            first = false;
        }
        if names.len() > MAX_OPERATIONS {
            return None;
        }
    }
}

enum Token<'a> {
    Name(&'a str),
    /// One byte that is neither.
    Mark(u8),
    /// Strings and numbers.
    Value,
    Wrong,
    End,
}

/// What is left of a document.
struct Tokens<'a>(&'a str);

impl<'a> Tokens<'a> {
    fn take(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.0.split_at_checked(bytes).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }

    fn next(&mut self) -> Token<'a> {
        loop {
            let Some(byte) = self.0.bytes().next() else {
                return Token::End;
            };
            match byte {
                b' ' | b'\t' | b'\n' | b'\r' | b',' => drop(self.take(1)),
                b'#' => {
                    let end = self.0.find(['\n', '\r']).unwrap_or(self.0.len());
                    // Servers differ in what else ends a line.
                    let odd = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}' | '\u{2029}');
                    if self.take(end).contains(odd) {
                        return Token::Wrong;
                    }
                }
                b'_' | b'a'..=b'z' | b'A'..=b'Z' => {
                    let is_part = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
                    let end = self.0.bytes().position(|b| !is_part(b)).unwrap_or(self.0.len());
                    return Token::Name(self.take(end));
                }
                b'"' => return self.string(),
                b'-' | b'0'..=b'9' => {
                    let is_part = |b: u8| matches!(b, b'-' | b'+' | b'.') || b.is_ascii_alphanumeric();
                    let end = self.0.bytes().position(|b| !is_part(b)).unwrap_or(self.0.len());
                    self.take(end);
                    return Token::Value;
                }
                b'!' | b'$' | b'&' | b'(' | b')' | b'.' | b':' | b'=' | b'@' | b'[' | b']' | b'{' | b'|' | b'}' => {
                    self.take(1);
                    return Token::Mark(byte);
                }
                _ => return Token::Wrong,
            }
        }
    }

    fn string(&mut self) -> Token<'a> {
        let block = self.0.starts_with("\"\"\"");
        let quotes = if block { "\"\"\"" } else { "\"" };
        self.take(quotes.len());
        loop {
            let stops: &[char] = if block { &['"', '\\'] } else { &['"', '\\', '\n', '\r'] };
            let Some(at) = self.0.find(stops) else {
                return Token::Wrong;
            };
            self.take(at);
            if self.0.starts_with(quotes) {
                self.take(quotes.len());
                return Token::Value;
            }
            match self.0.bytes().next() {
                Some(b'\\') if block => {
                    let escaped = if self.0.starts_with("\\\"\"\"") { 4 } else { 1 };
                    self.take(escaped);
                }
                // What is escaped is one ASCII character.
                Some(b'\\') if self.0.is_char_boundary(2) && self.0.len() > 2 => drop(self.take(2)),
                Some(b'"') if block => drop(self.take(1)),
                _ => return Token::Wrong,
            }
        }
    }

    /// Reads on until what `open` began is closed.
    fn close(&mut self, open: u8) -> Option<()> {
        let mut inside = vec![open];
        while let Some(innermost) = inside.last() {
            match self.next() {
                Token::Mark(open @ (b'{' | b'(' | b'[')) if inside.len() < MAX_DEPTH => inside.push(open),
                Token::Mark(close @ (b'}' | b')' | b']')) => {
                    let matching = matches!((*innermost, close), (b'{', b'}') | (b'(', b')') | (b'[', b']'));
                    matching.then(|| inside.pop())?;
                }
                Token::Mark(b'{' | b'(' | b'[') | Token::Wrong | Token::End => return None,
                Token::Name(_) | Token::Mark(_) | Token::Value => {}
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(body: &str) -> Result<String, Reason> {
        query(b"application/json", body.as_bytes())
    }

    fn document(text: &str) -> Result<String, Reason> {
        query(b"application/graphql", text.as_bytes())
    }

    #[test]
    fn queries_are_found_with_their_names() {
        for (text, name) in [
            ("{ a }", ""),
            ("query { a }", ""),
            ("query Get { a }", "Get"),
            (
                "query Get($v: T = {a: [1, 2]}, $w: [Int!]! = [1]) @live(x: \"}\") { a(x: $v) { b } }",
                "Get",
            ),
            ("query ($v: Int) { a }", ""),
            ("query @d { a }", ""),
            ("# mutation { a }\nquery Get { a }", "Get"),
            ("fragment F on T @d { a } query Get { ...F }", "Get"),
            ("query mutation { a }", "mutation"),
            ("{ a(s: \"} mutation { \\\" b\") }", ""),
            ("{ a(s: \"\"\"} mutation \\\"\"\" {\" \"\"\") }", ""),
            ("{ mutation subscription }", ""),
        ] {
            assert_eq!(document(text).as_deref(), Ok(name), "{text}");
        }
        for (body, name) in [
            (r#"{"query": "{ a }"}"#, ""),
            (r#"{"query": "query A { a } query B { b }", "operationName": "B"}"#, "B"),
            (
                r#"{"query": "query A { a }", "operationName": null, "variables": {"query": "mutation"}}"#,
                "A",
            ),
            (r#"{"query": "{ a }", "extensions": {"clientLibrary": {}}}"#, ""),
            (r#"{"qu\u0065ry": "{ \u0061 }"}"#, ""),
        ] {
            assert_eq!(json(body).as_deref(), Ok(name), "{body}");
        }
    }

    #[test]
    fn what_is_not_proven_to_be_a_query_is_none() {
        for text in [
            "mutation { a }",
            "mutation M { a } query Q { b }",
            "query Q { b } mutation M { a }",
            "subscription { a }",
            "{ a } extend type T { a: Int }",
            "\"described\" query { a }",
            "fragment F on T { a }",
            "query A { a } query B { b }",
            "# \u{2028}\n{ a }",
            "# \u{b}\n{ a }",
            "\u{0}{ a }",
            "query { a",
            "query { a ) }",
            "query { a } }",
            "query A = { a }",
            "{ a(s: \"\n\") }",
            "{ a(s: \"\\\u{e9}\") }",
            "",
            "query",
        ] {
            assert_eq!(document(text), Err(Reason::NotQuery), "{text}");
        }
        let deep = format!("{}{}", "{ a ".repeat(300), "}".repeat(300));
        assert_eq!(document(&deep), Err(Reason::NotQuery));
        for body in [
            r#"[{"query": "{ a }"}]"#,
            r#"{"query": "{ a }", "query": "mutation { a }"}"#,
            r#"{"query": "mutation { a }", "query": "{ a }"}"#,
            r#"{"Query": "mutation { a }", "query": "{ a }"}"#,
            r#"{"query": "{ a }", "operationName": "B"}"#,
            r#"{"query": "query A { a } mutation B { b }", "operationName": "A"}"#,
            r#"{"query": "{ a }", "extensions": {"persistedQuery": {"sha256Hash": "x"}}}"#,
            r#"{"extensions": {"persistedQuery": {"sha256Hash": "x"}}}"#,
            r#"{"id": "1"}"#,
            r#"{"query": 1}"#,
            r#"{"query": "{ a }"} {}"#,
            "query=%7Ba%7D",
            "",
        ] {
            assert_eq!(json(body), Err(Reason::NotQuery), "{body}");
        }
    }

    #[test]
    fn only_content_types_of_graphql_are_looked_into() {
        let body = br#"{"query": "{ a }"}"#;
        for (kind, expected) in [
            ("application/json", Ok(String::new())),
            ("Application/JSON; charset=UTF-8", Ok(String::new())),
            ("application/json; charset=utf-16", Err(Reason::ContentType)),
            ("text/plain", Err(Reason::ContentType)),
            ("application/x-www-form-urlencoded", Err(Reason::ContentType)),
            ("multipart/form-data", Err(Reason::ContentType)),
            ("", Err(Reason::ContentType)),
        ] {
            assert_eq!(query(kind.as_bytes(), body), expected, "{kind}");
        }
    }

    proptest! {
        /// Whatever stands around it, a definition that changes something is noticed.
        #[test]
        fn no_mutation_is_taken_for_a_query(before in "[a-z{}()\" #\n\\\\,]{0,40}", after in "[a-z{}()\" #\n]{0,20}") {
            let balanced = queries(&before).is_some();
            let text = format!("{before}\nmutation M {{ a }}{after}");
            if balanced {
                prop_assert_eq!(queries(&text), None, "{}", text);
            }
            let _ = queries(&text);
        }
    }
}

//! `${NAME}` and `${NAME:-default}` in strings.

use super::diagnostic::{Context, Diagnostic, Span};

/// A reference that cannot be expanded.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reference as far as it can be recognised, to find it in the source.
    reference: String,
    message: String,
    help: Option<String>,
}

/// Replaces every `${NAME}` in `text` by the variable's value and `${NAME:-default}` by the default when the variable is
/// absent or empty (as in a shell). `$$` is a `$`; any other `$` stays as it is.
pub fn expand(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, Problem> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            rest = after;
            continue;
        }
        let Some(inner) = after.strip_prefix('{') else {
            expanded.push('$');
            rest = after;
            continue;
        };
        let Some((reference, after)) = inner.split_once('}') else {
            return Err(Problem {
                reference: "${".into(),
                message: "`${` is not closed".into(),
                help: Some("write `${NAME}` for an environment variable, `$$` for a plain `$`".into()),
            });
        };
        expanded.push_str(&value(reference, &variable)?);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn value(reference: &str, variable: impl Fn(&str) -> Option<String>) -> Result<String, Problem> {
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    let problem = |message, help| Problem {
        reference: format!("${{{reference}}}"),
        message,
        help,
    };
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit());
    if !is_name {
        let message = format!("`{name}` is not the name of an environment variable");
        return Err(problem(message, Some("write `$$` for a plain `$`".into())));
    }
    match (variable(name), default) {
        (Some(value), None) => Ok(value),
        (Some(value), Some(_)) if !value.is_empty() => Ok(value),
        (_, Some(default)) => Ok(default.into()),
        (None, None) => {
            let help = format!("set it, or give a default as in `${{{name}:-default}}`");
            Err(problem(
                format!("the environment variable `{name}` is not set"),
                Some(help),
            ))
        }
    }
}

impl Problem {
    /// As an error about the string at `span`, narrowed to the reference.
    pub fn diagnostic(self, cx: &Context<'_>, span: Span) -> Diagnostic {
        let place = match cx.text(span).find(&self.reference) {
            Some(at) => Span {
                source: span.source,
                start: span.start + at,
                end: span.start + at + self.reference.len(),
            },
            None => span,
        };
        let error = Diagnostic::error(place, self.message);
        match self.help {
            Some(help) => error.help(help),
            None => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn variables(name: &str) -> Option<String> {
        match name {
            "HOST" => Some("a.example".into()),
            "EMPTY" => Some(String::new()),
            "SIGNS" => Some("${HOST}$$".into()),
            _ => None,
        }
    }

    #[test]
    fn expands() {
        for (text, expected) in [
            ("", ""),
            ("plain", "plain"),
            ("${HOST}:80", "a.example:80"),
            ("${HOST:-x}${NONE:-b.example}", "a.exampleb.example"),
            ("${EMPTY}${EMPTY:-x}${NONE:-}", "x"),
            ("^/a$", "^/a$"),
            ("$$HOST $${HOST} $HOST", "$HOST ${HOST} $HOST"),
            ("${SIGNS}", "${HOST}$$"),
        ] {
            assert_eq!(expand(text, variables).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn refuses() {
        for (text, part) in [
            ("${NONE}", "`NONE` is not set"),
            ("a ${HOST", "not closed"),
            ("${}", "not the name"),
            ("${1A}", "not the name"),
            ("${A B}", "not the name"),
            ("${HOST:x}", "not the name"),
        ] {
            let problem = expand(text, variables).unwrap_err();
            assert!(problem.message.contains(part), "{text}: {problem:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "[a$\\{\\}:ü-]{0,16}") {
            let _ = expand(&text, variables);
        }

        #[test]
        fn doubled_signs_are_read_back(text in "\\PC{0,16}") {
            prop_assert_eq!(expand(&text.replace('$', "$$"), variables), Ok(text));
        }
    }
}

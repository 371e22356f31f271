//! A TOML document as an owned tree in which every value knows its place and variables are expanded.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostic::{At, Context, Diagnostic, Span};
use super::{syntax, variable};

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
    let is_whole = errors.is_empty();
    syntax::report(cx, source, root.get_ref(), errors);
    let table = convert_table(cx, source, root.get_ref());
    (table, is_whole)
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

//! A line of the access log as text for people or as JSON for machines.

use std::fmt::{self, Display, Write as _};
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::Line;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Positional fields as in the common log format, then `name=value` pairs.
    Text,
    /// One object per line; times in seconds; what does not apply is `null`.
    Json,
}

impl Format {
    /// Adds `line` and its line feed to `out`.
    pub fn render(self, line: &Line, out: &mut Vec<u8>) {
        // Writing to memory does not fail; a line that cannot be rendered would be a bug, and is left out whole.
        let start = out.len();
        let result = match self {
            Self::Text => text(line, out),
            Self::Json => json(line, out),
        };
        match result {
            Ok(()) => out.push(b'\n'),
            Err(_) => out.truncate(start),
        }
    }
}

/// The time with microseconds, in UTC (RFC 3339), always as wide.
fn timestamp(line: &Line) -> String {
    let t = OffsetDateTime::from(line.time);
    let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
    let (hour, minute, second, micros) = (t.hour(), t.minute(), t.second(), t.microsecond());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

#[derive(Serialize)]
struct Json<'a> {
    time: String,
    listener: &'a str,
    client: &'a str,
    protocol: &'a str,
    method: Option<&'a str>,
    host: Option<&'a str>,
    target: Option<&'a str>,
    status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    route: Option<&'a str>,
    upstream: Option<&'a str>,
    endpoint: Option<&'a str>,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    queued_seconds: Option<f64>,
    total_seconds: f64,
    connect_seconds: Option<f64>,
    response_seconds: Option<f64>,
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sticky: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desync: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    desync_reason: Option<&'a str>,
    user_agent: Option<&'a str>,
}

fn json(line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
    let some = |text: &'_ str| !text.is_empty();
    let seconds = |d: Duration| d.as_micros() as f64 / 1e6;
    let json = Json {
        time: timestamp(line),
        listener: &line.listener,
        client: &line.client,
        protocol: line.protocol,
        method: Some(line.method.as_str()).filter(|t| some(t)),
        host: Some(line.host.as_str()).filter(|t| some(t)),
        target: Some(line.target.as_str()).filter(|t| some(t)),
        status: Some(line.status).filter(|s| *s > 0),
        bytes_in: line.bytes_in,
        bytes_out: line.bytes_out,
        route: line.route.as_deref(),
        upstream: line.upstream.as_deref(),
        endpoint: line.endpoint.as_deref(),
        attempts: line.attempts,
        queued_seconds: line.queued.map(seconds),
        total_seconds: seconds(line.total),
        connect_seconds: line.connect.map(seconds),
        response_seconds: line.response.map(seconds),
        error: line.error.as_deref(),
        cache: line.cache,
        operation: line.operation.as_deref(),
        sticky: line.sticky,
        desync: line.desync.map(|(class, _)| class),
        desync_reason: line.desync.map(|(_, reason)| reason),
        user_agent: line.user_agent.as_deref(),
    };
    Ok(serde_json::to_writer(out, &json)?)
}

fn text(line: &Line, out: &mut Vec<u8>) -> io::Result<()> {
    write!(
        out,
        "{} {} {}",
        timestamp(line),
        Word(&line.client),
        Word(&line.listener)
    )?;
    if line.status > 0 {
        let (method, target, protocol) = (&line.method, &line.target, line.protocol);
        write!(
            out,
            " \"{} {} {protocol}\" {}",
            Quoted(method),
            Quoted(target),
            line.status
        )?;
    } else {
        write!(out, " {}", line.protocol)?;
    }
    write!(out, " host={}", Word(&line.host))?;
    write!(out, " in={} out={}", line.bytes_in, line.bytes_out)?;
    write!(out, " route={}", Word(line.route.as_deref().unwrap_or_default()))?;
    write!(out, " upstream={}", Word(line.upstream.as_deref().unwrap_or_default()))?;
    write!(out, " endpoint={}", Word(line.endpoint.as_deref().unwrap_or_default()))?;
    write!(out, " attempts={} total={}", line.attempts, Seconds(Some(line.total)))?;
    write!(
        out,
        " connect={} response={}",
        Seconds(line.connect),
        Seconds(line.response)
    )?;
    if line.queued.is_some() {
        write!(out, " queued={}", Seconds(line.queued))?;
    }
    if let Some(error) = &line.error {
        write!(out, " error=\"{}\"", Quoted(error))?;
    }
    if let Some(cache) = line.cache {
        write!(out, " cache={cache}")?;
    }
    if let Some(operation) = &line.operation {
        write!(out, " operation={}", Word(operation))?;
    }
    if let Some(sticky) = line.sticky {
        write!(out, " sticky={sticky}")?;
    }
    if let Some((class, reason)) = line.desync {
        write!(out, " desync={class} desync_reason={reason}")?;
    }
    if let Some(agent) = &line.user_agent {
        write!(out, " agent=\"{}\"", Quoted(agent))?;
    }
    Ok(())
}

/// Seconds with microseconds, or `-`.
struct Seconds(Option<Duration>);

impl Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(d) => write!(f, "{}.{:06}", d.as_secs(), d.subsec_micros()),
            None => f.write_char('-'),
        }
    }
}

/// A value without blanks as it is, with blanks in quotes, none as `-`.
struct Word<'a>(&'a str);

impl Display for Word<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_char('-')
        } else if self.0.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\') {
            f.write_str(self.0)
        } else {
            write!(f, "\"{}\"", Quoted(self.0))
        }
    }
}

/// What stands between quotes: nothing a client sends ends the quotes or the line, or reaches a terminal as a command.
struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                _ if c.is_control() => write!(f, "\\u{{{:x}}}", u32::from(c))?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn line() -> Line {
        Line {
            time: UNIX_EPOCH + Duration::new(1_700_000_000, 1_234_567),
            listener: "web".into(),
            client: "10.0.0.9:4000".into(),
            method: "GET".into(),
            host: "shop.example".into(),
            target: "/a?b=\"c".into(),
            protocol: "HTTP/1.1",
            status: 200,
            bytes_in: 3,
            bytes_out: 1024,
            route: Some("every thing".into()),
            upstream: Some("site".into()),
            endpoint: Some("10.0.0.1:80".into()),
            attempts: 2,
            total: Duration::from_micros(1_001_500),
            connect: Some(Duration::from_micros(250)),
            error: Some("reset: \n gone".into()),
            desync: Some(("ambiguous", "both_framings")),
            user_agent: Some("a\u{1b}[31m\\".into()),
            ..Line::default()
        }
    }

    fn rendered(format: Format, line: &Line) -> String {
        let mut out = Vec::new();
        format.render(line, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn text_is_one_line_and_safe_to_show() {
        assert_eq!(
            rendered(Format::Text, &line()),
            concat!(
                r#"2023-11-14T22:13:20.001234Z 10.0.0.9:4000 web "GET /a?b=\"c HTTP/1.1" 200 host=shop.example "#,
                r#"in=3 out=1024 route="every thing" upstream=site endpoint=10.0.0.1:80 attempts=2 "#,
                r#"total=1.001500 connect=0.000250 response=- error="reset: \u{a} gone" "#,
                r#"desync=ambiguous desync_reason=both_framings agent="a\u{1b}[31m\\""#,
                "\n"
            )
        );
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        let text = rendered(Format::Json, &line());
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["time"], "2023-11-14T22:13:20.001234Z");
        assert_eq!(value["target"], "/a?b=\"c");
        assert_eq!(value["total_seconds"], 1.0015);
        assert_eq!(value["response_seconds"], serde_json::Value::Null);
        assert_eq!(value["error"], "reset: \n gone");
        assert_eq!(value["desync"], "ambiguous");
        assert_eq!(value["desync_reason"], "both_framings");
    }

    #[test]
    fn connections_have_no_request_line() {
        let line = Line {
            protocol: "TCP",
            client: "unix".into(),
            ..Line::default()
        };
        assert!(rendered(Format::Text, &line).starts_with("1970-01-01T00:00:00.000000Z unix - TCP host=- in=0"));
        let value: serde_json::Value = serde_json::from_str(&rendered(Format::Json, &line)).unwrap();
        assert!(value["status"].is_null() && value["method"].is_null());
        assert!(value.get("desync").is_none() && value.get("desync_reason").is_none());
    }
}

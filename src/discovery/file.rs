//! A file with a list of endpoints, in JSON or TOML: read again whenever it changes.

mod changes;

use std::fmt::Display;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::timeout;

use self::changes::Changes;
use super::feed::{self, Feed, Report};
use super::{Answer, Listed, MAX_ENDPOINTS, Start};
use crate::net::addr::EndpointAddr;

/// How often the file is looked at, whatever its folder says: some file systems announce nothing.
const POLL: Duration = Duration::from_secs(2);
/// A larger file is refused.
const MAX_BYTES: u64 = 4 << 20;
const KEYS: [&str; 5] = ["address", "weight", "backup", "priority", "zone"];

/// What the name of a file says about what is in it.
pub fn is_readable(path: &Path) -> bool {
    format(path).is_some()
}

#[derive(Clone, Copy)]
enum Format {
    Json,
    Toml,
}

fn format(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()? {
        "json" => Some(Format::Json),
        "toml" => Some(Format::Toml),
        _ => None,
    }
}

/// Reads `path` at once and whenever it changes. A file that cannot be read or understood changes nothing.
pub fn watch(path: &Path, start: Start) -> Feed<Answer<Listed>> {
    let path = path.to_owned();
    let report = Report::new("file", path.display().to_string());
    feed::start(report, start.changed, start.known, |teller| async move {
        let mut changes = Changes::of(&path);
        // What was read last; an error that stays is told once.
        let mut last = None;
        loop {
            let read = read(&path).await;
            if last.as_ref() != Some(&read) {
                match read.clone().and_then(|text| parse(&path, &text)) {
                    Ok(endpoints) => drop(teller.found(endpoints.into())),
                    Err(reason) => teller.failed(reason),
                }
                last = Some(read);
            }
            // An end of the wait is as good as a change: the file is read.
            let _ = timeout(POLL, changes.next()).await;
        }
    })
}

/// The bytes of the file, in one piece: who replaces it by renaming is never seen half-way.
async fn read(path: &Path) -> Result<Vec<u8>, String> {
    let path: PathBuf = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>(bytes)
    });
    match read.await {
        Ok(Ok(bytes)) if bytes.len() as u64 > MAX_BYTES => Err("the file is larger than 4 MiB".into()),
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(e)) if e.kind() == ErrorKind::NotFound => Err("there is no such file".into()),
        Ok(Err(e)) => Err(format!("the file cannot be read: {e}")),
        Err(e) => Err(format!("the file cannot be read: {e}")),
    }
}

/// A list, or a table with the list as `endpoints`; each an address or a table.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<Listed>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the file is not UTF-8")?;
    let value = match format(path) {
        Some(Format::Toml) => toml::from_str(text).map_err(|e| {
            let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
            let message = e.message().lines().next().unwrap_or_default();
            format!("line {}: {message}", before.matches('\n').count() + 1)
        })?,
        _ => serde_json::from_str::<Value>(text).map_err(|e| e.to_string())?,
    };
    let list = match value {
        Value::Array(list) => list,
        Value::Object(mut table) => {
            check_keys(&table, &["endpoints"])?;
            match table.remove("endpoints") {
                Some(Value::Array(list)) => list,
                _ => return Err("`endpoints` is not a list".into()),
            }
        }
        _ => return Err("expected a list of endpoints".into()),
    };
    if list.len() > MAX_ENDPOINTS {
        return Err(format!("{} endpoints, at most {MAX_ENDPOINTS} can be used", list.len()));
    }
    let numbered = list.iter().enumerate();
    numbered
        .map(|(n, value)| one(value).map_err(|why| format!("endpoint {}: {why}", n + 1)))
        .collect()
}

fn one(value: &Value) -> Result<Listed, String> {
    let table = match value {
        Value::String(addr) => return Ok(Listed::at(EndpointAddr::parse(addr)?)),
        Value::Object(table) => table,
        _ => return Err("expected an address or a table".into()),
    };
    check_keys(table, &KEYS)?;
    let addr = match table.get("address") {
        Some(Value::String(addr)) => EndpointAddr::parse(addr)?,
        Some(_) => return Err("`address` is not a string".into()),
        None => return Err("`address` is missing".into()),
    };
    let mut listed = Listed::at(addr);
    if let Some(weight) = table.get("weight") {
        let weight = weight.as_u64().filter(|weight| (1..=256).contains(weight));
        listed.weight = weight.ok_or("`weight` is a number from 1 to 256")? as u16;
    }
    if let Some(backup) = table.get("backup") {
        listed.backup = backup.as_bool().ok_or("`backup` is `true` or `false`")?;
    }
    if let Some(priority) = table.get("priority") {
        let priority = priority.as_u64().filter(|priority| *priority <= 127);
        listed.priority = priority.ok_or("`priority` is a number from 0 to 127")? as u8;
    }
    if let Some(zone) = table.get("zone") {
        let zone = zone.as_str().ok_or("`zone` is not a string")?;
        listed.zone = (!zone.is_empty()).then(|| zone.into());
    }
    Ok(listed)
}

fn check_keys(table: &Map<String, Value>, known: &[impl AsRef<str> + Display]) -> Result<(), String> {
    match table
        .keys()
        .find(|key| !known.iter().any(|known| known.as_ref() == *key))
    {
        None => Ok(()),
        Some(key) => {
            let known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
            Err(format!("`{key}` is unknown: the keys are {}", known.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str, text: &str) -> Result<Vec<String>, String> {
        let listed = parse(Path::new(name), text.as_bytes())?;
        let text = |e: &Listed| format!("{} {} {}", e.addr, e.weight, e.backup);
        Ok(listed.iter().map(text).collect())
    }

    #[test]
    fn reads_both_formats() {
        let expected = Ok(vec!["10.0.0.1:80 1 false".into(), "a.test:81 3 true".into()]);
        let list = r#"["10.0.0.1:80", {"address": "a.test:81", "weight": 3, "backup": true}]"#;
        assert_eq!(parsed("a.json", list), expected);
        assert_eq!(parsed("a.json", &format!("{{\"endpoints\": {list}}}")), expected);
        let toml = "endpoints = ['10.0.0.1:80', { address = 'a.test:81', weight = 3, backup = true }]";
        assert_eq!(parsed("a.toml", toml), expected);
        let tables = "[[endpoints]]\naddress = '10.0.0.1:80'\n[[endpoints]]\naddress = 'a.test:81'\nweight = 3\n\
                      backup = true\n";
        assert_eq!(parsed("a.toml", tables), expected);
        assert_eq!(parsed("a.json", "[]"), Ok(Vec::new()), "nobody, in so many words");
    }

    #[test]
    fn reads_priorities_and_zones() {
        let list = r#"[{"address": "a.test:81", "priority": 2, "zone": "b"}]"#;
        let listed = parse(Path::new("a.json"), list.as_bytes()).unwrap();
        assert_eq!((listed[0].priority, listed[0].zone.as_deref()), (2, Some("b")));
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (name, text, part) in [
            ("a.json", "", "EOF"),
            ("a.json", "[\"10.0.0.1:80\"", "line 1"),
            ("a.json", "7", "list"),
            ("a.json", "{\"endpoint\": []}", "`endpoint` is unknown"),
            (
                "a.json",
                "[\"10.0.0.1:80\", \"10.0.0.1\"]",
                "endpoint 2: `10.0.0.1` has no port",
            ),
            ("a.json", "[{\"weight\": 3}]", "endpoint 1: `address` is missing"),
            ("a.json", "[{\"address\": \"a:1\", \"weight\": 0}]", "1 to 256"),
            (
                "a.json",
                "[{\"address\": \"a:1\", \"wieght\": 1}]",
                "`wieght` is unknown",
            ),
            ("a.json", "[{\"address\": \"a:1\", \"backup\": 1}]", "`backup`"),
            ("a.json", "[{\"address\": \"a:1\", \"priority\": 128}]", "0 to 127"),
            ("a.json", "[{\"address\": \"a:1\", \"zone\": 1}]", "`zone`"),
            ("a.toml", "endpoints = [", "line 1"),
            ("a.toml", "", "`endpoints`"),
        ] {
            let error = parsed(name, text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let many = format!("[{}\"a:1\"]", "\"a:1\",".repeat(MAX_ENDPOINTS));
        assert!(parsed("a.json", &many).unwrap_err().contains("10000"));
        assert!(
            parse(Path::new("a.json"), &[b'"', 0xff, b'"'])
                .unwrap_err()
                .contains("UTF-8")
        );
    }
}

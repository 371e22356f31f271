//! The structure that ARCHITECTURE.md draws, kept true: who may use whom, how large files are, what explains them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A module may use those of lower layers, never its own layer's others.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["telemetry", "fields"],
    &["net", "h1", "policy"],
    &["tls", "endpoint"],
    &["balance", "sticky", "health", "discovery", "route", "cache", "pool"],
    &["upstream"],
    &["snapshot"],
    &["proxy"],
    &["listener"],
    &["config"],
    &["control"],
    &["admin"],
    &["cli"],
];

/// The configuration is checked without a running world: it knows the settings types of these alone.
const CONFIG_MAY_USE: &[&str] = &[
    "base",
    "net",
    "h1",
    "tls",
    "balance",
    "sticky",
    "discovery",
    "health",
    "route",
    "cache",
    "pool",
    "policy",
];

const MAX_LINES: usize = 500;

fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(&root).unwrap().to_owned(), text));
            }
        }
    }
    assert!(found.len() > 100, "only {} files", found.len());
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn modules_use_lower_layers_only() {
    let mut wrong = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (path, text) in sources() {
        let module = path.components().next().unwrap().as_os_str().to_str().unwrap();
        if matches!(module, "main.rs" | "lib.rs") {
            continue;
        }
        let Some(own) = layer(module) else {
            wrong.push(format!("{module} has no layer"));
            continue;
        };
        for (at, _) in text.match_indices("crate::") {
            let rest = &text[at + "crate::".len()..];
            // `crate::{…}` would hide what is used: nobody writes it.
            let used: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
                .collect();
            *seen.entry(used.clone()).or_default() += 1;
            let may = match layer(&used) {
                _ if used == module => true,
                Some(_) if module == "config" => CONFIG_MAY_USE.contains(&used.as_str()),
                Some(other) => other < own,
                None => false,
            };
            if !may {
                wrong.push(format!("{}: `crate::{used}`", path.display()));
            }
        }
    }
    assert!(seen.len() >= 10, "{seen:?}");
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_file_says_what_it_is_for_and_is_short() {
    let mut wrong = Vec::new();
    for (path, text) in sources() {
        if !text.starts_with("//! ") {
            wrong.push(format!("{}: no `//!` line", path.display()));
        }
        let lines = text.lines().count();
        if lines > MAX_LINES {
            wrong.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn every_metric_is_documented() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = std::fs::read_to_string(root.join("src/telemetry/names.rs")).unwrap();
    let docs = std::fs::read_to_string(root.join("docs/operations.md")).unwrap();
    let quoted = names.split('"').filter(|text| text.starts_with("evenkeel_"));
    let (known, missing): (Vec<_>, Vec<_>) = quoted.partition(|name| docs.contains(&format!("`{name}")));
    assert!(known.len() + missing.len() > 15);
    assert_eq!(missing, [""; 0]);
}

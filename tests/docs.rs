//! What the documentation says of tests is true.

use std::path::Path;

/// Every `.rs` file below `folder`, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            text.push_str(&std::fs::read_to_string(path).unwrap());
        }
    }
}

#[test]
fn every_test_that_proves_a_requirement_of_caching_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut code = String::new();
    sources(&root.join("src"), &mut code);
    sources(&root.join("tests/it"), &mut code);
    let page = std::fs::read_to_string(root.join("docs/caching-requirements.md")).unwrap();
    let mut named = 0;
    let mut missing = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        let tests = line.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        for test in tests.split('`').skip(1).step_by(2) {
            named += 1;
            if !code.contains(&format!("fn {test}(")) {
                missing.push(test.to_owned());
            }
        }
    }
    assert!(named > 50, "only {named} tests are named");
    assert_eq!(missing, [""; 0]);
}

/// Names of our metrics in `text`, without what Prometheus adds to those of histograms.
fn metrics(text: &str) -> std::collections::BTreeSet<String> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    text.split(|c| !word(c))
        // Those with a colon are recorded by rules.
        .filter(|name| name.starts_with("evenkeel_") && !name.contains(':'))
        .map(|name| {
            let base = ["_bucket", "_sum", "_count"]
                .iter()
                .find_map(|end| name.strip_suffix(end));
            base.unwrap_or(name).to_owned()
        })
        .collect()
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(root.join(path)).unwrap();
    let there = metrics(&read("src/telemetry/names.rs"));
    for file in [
        "deploy/grafana/evenkeel.json",
        "deploy/prometheus/evenkeel.rules.yml",
        "deploy/prometheus/evenkeel.test.yml",
    ] {
        let used = metrics(&read(file));
        assert!(used.len() > 15, "{file} uses only {}", used.len());
        let missing: Vec<_> = used.difference(&there).collect();
        assert!(missing.is_empty(), "{file}: {missing:?}");
    }
}

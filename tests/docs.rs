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

//! Configuration files as tests: the examples load, and every error reads exactly as it is written down.
//!
//! `UPDATE_GOLDEN=1 cargo nextest run --test config` writes the expected reports anew.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use evenkeel::config::environment::{Environment, Privilege};
use evenkeel::config::report::Report;
use evenkeel::config::{Loaded, load_in, load_text_in, schema};
use proptest::prelude::*;
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// Midnight UTC on 2026-01-01.
const NOW: i64 = 1_767_225_600;

/// A folder with the certificates the files name by `${CERT_DIR}`.
fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let make = |stem: &str, name: &str, not_after| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_string()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = not_after;
        let file = |ending: &str| dir.path().join(format!("{stem}.{ending}"));
        std::fs::write(file("pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        std::fs::write(file("key"), key.serialize_pem()).unwrap();
    };
    make("shop", "shop.example", date_time_ymd(2100, 1, 1));
    make("wildcard", "*.tenants.example", date_time_ymd(2100, 1, 1));
    make("internal-ca", "ca.internal", date_time_ymd(2100, 1, 1));
    make("expired", "expired.example", date_time_ymd(2025, 12, 1));
    make("soon", "soon.example", date_time_ymd(2026, 1, 9));
    std::fs::write(dir.path().join("sticky.secrets"), "0123456789abcdef0123456789abcdef\n").unwrap();
    std::fs::write(dir.path().join("empty.pem"), "no certificate here\n").unwrap();
    dir
}

fn environment(certificates: &Path, privilege: Privilege) -> Environment {
    let dir = certificates.to_str().unwrap().to_owned();
    let variables = move |name: &str| match name {
        "CERT_DIR" => Some(dir.clone()),
        "UPSTREAM" => Some("site".into()),
        "BROKEN_TIMEOUT" => Some("5 parsecs".into()),
        _ => None,
    };
    Environment::new(variables, NOW, privilege)
}

/// The `*.toml` files in `dir`, a path relative to the repository, sorted.
fn files(dir: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "toml"))
        .collect();
    files.sort();
    files
}

/// What loading `path` says, the temporary folder replaced.
fn load(path: &Path, privilege: Privilege) -> (Result<Loaded, Report>, String) {
    let dir = certificates();
    let loaded = load_in(&environment(dir.path(), privilege), path);
    let text = match &loaded {
        Ok(loaded) => loaded.warnings.to_string(),
        Err(report) => report.to_string(),
    };
    (loaded, text.replace(dir.path().to_str().unwrap(), "CERT_DIR"))
}

/// Compares with the `.stderr` file beside `path`; no such file stands for an empty report. Returns what is wrong.
fn compare(path: &Path, text: &str) -> Option<String> {
    let golden = path.with_extension("stderr");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        match text {
            "" => drop(std::fs::remove_file(&golden)),
            text => std::fs::write(&golden, text).unwrap(),
        }
        return None;
    }
    let expected = std::fs::read_to_string(&golden).unwrap_or_default();
    (expected != text).then(|| format!("--- {}: expected\n{expected}--- but was\n{text}", path.display()))
}

#[test]
fn invalid_files_are_reported_as_written_down() {
    let files = files("tests/data/config/invalid");
    assert!(files.len() >= 45, "only {} invalid files found", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let user = path.ends_with("port_without_right.toml");
        let privilege = match user {
            true => Privilege { first_free_port: 1024 },
            false => Privilege::ALL,
        };
        let (loaded, text) = load(path, privilege);
        match loaded {
            Ok(_) => wrong.push(format!("{} loads", path.display())),
            Err(report) => {
                assert!(
                    report.errors().count() > 0,
                    "{}: rejected without an error",
                    path.display()
                );
                check_entries(path, &report, &text);
            }
        }
        wrong.extend(compare(path, &text));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What machines are told has the same places as what people read.
fn check_entries(path: &Path, report: &Report, text: &str) {
    for entry in report.entries() {
        if let (Some(file), Some(line), Some(column)) = (entry.file, entry.line, entry.column) {
            let place = format!("--> {file}:{line}:{column}\n");
            assert!(text.contains(&place), "{}: {place}{text}", path.display());
        }
    }
}

#[test]
fn valid_files_load() {
    let files = files("tests/data/config/valid");
    assert!(files.len() >= 5, "only {} valid files found", files.len());
    let mut wrong = Vec::new();
    for path in &files {
        let (loaded, text) = load(path, Privilege::ALL);
        match loaded {
            Ok(_) => wrong.extend(compare(path, &text)),
            Err(_) => wrong.push(format!("{} does not load\n{text}", path.display())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn examples_load_without_a_warning() {
    let mut files = files("config");
    assert!(files.len() >= 9, "only {} examples found", files.len());
    files.push("config/several/evenkeel.toml".into());
    for path in &files {
        let (loaded, text) = load(path, Privilege::ALL);
        assert!(loaded.is_ok(), "{}\n{text}", path.display());
        // The reference shows a pattern that matches nothing.
        let warnings = usize::from(path.ends_with("reference.toml"));
        assert_eq!(
            loaded.unwrap().warnings.diagnostics.len(),
            warnings,
            "{}\n{text}",
            path.display()
        );
    }
}

/// What stands between ```toml and ``` in a page.
fn blocks(page: &str) -> impl Iterator<Item = &str> {
    page.split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
}

#[test]
fn whole_files_in_the_documentation_load_without_a_warning() {
    let dir = certificates();
    let folder = dir.path().to_str().unwrap();
    let mut pages: Vec<_> = std::fs::read_dir("docs")
        .unwrap()
        .map(|page| page.unwrap().path())
        .collect();
    pages.push("README.md".into());
    let mut loaded = 0;
    for page in pages.iter().filter(|page| page.extension().is_some_and(|e| e == "md")) {
        let text = std::fs::read_to_string(page).unwrap();
        // What has no listener is a part of a file.
        for block in blocks(&text).filter(|block| block.contains("[listeners.")) {
            let block = block.replace("/etc/evenkeel", folder);
            let place = page.display().to_string();
            let report = match load_text_in(&environment(dir.path(), Privilege::ALL), &place, &block) {
                Ok(loaded) => loaded.warnings.to_string(),
                Err(report) => report.to_string(),
            };
            assert_eq!(report, "", "{block}");
            loaded += 1;
        }
    }
    assert!(loaded >= 4, "only {loaded} files found");
}

#[test]
fn the_configuration_for_comparisons_loads() {
    let dir = certificates();
    let folder = dir.path().to_str().unwrap();
    for (from, to) in [("shop.pem", "cert.pem"), ("shop.key", "key.pem")] {
        std::fs::copy(dir.path().join(from), dir.path().join(to)).unwrap();
    }
    let mut text = std::fs::read_to_string("benches/peers/evenkeel.toml").unwrap();
    let places = [
        ("PLAIN", "8080"),
        ("TLS", "8443"),
        ("L4", "8090"),
        ("CACHE", "8070"),
        ("BACK", "9000"),
        ("T", folder),
        ("WORKERS", "1"),
    ];
    for (place, value) in places {
        let place = format!("{{{{{place}}}}}");
        // Below its comment, which explains the places.
        assert!(
            text.matches(&place).count() >= 2,
            "{place} is explained or used nowhere"
        );
        text = text.replace(&place, value);
    }
    let loaded = load_text_in(&environment(dir.path(), Privilege::ALL), "peers", &text);
    let loaded = loaded.map_err(|report| report.to_string()).unwrap();
    assert_eq!(loaded.warnings.to_string(), "");
}

#[test]
fn the_reference_has_every_key() {
    let reference = std::fs::read_to_string("config/reference.toml").unwrap();
    let root: toml::Table = reference.parse().unwrap();
    let mut count = 0;
    for (what, keys) in schema::keys() {
        let path = match what {
            "a configuration" => "",
            "`[server]`" => "server",
            "`[admin]`" => "admin",
            "`[log]`" => "log",
            "`[access_log]`" => "access_log",
            "a listener" => "listeners.*",
            "a listener's `tls`" => "listeners.*.tls",
            "a certificate" => "listeners.*.tls.certificates.*",
            "a route" => "routes.*",
            "a part of `split`" => "routes.*.split.*",
            "`redirect`" => "routes.*.redirect",
            "`respond`" => "routes.*.respond",
            "an upstream" => "upstreams.*",
            "an endpoint" => "upstreams.*.endpoints.*",
            "a cache" => "caches.*",
            "`cache`" => "routes.*.cache",
            "`key`" => "caches.*.key",
            "`disk`" => "caches.*.disk",
            "`refresh_ahead`" => "caches.*.refresh_ahead",
            "`balance`" => "upstreams.*.balance",
            "`discovery`" => "upstreams.*.discovery",
            "`kubernetes`" => "upstreams.*.discovery.kubernetes",
            "`health`" => "upstreams.*.health",
            "`outlier`" => "upstreams.*.outlier",
            "an upstream's `tls`" => "upstreams.*.tls",
            "`retries`" => "upstreams.*.retries",
            "`adaptive_limit`" => "upstreams.*.adaptive_limit",
            "`queue`" => "upstreams.*.queue",
            "`sticky`" => "upstreams.*.sticky",
            "`backoff`" => "upstreams.*.retries.backoff",
            other => panic!("where does {other} stand in a file?"),
        };
        let mut written = BTreeSet::new();
        let root = toml::Value::Table(root.clone());
        keys_at(
            &root,
            &mut path.split('.').filter(|part| !part.is_empty()),
            &mut written,
        );
        for key in keys {
            count += 1;
            assert!(
                written.contains(*key),
                "`{key}` of {what} is missing in config/reference.toml"
            );
        }
    }
    assert!(count > 90, "only {count} keys found");
}

/// The keys of all tables at `path`, where `*` stands for every key or element.
fn keys_at<'a>(value: &toml::Value, path: &mut (impl Iterator<Item = &'a str> + Clone), keys: &mut BTreeSet<String>) {
    let step = path.next();
    match (value, step) {
        (toml::Value::Table(table), None) => keys.extend(table.keys().cloned()),
        (toml::Value::Table(table), Some("*")) => {
            table.values().for_each(|value| keys_at(value, &mut path.clone(), keys))
        }
        (toml::Value::Array(values), Some("*")) => {
            values.iter().for_each(|value| keys_at(value, &mut path.clone(), keys))
        }
        (toml::Value::Table(table), Some(step)) => {
            if let Some(value) = table.get(step) {
                keys_at(value, path, keys);
            }
        }
        _ => {}
    }
}

#[test]
fn a_text_alone_loads_with_defaults() {
    let text = "[listeners.a]\nbind = ':0'\n[[routes]]\nupstream = 'a'\n[upstreams.a]\nendpoints = [':9001']\n";
    let env = Environment::new(|_| None, NOW, Privilege { first_free_port: 1024 });
    let plan = load_text_in(&env, "demo", text)
        .map_err(|report| report.to_string())
        .unwrap()
        .plan;
    assert_eq!(&*plan.routes[0].name, "route-1");
    assert_eq!(plan.routes[0].listeners, [0]);
    assert!(plan.server.workers >= 1 && plan.admin.is_none() && plan.access_log.format.is_none());
}

#[test]
fn files_come_in_the_order_of_their_names_after_the_including_one() {
    let (loaded, text) = load(Path::new("config/several/evenkeel.toml"), Privilege::ALL);
    let plan = loaded.expect(&text).plan;
    let names: Vec<&str> = plan.routes.iter().map(|route| &*route.name).collect();
    assert_eq!(names, ["blog", "shop"]);
}

proptest! {
    /// Whatever happens to a file, its errors have places and nothing panics.
    #[test]
    fn damaged_files_are_reported(
        from in 0usize..16_000,
        len in 0usize..40,
        inserted in "(\\PC{0,3}|[\\[\\]{}\"'=.,#\\n$]{1,4}|true|-1|\\[\\[routes\\]\\]\n|[a-z_]+ = \\{)",
    ) {
        let mut text = std::fs::read_to_string("config/reference.toml").unwrap();
        let from = text.floor_char_boundary(from);
        let to = text.floor_char_boundary(from + len);
        text.replace_range(from..to, &inserted);
        let env = Environment::new(|_| None, NOW, Privilege::ALL);
        match load_text_in(&env, "damaged", &text) {
            Ok(loaded) => prop_assert_eq!(loaded.warnings.errors().count(), 0),
            Err(report) => {
                prop_assert!(report.errors().count() > 0);
                check_entries(Path::new("damaged"), &report, &report.to_string());
            }
        }
    }
}

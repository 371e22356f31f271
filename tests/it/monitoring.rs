//! What stands in `deploy/` for Prometheus and Grafana, tried with a real Prometheus that watches a real evenkeel.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::harness::{Client, Origin, Proxy, eventually, get, one_upstream};

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    for what in ["check", "test"] {
        let file = match what {
            "check" => "evenkeel.rules.yml",
            _ => "evenkeel.test.yml",
        };
        let done = Command::new("promtool")
            .args([what, "rules", file])
            .current_dir(deploy().join("prometheus"))
            .output()
            .expect("promtool, which scripts/test installs");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
    let read = |file: &str| std::fs::read_to_string(deploy().join("prometheus").join(file)).unwrap();
    let (rules, tests) = (read("evenkeel.rules.yml"), read("evenkeel.test.yml"));
    let alerts: Vec<_> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .collect();
    assert!(alerts.len() > 15, "only {} alerts", alerts.len());
    for alert in alerts {
        let tested = tests.lines().any(|line| line.trim() == format!("alertname: {alert}"));
        assert!(tested, "{alert} has no test");
    }
}

/// A real Prometheus; killed when dropped.
struct Prometheus {
    child: Child,
    addr: SocketAddr,
}

impl Prometheus {
    /// Watches `admin` by the rules of `deploy/`.
    fn start(dir: &Path, admin: SocketAddr) -> Self {
        let shipped = std::fs::read_to_string(deploy().join("prometheus/prometheus.yml")).unwrap();
        let rules = deploy().join("prometheus/evenkeel.rules.yml");
        let config = shipped
            .replace("127.0.0.1:9900", &admin.to_string())
            .replace("15s", "1s")
            .replace("- evenkeel.rules.yml", &format!("- {}", rules.display()));
        assert!(config.contains(&format!("[\"{admin}\"]")), "{config}");
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let addr = Origin::nobody();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus, which scripts/test installs");
        let started = Self { child, addr };
        eventually("prometheus listens", || std::net::TcpStream::connect(addr).is_ok());
        started
    }

    fn ask(&self, path: &str) -> Value {
        let reply = get(self.addr, path);
        serde_json::from_slice(&reply.body).unwrap_or(Value::Null)
    }

    /// What an expression is now; an error is told as such.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let query = utf8_percent_encode(expression, NON_ALPHANUMERIC);
        let answer = self.ask(&format!("/api/v1/query?query={query}"));
        match answer["status"] == "success" {
            true => Ok(answer["data"]["result"].as_array().cloned().unwrap_or_default()),
            false => Err(answer["error"].to_string()),
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every expression of the dashboard, with its panel's title.
fn expressions(panel: &Value, found: &mut Vec<(String, String)>) {
    let title = panel["title"].as_str().unwrap_or_default();
    for target in panel["targets"].as_array().into_iter().flatten() {
        found.push((title.to_owned(), target["expr"].as_str().unwrap().to_owned()));
    }
    for inner in panel["panels"].as_array().into_iter().flatten() {
        expressions(inner, found);
    }
}

#[test]
fn prometheus_and_the_dashboard_see_what_happens() {
    let origin = Origin::named("x");
    let proxy = Proxy::start(&one_upstream("", &[origin.addr]));
    let dir = tempfile::tempdir().unwrap();
    let prometheus = Prometheus::start(dir.path(), proxy.addr("admin"));
    let mut client = Client::connect(proxy.addr("web"));
    // Rates need two looks at something that grows.
    eventually("requests are seen", || {
        client.get("/");
        let rate = "sum(rate(evenkeel_requests_total{route=\"all\", code=\"200\"}[1m])) > 0";
        prometheus.query(rate).is_ok_and(|found| !found.is_empty())
    });
    eventually("the rules are evaluated", || {
        let rules = prometheus.ask("/api/v1/rules");
        let groups = rules["data"]["groups"].as_array().cloned().unwrap_or_default();
        let all: Vec<_> = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
            .collect();
        !all.is_empty() && all.iter().all(|rule| rule["health"] == "ok")
    });
    eventually("and record", || {
        let recorded = prometheus.query("job_route:evenkeel_requests:rate5m{route=\"all\"} > 0");
        recorded.is_ok_and(|found| !found.is_empty())
    });

    let text = std::fs::read_to_string(deploy().join("grafana/evenkeel.json")).unwrap();
    let mut found = Vec::new();
    for panel in serde_json::from_str::<Value>(&text).unwrap()["panels"]
        .as_array()
        .unwrap()
    {
        expressions(panel, &mut found);
    }
    assert!(found.len() > 30, "only {} expressions", found.len());
    for (title, expression) in found {
        let expression = expression
            .replace("$__rate_interval", "1m")
            .replace("$job", ".*")
            .replace("$instance", ".*");
        let values = prometheus
            .query(&expression)
            .unwrap_or_else(|e| panic!("{title}: {expression}: {e}"));
        let shown = [
            "Requests",
            "p99",
            "Connections",
            "Endpoints down",
            "CPU",
            "File descriptors",
            "Duration",
        ];
        assert!(
            !values.is_empty() || !shown.contains(&title.as_str()),
            "{title} shows nothing"
        );
    }
}

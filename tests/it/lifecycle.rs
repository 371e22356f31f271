//! Starting, draining, ending, logging.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::{Command, Stdio};

use crate::harness::proxy::{INT, TERM, USR1};
use crate::harness::{Client, Origin, Proxy, eventually, get, reply};

fn config(more: &str, origin: &Origin) -> String {
    format!(
        r#"
        [admin]
        bind = "127.0.0.1:0"
        [listeners.web]
        bind = "127.0.0.1:0"
        [[routes]]
        name = "all"
        upstream = "u"
        [upstreams.u]
        endpoints = ["{}"]
        {more}
        "#,
        origin.addr
    )
}

/// An origin that answers when told to.
fn gated() -> (std::sync::mpsc::Sender<()>, Origin) {
    let (release, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let origin = Origin::start(move |_, stream| {
        gate.lock().unwrap().recv().unwrap();
        reply(stream, 200, "slow")
    });
    (release, origin)
}

#[test]
fn draining_lets_requests_finish_and_ends_with_0() {
    let (release, origin) = gated();
    let mut proxy = Proxy::start(&config("", &origin));
    let (web, admin) = (proxy.addr("web"), proxy.addr("admin"));
    let mut busy = Client::connect(web);
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("a request under way", || origin.seen().len() == 1);
    assert_eq!(get(admin, "/readyz").status, 200);
    proxy.signal(TERM);
    proxy.wait_for("draining");
    eventually("nobody new is let in", || TcpStream::connect(web).is_err());
    let ready = get(admin, "/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "draining\n"));
    assert_eq!(get(admin, "/healthz").status, 200);
    let mut operator = Client::connect(admin);
    operator.send("POST /api/v1/reload HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(operator.reply().status, 503, "too late for a reload");
    release.send(()).unwrap();
    let reply = busy.reply();
    assert_eq!((reply.text().as_str(), reply.header("connection")), ("slow", "close"));
    assert_eq!(proxy.wait_end().code(), Some(0));
}

#[test]
fn the_grace_is_bounded() {
    let (_release, origin) = gated();
    let mut proxy = Proxy::start(&config("[server]\nshutdown_grace = \"100ms\"", &origin));
    let mut busy = Client::connect(proxy.addr("web"));
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("a request under way", || origin.seen().len() == 1);
    proxy.signal(TERM);
    assert_eq!(proxy.wait_end().code(), Some(0));
    assert!(busy.try_reply(false).is_err());
}

#[test]
fn a_second_signal_ends_at_once() {
    let (_release, origin) = gated();
    let mut proxy = Proxy::start(&config("[server]\nshutdown_grace = \"10m\"", &origin));
    let mut busy = Client::connect(proxy.addr("web"));
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("a request under way", || origin.seen().len() == 1);
    proxy.signal(INT);
    proxy.wait_for("draining");
    proxy.signal(INT);
    assert_eq!(proxy.wait_end().code(), Some(0));
}

#[test]
fn idle_connections_do_not_hold_the_end_up() {
    let origin = Origin::named("ok");
    let mut proxy = Proxy::start(&config("[server]\nshutdown_grace = \"10m\"", &origin));
    let mut clients: Vec<_> = (0..20).map(|_| Client::connect(proxy.addr("web"))).collect();
    clients.iter_mut().for_each(|c| assert_eq!(c.get("/").status, 200));
    proxy.signal(TERM);
    assert_eq!(proxy.wait_end().code(), Some(0));
    clients.iter_mut().for_each(Client::expect_end);
}

#[test]
fn what_keeps_it_from_starting_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let run = |config: &str| {
        let path = dir.path().join("c.toml");
        std::fs::write(&path, config).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .args(["run", "--config"])
            .arg(path)
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let (code, text) = run(&format!(
        "[listeners.web]\nbind = \"{taken}\"\n[[routes]]\nrespond = {{ status = 204 }}\n"
    ));
    assert_eq!(code, Some(1));
    assert!(
        text.contains("listener `web`") && text.contains("another process listens there"),
        "{text}"
    );
    let (code, text) = run("[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\nupstrem = \"x\"\n");
    assert_eq!(code, Some(1));
    assert!(text.contains("c.toml:4:1") && text.contains("upstream"), "{text}");
    let missing = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["run", "--config", "/nowhere.toml"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere.toml"));
    let usage = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("frobnicate")
        .output()
        .unwrap();
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_word_that_is_no_log_level_is_wrong_usage() {
    let mut run = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
    let wrong = run
        .args(["run", "--config", "x.toml", "--log-level", "inof"])
        .output()
        .unwrap();
    let text = String::from_utf8(wrong.stderr).unwrap();
    assert_eq!(wrong.status.code(), Some(2), "{text}");
    assert!(text.contains("did you mean `info`?"), "{text}");
}

/// As behind `| head`: exit codes keep their meaning.
#[test]
fn nobody_has_to_read_what_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let (good, bad) = (dir.path().join("good.toml"), dir.path().join("bad.toml"));
    std::fs::write(&good, config("", &Origin::named("ok"))).unwrap();
    std::fs::write(&bad, "listeners = 7").unwrap();
    for (command, file, code) in [("check", &good, 0), ("check", &bad, 1), ("run", &bad, 1)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut program = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        program.arg(command).arg("--config").arg(file);
        program.stdout(writer.try_clone().unwrap()).stderr(writer);
        assert_eq!(
            program.status().unwrap().code(),
            Some(code),
            "{command} {}",
            file.display()
        );
    }
}

#[test]
fn check_and_run_report_the_same_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(
        &path,
        "[listeners.web]\nbind = \"127.0.0.1:99999\"\nprotocl = \"x\"\n[[routes]]\nupstream = \"u\"\n",
    )
    .unwrap();
    let errors = |command: &str| {
        let binary = env!("CARGO_BIN_EXE_evenkeel");
        let output = Command::new(binary)
            .args([command, "--config"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        text.lines()
            .filter(|l| !l.ends_with(" errors"))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert_eq!(errors("check"), errors("run"));
    assert_eq!(errors("check").matches("error:").count(), 3, "{}", errors("check"));
    std::fs::write(
        &path,
        "[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\nrespond = { status = 204 }\n",
    )
    .unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["check", "--config"])
        .arg(&path)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stdout).contains("no errors"));
}

#[test]
fn the_service_manager_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(crate::harness::PATIENCE)).unwrap();
    let told = || {
        let mut buf = [0; 512];
        let n = socket.recv(&mut buf).unwrap();
        String::from_utf8_lossy(&buf[..n]).into_owned()
    };
    let origin = Origin::named("ok");
    let notify = dir.path().join("notify");
    let mut proxy = Proxy::start_with(dir, &config("", &origin), |command| {
        command.env("NOTIFY_SOCKET", notify);
    });
    assert_eq!(told().trim(), "READY=1");
    proxy.reload(&config("", &origin));
    let reloading = told();
    assert!(
        reloading.contains("RELOADING=1") && reloading.contains("MONOTONIC_USEC="),
        "{reloading}"
    );
    assert_eq!(told().trim(), "READY=1");
    proxy.signal(TERM);
    assert_eq!(told().trim(), "STOPPING=1");
    assert_eq!(proxy.wait_end().code(), Some(0));
}

#[test]
fn the_access_log_says_what_became_of_each_request() {
    let origin = Origin::named("hello");
    let log = "[access_log]\nformat = \"json\"\npath = \"{DIR}/access.log\"";
    let mut proxy = Proxy::start(&config(log, &origin));
    let path = proxy.dir.path().join("access.log");
    let lines = |path: &std::path::Path| -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let mut client = Client::connect(proxy.addr("web"));
    client.send("POST /a?b HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: \"me\"\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.reply().status, 200);
    eventually("a line", || !lines(&path).is_empty());
    let line = lines(&path).remove(0);
    for (field, value) in [
        ("listener", "web"),
        ("method", "POST"),
        ("host", "shop.example"),
        ("target", "/a?b"),
        ("protocol", "HTTP/1.1"),
        ("route", "all"),
        ("upstream", "u"),
        ("endpoint", &origin.addr.to_string()),
        ("user_agent", "\"me\""),
    ] {
        assert_eq!(line[field], value, "{line:#}");
    }
    assert_eq!(
        (&line["status"], &line["attempts"], &line["bytes_in"]),
        (&200.into(), &1.into(), &2.into())
    );
    assert!(
        line["bytes_out"].as_u64() >= Some(5) && line["error"].is_null(),
        "{line:#}"
    );
    assert!(line["connect_seconds"].is_f64() && line["response_seconds"].as_f64() <= line["total_seconds"].as_f64());
    // logrotate: the file is moved away, the signal makes a new one.
    let moved = proxy.dir.path().join("access.log.1");
    std::fs::rename(&path, &moved).unwrap();
    proxy.signal(USR1);
    proxy.wait_for("log files reopened");
    origin.kill();
    assert_eq!(client.get("/fails").status, 502);
    eventually("a line in the new file", || !lines(&path).is_empty());
    let line = lines(&path).remove(0);
    assert!(
        line["error"].as_str().is_some_and(|e| e.contains("connect")),
        "{line:#}"
    );
    assert_eq!((&line["status"], &line["attempts"]), (&502.into(), &2.into()));
    assert_eq!(lines(&moved).len(), 1);
    // What waits is written before the end.
    client.send("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    client.reply();
    proxy.signal(TERM);
    assert_eq!(proxy.wait_end().code(), Some(0));
    assert_eq!(lines(&path).last().unwrap()["target"], "/last");
}

#[test]
fn the_demo_answers() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("admin.sock");
    let admin_addr = format!("unix:{}", socket.display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args([
            "demo",
            "--from",
            "127.0.0.1:0",
            "--admin",
            &admin_addr,
            "--log-format",
            "json",
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines =
        std::io::BufRead::lines(stderr).map(|l| serde_json::from_str::<serde_json::Value>(&l.unwrap()).unwrap());
    let line = lines
        .find(|l| l["message"] == "listening" && l["listener"] == "demo")
        .unwrap();
    let addr = line["address"].as_str().unwrap().parse().unwrap();
    lines.find(|l| l["message"] == "ready").unwrap();
    assert!(get(addr, "/").text().starts_with("Hello from origin "));
    assert_eq!(get(addr, "/old").status, 308);
    let mut admin = UnixStream::connect(&socket).unwrap();
    admin
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    admin.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 ") && text.ends_with("ok\n"), "{text}");
    let healthy = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["healthz", "--admin", &admin_addr])
        .status()
        .unwrap();
    assert!(healthy.success());
    child.kill().unwrap();
    child.wait().unwrap();
}

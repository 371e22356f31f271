//! Health checks as they are configured, against servers that are well, ill, starting or something else.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use crate::harness::proxy::TERM;
use crate::harness::{Origin, Proxy, eventually, get, reply};

/// One upstream for each (endpoint, health check), none of them used.
fn config(checks: &[(SocketAddr, &str)]) -> String {
    let mut config = String::from(
        "[server]\nworkers = 1\nallow_exec = true\n[admin]\nbind = \"127.0.0.1:0\"\n[listeners.web]\nbind = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"u0\"\n",
    );
    for (n, (addr, health)) in checks.iter().enumerate() {
        config += &format!(
            "[upstreams.u{n}]\nendpoints = [\"{addr}\"]\n[upstreams.u{n}.health]\n{health}\ninterval = \"2s\"\n"
        );
    }
    config
}

/// Waits for what the checker says first of upstream `u{n}`: `Ok` when it is up, else the reason.
#[track_caller]
fn verdict(proxy: &Proxy, n: usize) -> Result<(), String> {
    let name = format!("u{n}");
    let line = proxy.wait(&name, |line| {
        let told = line["message"] == "endpoint up" || line["message"] == "endpoint down";
        told && line["upstream"] == name.as_str()
    });
    match line["message"] == "endpoint up" {
        true => Ok(()),
        false => Err(line["reason"].as_str().unwrap().to_owned()),
    }
}

/// Every connection is greeted with `first`; then what comes is answered with `answer`, once it holds `asked`.
fn scripted(first: &'static [u8], asked: &'static [u8], answer: &'static [u8]) -> Origin {
    Origin::raw(move |stream, _| {
        stream.write_all(first)?;
        let mut seen = Vec::new();
        let mut byte = [0];
        while !seen.windows(asked.len().max(1)).any(|w| w == asked) {
            if stream.read(&mut byte)? == 0 {
                return Ok(());
            }
            seen.push(byte[0]);
        }
        stream.write_all(answer)?;
        std::io::copy(stream, &mut std::io::sink()).map(drop)
    })
}

#[test]
fn databases_are_asked_in_their_own_words() {
    // As PostgreSQL 15 and MariaDB 10.11 send it.
    let hello = b"user\0evenkeel\0";
    let password = scripted(b"", hello, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    let starting = scripted(
        b"",
        hello,
        b"E\0\0\0\x52SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0Fpostmaster.c\0L2373\0\0",
    );
    let nobody = scripted(
        b"",
        hello,
        b"E\0\0\0\x3aSFATAL\0VFATAL\0C28000\0Mrole \"evenkeel\" does not exist\0\0",
    );
    let greets = scripted(
        b"\x64\0\0\0\x0a5.5.5-10.11.19-MariaDB-0+deb12u1\0\x04\0\0\0saltsalt\0\xfe\xf7\x08\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0saltsaltsalt\0mysql_native_password\0",
        b"probe\0\0",
        b"\x07\0\0\x02\0\0\0\x02\0\0\0",
    );
    let full = scripted(b"\x17\0\0\0\xff\x10\x04Too many connections", b"never", b"");
    let denies = scripted(
        b"\x18\0\0\0\x0a5.5.5-10.11.19-MariaDB\0",
        b"probe\0\0",
        b"\x1f\0\0\x02\xff\x15\x04#28000Access denied for user",
    );
    let checks = [
        (password.addr, "postgres = true"),
        (starting.addr, "postgres = true"),
        (nobody.addr, "postgres = true"),
        (greets.addr, "postgres = true"),
        (greets.addr, "mysql = true"),
        (greets.addr, "mysql = true\nuser = \"probe\""),
        (full.addr, "mysql = true"),
        (denies.addr, "mysql = true\nuser = \"probe\""),
        (password.addr, "mysql = true"),
    ];
    let proxy = Proxy::start(&config(&checks));
    let said: Vec<_> = (0..checks.len()).map(|n| verdict(&proxy, n)).collect();
    let err = |text: &str| Err(text.to_owned());
    assert_eq!(
        said,
        [
            Ok(()),
            err("the database system is starting up"),
            Ok(()),
            err("the answer is not PostgreSQL"),
            Ok(()),
            Ok(()),
            err("error 1040: Too many connections"),
            err("error 1045: Access denied for user"),
            err("no answer within 2s"),
        ]
    );
}

#[test]
fn lines_are_sent_and_waited_for() {
    let lines = scripted(b"220 ready\r\n", b"NOOP\r\n", b"250 2.0.0 OK\r\n");
    let checks = [
        (lines.addr, "tcp = true\nexpect = \"220\""),
        (lines.addr, "tcp = true\nsend = \"NOOP\\r\\n\"\nexpect = \"250 \""),
        (lines.addr, "tcp = true\nsend = \"NOOP\\r\\n\"\nexpect = \"334\""),
        (Origin::nobody(), "tcp = true\nexpect = \"220\""),
    ];
    let proxy = Proxy::start(&config(&checks));
    let said: Vec<_> = (0..checks.len()).map(|n| verdict(&proxy, n)).collect();
    assert_eq!(
        said,
        [
            Ok(()),
            Ok(()),
            Err("no answer within 2s".into()),
            Err("connection refused".into()),
        ]
    );
}

#[test]
fn commands_are_run_with_their_endpoint_and_killed_in_time() {
    let addr = SocketAddr::from(([127, 0, 0, 9], 7007));
    let says = "echo $EVENKEEL_ENDPOINT $EVENKEEL_ADDRESS $EVENKEEL_PORT $${HOME:-homeless}; exit 3";
    let sleeps = format!("sleep {}.5", 100_000 + std::process::id());
    let hangs = format!("{sleeps} & {sleeps}");
    let checks = [
        (addr, "exec = [\"/bin/true\"]".to_owned()),
        (addr, format!("exec = [\"/bin/sh\", \"-c\", \"{says}\"]")),
        (addr, format!("exec = [\"/bin/sh\", \"-c\", \"{hangs}\"]")),
        (addr, "exec = [\"/nonexistent/check\"]".to_owned()),
        // What stays behind holds the output open, even where it has left the group: the end of the command counts.
        (
            addr,
            "exec = [\"/bin/sh\", \"-c\", \"setsid sleep 0.3 & exit 0\"]".to_owned(),
        ),
    ];
    let checks: Vec<_> = checks.iter().map(|(addr, health)| (*addr, health.as_str())).collect();
    let mut proxy = Proxy::start(&config(&checks));
    let said: Vec<_> = (0..checks.len()).map(|n| verdict(&proxy, n)).collect();
    assert_eq!(said[0], Ok(()));
    assert_eq!(
        said[1],
        Err("exit code 3: 127.0.0.9:7007 127.0.0.9 7007 homeless".into())
    );
    assert_eq!(said[2], Err("no answer within 2s".into()));
    assert!(
        said[3].as_ref().is_err_and(|e| e.contains("cannot be started")),
        "{said:?}"
    );
    assert_eq!(said[4], Ok(()));
    // The sleeps of the command that was killed are gone with it, but for those of the next probe.
    proxy.signal(TERM);
    assert!(proxy.wait_end().success());
    eventually("nothing of it is left", || {
        let all = Command::new("ps").args(["-eo", "args"]).output().unwrap().stdout;
        !String::from_utf8_lossy(&all).lines().any(|line| line == sleeps)
    });
}

/// The states of the processes that `parent` has started: `Z` is one that has ended and was not collected.
fn children(parent: u32) -> String {
    let ps = Command::new("ps")
        .args(["--ppid", &parent.to_string(), "-o", "state="])
        .output();
    let states = String::from_utf8(ps.unwrap().stdout).unwrap();
    states.split_whitespace().collect()
}

#[test]
fn commands_leave_nothing_behind() {
    let addr = SocketAddr::from(([127, 0, 0, 9], 7008));
    let sleeps = format!("sleep {}.25", 200_000 + std::process::id());
    let sh = |script: &str| format!("exec = [\"/bin/sh\", \"-c\", \"{script}\"]\ntimeout = \"50ms\"");
    let (hangs, leaves) = (sh(&format!("{sleeps} & {sleeps}")), sh(&format!("{sleeps} & exit 1")));
    let text = config(&[(addr, &hangs), (addr, &leaves)]).replace("\"2s\"", "\"100ms\"");
    let proxy = Proxy::start(&text);
    let probes = |n: usize| {
        let of = |result| {
            let labels = format!("upstream=\"u{n}\",endpoint=\"{addr}\",result=\"{result}\"");
            proxy.metric(&format!("evenkeel_endpoint_probes_total{{{labels}}}"))
        };
        of("timeout") + of("wrong_answer")
    };
    let asked = |least: f64| eventually("probes", || probes(0) >= least && probes(1) >= least);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", proxy.pid())).unwrap().count();
    asked(5.0);
    let before = descriptors();
    asked(30.0);
    let now = descriptors();
    assert!(now < before + 5, "{now} descriptors, {before} before");
    // Those of the probes under way may be there.
    let all = Command::new("ps").args(["-eo", "args"]).output().unwrap().stdout;
    let left = String::from_utf8_lossy(&all)
        .lines()
        .filter(|line| *line == sleeps)
        .count();
    assert!(left <= 6, "{left}");
    let of = children(proxy.pid());
    assert!(of.len() <= 4, "{of}");
    eventually("what has ended is collected", || !children(proxy.pid()).contains('Z'));
}

#[test]
fn an_endpoint_of_several_upstreams_is_asked_once() {
    let well = Arc::new(AtomicBool::new(true));
    let answer = well.clone();
    let shared = Origin::start(move |_, stream| reply(stream, if answer.load(Relaxed) { 200 } else { 503 }, ""));
    let other = "http = \"/other\"";
    let same = "http = \"/same\"";
    let checks = [
        (shared.addr, same),
        (shared.addr, same),
        (shared.addr, other),
        (shared.addr, same),
    ];
    let quick = |checks: &[_]| config(checks).replace("\"2s\"", "\"100ms\"");
    let proxy = Proxy::start(&quick(&checks));
    let up = |n: usize| proxy.metric(&format!("evenkeel_endpoint_up{{upstream=\"u{n}\"")) == 1.0;
    eventually("all up", || (0..4).all(up));
    let asked = |path: &str| shared.seen().iter().filter(|s| s.path() == path).count();
    let before = asked("/same");
    eventually("more probes", || asked("/same") >= before + 10);
    // Three upstreams, one question: as often as the one that asks otherwise.
    let (three, one) = (asked("/same") as f64, asked("/other") as f64);
    assert!(three < 2.0 * one, "{three} and {one}");
    assert_eq!(proxy.metric("evenkeel_endpoint_probes_total{upstream=\"u2\""), one);

    well.store(false, Relaxed);
    eventually("all down", || !(0..4).any(up));
    // A reload that drops one of them, and asks one in another way, keeps the rest going.
    proxy.reload(&quick(&[checks[0], (shared.addr, "http = \"/new\"")]));
    let status = proxy.status();
    let endpoint = &status["upstreams"][0]["endpoints"][0];
    assert_eq!(endpoint["health"], "down");
    assert_eq!(endpoint["probe"]["result"], "wrong_answer");
    assert_eq!(endpoint["probe"]["reason"], "status 503, expected 200-399");
    let changes = endpoint["changes"].as_array().unwrap();
    let told: Vec<_> = changes
        .iter()
        .map(|c| format!("{} {} {}", c["from"], c["to"], c["reason"]))
        .collect();
    assert_eq!(
        told,
        [
            "\"up\" \"down\" \"status 503, expected 200-399\"",
            "\"checking\" \"up\" \"probe passed\""
        ]
    );
    let failed = proxy.metric("evenkeel_endpoint_probes_total{upstream=\"u0\"");
    assert!(failed > 10.0, "counted on over the reload: {failed}");
    eventually("the new way is asked", || asked("/new") > 0);
}

#[test]
fn an_agent_drains_weighs_and_takes_down() {
    let word = Arc::new(Mutex::new("up 100%\n"));
    let (says, seen) = (word.clone(), Arc::new(Mutex::new(String::new())));
    let heard = seen.clone();
    let agent = Origin::raw(move |stream, _| {
        let mut line = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut line)?;
        *heard.lock().unwrap() = line;
        stream.write_all(says.lock().unwrap().as_bytes())
    });
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let port = agent.addr.port();
    let with_agent = |more: &str| {
        format!(
            r#"
            [server]
            workers = 1
            [admin]
            bind = "127.0.0.1:0"
            [listeners.web]
            bind = "127.0.0.1:0"
            [[routes]]
            path = "/"
            upstream = "u"
            [[routes]]
            path = "/other"
            upstream = "other"
            [upstreams.u]
            balance = "round_robin"
            endpoints = [{{ address = "{}", weight = 2 }}]
            health = {{ tcp = true, interval = "100ms", {more} }}
            [upstreams.other]
            balance = "round_robin"
            endpoints = [{{ address = "{}", weight = 2 }}, "{}"]
            "#,
            a.addr, a.addr, b.addr
        )
    };
    let proxy = Proxy::start(&with_agent(&format!(
        "agent = {port}, agent_send = \"ask {{endpoint}}\\n\""
    )));
    let endpoint = |name: &str| proxy.status()["upstreams"][0]["endpoints"][0][name].clone();
    eventually("it is asked", || !seen.lock().unwrap().is_empty());
    assert_eq!(*seen.lock().unwrap(), format!("ask {}\n", a.addr));
    eventually("up", || endpoint("health") == "up");
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
    let say = |words: &'static str| *word.lock().unwrap() = words;

    say("50%\n");
    eventually("half of it", || endpoint("weight") == 1);
    say("drain\r\n");
    eventually("it drains", || endpoint("duty") == "draining");
    assert_eq!(endpoint("weight"), 1, "what was not said stays");
    assert_eq!(endpoint("health"), "up");
    assert_eq!(get(proxy.addr("web"), "/").status, 503);
    // The same address of another upstream has no agent.
    assert_eq!(get(proxy.addr("web"), "/other").status, 200);
    say("ready 100% down#disk is full\n");
    eventually("it is down", || endpoint("health") == "down");
    let line = proxy.wait_for("endpoint down");
    assert_eq!(line["reason"], "its agent says down: disk is full");
    assert_eq!(endpoint("duty"), "active");
    say("up");
    eventually("it is up", || {
        endpoint("health") == "up" && get(proxy.addr("web"), "/").status == 200
    });
    say("maint\n");
    eventually("it is disabled", || endpoint("duty") == "disabled");
    // Without its agent nobody would ever take that back.
    proxy.reload(&with_agent("rise = 1"));
    eventually("it takes work", || {
        endpoint("duty") == "active" && get(proxy.addr("web"), "/").status == 200
    });
}

/// A real Redis; killed when dropped.
struct Redis(Child);

impl Redis {
    fn start(dir: &std::path::Path, port: u16, more: &[&str]) -> Self {
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--dir"])
            .arg(dir)
            .args(["--port", &port.to_string()])
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server, which scripts/test installs");
        Self(child)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn redis_is_down_while_it_loads() {
    let dir = tempfile::tempdir().unwrap();
    let addr = Origin::nobody();
    let checks = [
        (addr, "redis = true\npassword = \"sesame\""),
        (addr, "redis = true\npassword = \"wrong\""),
        (addr, "redis = true"),
    ];
    let proxy = Proxy::start(&config(&checks).replace("\"2s\"", "\"200ms\""));
    assert_eq!(verdict(&proxy, 0), Err("connection refused".into()));
    let settings = ["--requirepass", "sesame", "--enable-debug-command", "local"];
    let redis = Redis::start(dir.path(), addr.port(), &settings);
    let up = |n: usize| proxy.metric(&format!("evenkeel_endpoint_up{{upstream=\"u{n}\"")) == 1.0;
    eventually("Redis is up", || up(0));
    let failed = |n: usize, what: &str| {
        let name = format!("u{n}");
        proxy.wait(what, |line| {
            line["upstream"] == name.as_str() && line["reason"].as_str().is_some_and(|r| r.contains(what))
        });
    };
    failed(1, "WRONGPASS");
    failed(2, "NOAUTH");
    assert!(!up(1) && !up(2));

    // Enough to load for a while, each key made to take its time.
    let mut client = std::net::TcpStream::connect(addr).unwrap();
    client
        .write_all(b"AUTH sesame\r\nDEBUG POPULATE 2000\r\nSAVE\r\n")
        .unwrap();
    let dump = dir.path().join("dump.rdb");
    eventually("it is written down", || dump.exists());
    drop(redis);
    let slowly = [
        "--requirepass",
        "sesame",
        "--key-load-delay",
        "1000",
        "--loading-process-events-interval-bytes",
        "1024",
    ];
    let _redis = Redis::start(dir.path(), addr.port(), &slowly);
    failed(0, "LOADING");
    eventually("Redis has loaded", || up(0));
}

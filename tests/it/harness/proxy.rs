//! The daemon as a child process: its configuration, its log, its signals.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;

use super::PATIENCE;

pub const HUP: i32 = 1;
pub const INT: i32 = 2;
pub const TERM: i32 = 15;
pub const USR1: i32 = 10;
pub const CONT: i32 = 18;
const STOP: i32 = 19;

/// A running daemon; killed when dropped.
pub struct Proxy {
    child: Child,
    pub dir: TempDir,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<Value>>,
    more: Condvar,
}

impl Proxy {
    /// Starts with `config`, in whose text `{DIR}` is a fresh folder. Panics with the log when it does not get ready.
    #[track_caller]
    pub fn start(config: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), config)
    }

    /// As [`Self::start`], in a folder that holds files already.
    #[track_caller]
    pub fn start_in(dir: TempDir, config: &str) -> Self {
        Self::start_with(dir, config, |_| {})
    }

    /// As [`Self::start_in`], with the command changed first.
    #[track_caller]
    pub fn start_with(dir: TempDir, config: &str, change: impl FnOnce(&mut Command)) -> Self {
        let path = dir.path().join("evenkeel.toml");
        std::fs::write(&path, complete(config, &dir)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_evenkeel"));
        command
            .arg("run")
            .arg("--config")
            .arg(&path)
            .stderr(Stdio::piped())
            .stdout(Stdio::null());
        change(&mut command);
        let mut child = command.spawn().unwrap();
        let log = Arc::new(Log::default());
        let (lines, stderr) = (log.clone(), BufReader::new(child.stderr.take().unwrap()));
        std::thread::spawn(move || {
            for line in stderr.lines() {
                let Ok(line) = line else { break };
                let value = serde_json::from_str(&line).unwrap_or(Value::String(line));
                lines.lines.lock().unwrap().push(value);
                lines.more.notify_all();
            }
            lines.lines.lock().unwrap().push(Value::Null);
            lines.more.notify_all();
        });
        let proxy = Self { child, dir, log };
        proxy.wait_for("ready");
        proxy
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn config_path(&self) -> PathBuf {
        self.dir.path().join("evenkeel.toml")
    }

    /// Where listener `name` listens (its first address).
    #[track_caller]
    pub fn addr(&self, name: &str) -> SocketAddr {
        *self
            .addrs()
            .get(name)
            .unwrap_or_else(|| panic!("no listener {name}: {:?}", self.log.lines.lock().unwrap()))
    }

    /// The newest address of every listener.
    pub fn addrs(&self) -> HashMap<String, SocketAddr> {
        let lines = self.log.lines.lock().unwrap();
        let listening = lines.iter().filter(|line| line["message"] == "listening");
        listening
            .filter_map(|line| {
                Some((
                    line["listener"].as_str()?.to_owned(),
                    line["address"].as_str()?.parse().ok()?,
                ))
            })
            .collect()
    }

    /// Waits for a log line with this message; returns the newest.
    #[track_caller]
    pub fn wait_for(&self, message: &str) -> Value {
        self.wait(message, |line| line["message"] == message)
    }

    /// Waits for a log line.
    #[track_caller]
    pub fn wait(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + PATIENCE;
        let mut lines = self.log.lines.lock().unwrap();
        loop {
            if let Some(found) = lines.iter().rev().find(|line| is_it(line)) {
                return found.clone();
            }
            let ended = lines.last() == Some(&Value::Null);
            let left = until.saturating_duration_since(Instant::now());
            assert!(
                !ended && !left.is_zero(),
                "no `{what}` in the log (ended: {ended}): {lines:#?}"
            );
            lines = self.log.more.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// How many log lines have this message by now.
    pub fn count(&self, message: &str) -> usize {
        self.log
            .lines
            .lock()
            .unwrap()
            .iter()
            .filter(|line| line["message"] == message)
            .count()
    }

    /// Writes a new configuration and waits until it is accepted.
    #[track_caller]
    pub fn reload(&self, config: &str) -> Value {
        self.write(config);
        self.hangup("reloaded")
    }

    /// Writes a new configuration and waits until it is rejected; its errors.
    #[track_caller]
    pub fn reload_rejected(&self, config: &str) -> String {
        self.write(config);
        self.hangup("reload rejected")["errors"].as_str().unwrap().to_owned()
    }

    pub fn write(&self, config: &str) {
        // In one step: a reload by somebody else must not see half a file.
        let new = self.dir.path().join("new.toml");
        std::fs::write(&new, complete(config, &self.dir)).unwrap();
        std::fs::rename(new, self.config_path()).unwrap();
    }

    #[track_caller]
    fn hangup(&self, message: &str) -> Value {
        let ends = || self.count("reloaded") + self.count("reload rejected");
        let before = ends();
        self.signal(HUP);
        super::eventually("the end of a reload", || ends() > before);
        let lines = self.log.lines.lock().unwrap();
        let is_end = |line: &&Value| line["message"] == "reloaded" || line["message"] == "reload rejected";
        let last = lines.iter().rev().find(is_end).unwrap();
        assert_eq!(last["message"], message, "{last:#}");
        last.clone()
    }

    /// Sends a signal by number.
    pub fn signal(&self, signal: i32) {
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.pid().to_string())
            .status()
            .unwrap();
        assert!(status.success());
    }

    /// Stops all its threads. The signal alone is only a word: each stops when it next runs.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(STOP);
        let tasks = format!("/proc/{}/task", self.pid());
        let is_stopped = |task: std::io::Result<std::fs::DirEntry>| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        super::eventually("it is stopped", || std::fs::read_dir(&tasks).unwrap().all(is_stopped));
    }

    /// Waits for the process to end by itself.
    #[track_caller]
    pub fn wait_end(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < until,
                "still running: {:#?}",
                self.log.lines.lock().unwrap()
            );
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Resident memory in KiB.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn complete(config: &str, dir: &TempDir) -> String {
    let config = config.replace("{DIR}", dir.path().to_str().unwrap());
    if config.contains("[log]") {
        config
    } else {
        format!("{config}\n[log]\nformat = \"json\"\nlevel = \"debug\"\n")
    }
}

//! The command probe: a program asked about one endpoint; it passes by exiting with 0.
//!
//! The program runs without a shell, in a process group of its own that is killed at the deadline, and what is left of it
//! when the program ends: a probe that leaves something behind each time would fill the machine. Its environment is
//! `PATH` and what it is asked about: secrets of this process are not handed on.

use std::net::SocketAddr;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::expect::excerpt;
use super::{Failed, Target};
use crate::net::addr::DialAddr;
use crate::net::nofile::exhausted;

/// How much of what it prints is kept for the reason.
const MAX_OUTPUT: usize = 512;
/// For what it printed and is not read yet when it has ended: what has left its group may hold the other end open.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Runs `command` (a program and its arguments). Dropping the future kills it.
pub async fn run(command: &[String], target: &Target, port: Option<u16>) -> Result<(), Failed> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Failed::Answer("no command".into()));
    };
    let of = |addr: &SocketAddr| (addr.ip().to_string(), port.unwrap_or(addr.port()).to_string());
    let (address, port) = match &target.addr {
        DialAddr::Ip(addr) => of(addr),
        // The one that answered last.
        DialAddr::Any(addrs) => addrs.get().first().map(of).unwrap_or_default(),
        DialAddr::Unix(path) => (path.display().to_string(), String::new()),
    };
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("EVENKEEL_ENDPOINT", target.configured.to_string())
        .env("EVENKEEL_ADDRESS", address)
        .env("EVENKEEL_PORT", port)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| match exhausted(&e) {
            true => Failed::Exhausted,
            false => Failed::Answer(format!("`{program}` cannot be started: {e}")),
        })?;
    let stdout = child.stdout.take();
    let mut group = Group::of(child);
    let mut kept = Vec::new();
    let status = {
        let mut reading = pin!(read(stdout, &mut kept));
        let mut at_end = false;
        let status = loop {
            tokio::select! {
                status = group.wait() => break status,
                () = &mut reading, if !at_end => at_end = true,
            }
        };
        if !at_end {
            let _ = timeout(LAST_WORDS, reading).await;
        }
        status.map_err(|e| Failed::Answer(format!("`{program}`: {e}")))?
    };
    if status.success() {
        return Ok(());
    }
    let said = excerpt(&kept);
    let how = match status.code() {
        Some(code) => format!("exit code {code}"),
        None => "killed by a signal".into(),
    };
    Err(Failed::Answer(match said.is_empty() {
        true => how,
        false => format!("{how}: {said}"),
    }))
}

/// Keeps the beginning of what it prints; the rest is read, lest it wait for a reader.
async fn read(stdout: Option<ChildStdout>, kept: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    let Some(mut stdout) = stdout else { return };
    while let Ok(n @ 1..) = stdout.read(&mut buffer).await {
        let room = MAX_OUTPUT - kept.len();
        kept.extend_from_slice(&buffer[..n.min(room)]);
    }
}

/// A process and all it has started in its group, killed when the process ends or on drop. (The runtime then collects it.)
struct Group {
    leader: Child,
    /// `None`: killed.
    id: Option<Pid>,
}

impl Group {
    fn of(leader: Child) -> Self {
        let id = leader.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        Self { leader, id }
    }

    async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        let status = self.leader.wait().await;
        // At once: while anybody is left in the group its number is taken, and else has hardly been given away yet.
        self.kill();
        status
    }

    fn kill(&mut self) {
        if let Some(id) = self.id.take() {
            // Nobody may be left by now.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

//! The commands as a user types them: the real binary, what it prints, how it ends.

// Each binary of tests uses its own part of it.
#[allow(dead_code, unused_imports)]
#[path = "../it/harness/mod.rs"]
mod harness;

mod explain;

use std::process::{Command, Stdio};

/// What a command said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs `evenkeel` with `args` and without what the environment may say.
pub fn evenkeel(args: &[&str]) -> Said {
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(args)
        .env_remove("EVENKEEL_CONFIG")
        .env_remove("EVENKEEL_ADMIN")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    Said {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A file in a folder of its own.
pub fn file(text: &str) -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("evenkeel.toml");
    std::fs::write(&path, text.replace("{DIR}", dir.path().to_str().unwrap())).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (dir, path)
}

//! `evenkeel check`.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::Args;

use super::Config;
use crate::config;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    config: Config,
}

pub fn check(options: &Options) -> ExitCode {
    let color = std::io::stderr().is_terminal();
    let path = &options.config.file;
    match config::load(path) {
        Ok(loaded) => {
            eprint!("{}", loaded.warnings.render(color));
            let plan = &loaded.plan;
            println!(
                "{}: no errors ({}, {}, {})",
                path.display(),
                counted(plan.listeners.len(), "listener"),
                counted(plan.routes.len(), "route"),
                counted(plan.upstreams.len(), "upstream"),
            );
            ExitCode::SUCCESS
        }
        Err(report) => {
            eprint!("{}", report.render(color));
            let n = report.errors().count();
            eprintln!("{}: {}", path.display(), counted(n, "error"));
            ExitCode::FAILURE
        }
    }
}

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

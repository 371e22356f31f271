//! `evenkeel check`.

use std::process::ExitCode;

use clap::Args;

use super::{Config, complain, say};
use crate::base::terminal::colours;
use crate::config;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    config: Config,
}

pub fn check(options: &Options) -> ExitCode {
    let color = colours(&std::io::stderr());
    let path = &options.config.file;
    match config::load(path) {
        Ok(loaded) => {
            complain(loaded.warnings.render(color));
            let plan = &loaded.plan;
            say(format_args!(
                "{}: no errors ({}, {}, {})\n",
                path.display(),
                counted(plan.listeners.len(), "listener"),
                counted(plan.routes.len(), "route"),
                counted(plan.upstreams.len(), "upstream"),
            ));
            ExitCode::SUCCESS
        }
        Err(report) => {
            complain(report.render(color));
            let n = report.errors().count();
            complain(format_args!("{}: {}\n", path.display(), counted(n, "error")));
            ExitCode::FAILURE
        }
    }
}

fn counted(n: usize, what: &str) -> String {
    let plural = if n == 1 { "" } else { "s" };
    format!("{n} {what}{plural}")
}

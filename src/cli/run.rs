//! `evenkeel run`.

use std::process::ExitCode;

use clap::Args;

use super::{Config, Log};
use crate::admin;
use crate::control::{self, Source, Start};

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    config: Config,
    #[command(flatten)]
    log: Log,
}

pub fn run(options: Options) -> ExitCode {
    control::run(Start {
        source: Source::File(options.config.file),
        log: options.log.into(),
        admin: admin::start,
    })
}

//! `evenkeel healthz`: a health check for images that have no curl.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ask::Admin;
use super::complain;

#[derive(Debug, Args)]
pub struct Options {
    #[command(flatten)]
    admin: Admin,
}

const PATIENCE: Duration = Duration::from_secs(3);

pub fn healthz(options: &Options) -> ExitCode {
    let admin = &options.admin;
    match admin.ask("GET", "/readyz", None, PATIENCE) {
        Ok(answer) if answer.status == 200 => ExitCode::SUCCESS,
        Ok(_) => {
            complain(format_args!("evenkeel: {} is not ready\n", admin.address));
            ExitCode::FAILURE
        }
        Err(error) => {
            complain(admin.failed(&error));
            ExitCode::FAILURE
        }
    }
}

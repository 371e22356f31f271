//! The daemon's entry point.

use std::process::ExitCode;

use evenkeel::control::{LogOptions, Source, Start, run};

fn main() -> ExitCode {
    let path = std::env::args().nth(3).unwrap_or_default();
    run(Start {
        source: Source::File(path.into()),
        log: LogOptions::default(),
        admin: evenkeel::admin::start,
    })
}

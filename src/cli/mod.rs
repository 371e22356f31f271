//! The command line: what each command is called, takes and says.

mod ask;
mod check;
mod demo;
mod explain;
mod healthz;
mod proxy;
mod run;
mod style;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::config::plan::LogFormat;
use crate::config::schema::server::level;
use crate::control::LogOptions;

/// A load balancer for TCP and HTTP: accepts connections, picks a healthy endpoint, moves the bytes.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    max_term_width = 100,
    after_help = "Start here:\n  evenkeel demo                                    see it work, with origins built in\n  evenkeel proxy --from :8080 --to 127.0.0.1:9001  balance without a file\n  evenkeel check --config evenkeel.toml            all errors of a file at once\n  evenkeel run --config evenkeel.toml              serve"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve in the foreground until told to stop.
    ///
    /// Logs go to standard error. Exit status: 0 after a clean stop, 1 if it could not start, 2 on wrong usage.
    ///
    /// Signals: SIGHUP reads the configuration again (a file with errors changes nothing); SIGTERM and SIGINT stop
    /// accepting and let what runs finish within `server.shutdown_grace`, a second one ends at once; SIGUSR1 opens
    /// log files again.
    Run(run::Options),
    /// Tell all errors and warnings of a configuration without opening a socket.
    ///
    /// Exit status: 0 if it can be run, 1 if not.
    Check(check::Options),
    /// Show it at work: origins built in, a proxy on 127.0.0.1:8080, admin on 127.0.0.1:9900.
    Demo(demo::Options),
    /// Balance without a configuration file.
    ///
    /// Examples:
    ///   evenkeel proxy --from :8080 --to 127.0.0.1:9001 --to 127.0.0.1:9002
    ///   evenkeel proxy --tcp --from 127.0.0.1:5432 --to db1:5432 --to db2:5432
    #[command(verbatim_doc_comment)]
    Proxy(proxy::Options),
    /// Tell what would become of a request, and why: listener, certificate, route, cache, upstream, endpoints.
    ///
    /// Nothing is sent, counted or changed: what requests go through is asked, of a running evenkeel or of a file.
    ///
    /// Exit status: 0 with an explanation, 1 if there is nobody to ask or the file has errors, 2 if the request makes no
    /// sense.
    ///
    /// Examples:
    ///   evenkeel explain https://shop.example/api/x -H 'x-canary: yes' --from 10.1.2.3
    ///   evenkeel explain POST http://127.0.0.1:8080/login --config evenkeel.toml
    #[command(verbatim_doc_comment)]
    Explain(explain::Options),
    /// Ask a running evenkeel whether it is ready: for container health checks.
    ///
    /// Exit status: 0 if its admin listener says so, 1 if not.
    Healthz(healthz::Options),
}

/// How it logs.
#[derive(Debug, Args)]
struct Log {
    /// What is logged: off, error, warn, info, debug, trace, or a filter such as `warn,evenkeel::health=debug`.
    /// Overrides `[log]`.
    #[arg(
        long = "log-level",
        env = "EVENKEEL_LOG",
        value_name = "LEVEL",
        value_parser = level,
        global = true
    )]
    level: Option<String>,
    /// How it looks. Overrides `[log]`.
    #[arg(
        long = "log-format",
        env = "EVENKEEL_LOG_FORMAT",
        value_name = "FORMAT",
        global = true
    )]
    format: Option<FormatName>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

impl From<Log> for LogOptions {
    fn from(log: Log) -> Self {
        Self {
            level: log.level,
            format: log.format.map(|format| match format {
                FormatName::Text => LogFormat::Text,
                FormatName::Json => LogFormat::Json,
            }),
        }
    }
}

/// Which file.
#[derive(Debug, Args)]
struct Config {
    /// The configuration file.
    #[arg(long = "config", short = 'c', env = "EVENKEEL_CONFIG", value_name = "FILE")]
    file: PathBuf,
}

/// To standard output. Nobody may read it to its end (`| head`), which is no reason to fail.
fn say(text: impl Display) {
    let _ = write!(io::stdout(), "{text}");
}

/// The same to standard error.
fn complain(text: impl Display) {
    let _ = write!(io::stderr(), "{text}");
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(options) => run::run(options),
        Command::Check(options) => check::check(&options),
        Command::Demo(options) => demo::demo(options),
        Command::Proxy(options) => proxy::proxy(options),
        Command::Explain(options) => explain::explain(options),
        Command::Healthz(options) => healthz::healthz(&options),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }
}

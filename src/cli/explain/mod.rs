//! `evenkeel explain`: what would become of a request, and why.

mod render;

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::ask::Admin;
use super::style::Style;
use super::{complain, say};
use crate::base::terminal::colours;
use crate::config;
use crate::control::offline;
use crate::proxy::explain::{self, Explanation, Question};

#[derive(Debug, Args)]
#[command(allow_missing_positional = true)]
pub struct Options {
    /// The method, upper case.
    #[arg(default_value = "GET")]
    method: String,
    /// The URL, whole: `https://host[:port]/path?query`.
    url: String,
    /// A header field, as curl takes it: `-H 'x-canary: yes'`. May be given again.
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// The client's address.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    from: IpAddr,
    /// The listener it comes in by; without it, the URL's port tells.
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Ask this file, not a running evenkeel (`--admin` means nothing then).
    #[arg(long = "config", short = 'c', value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    admin: Admin,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

const PATIENCE: Duration = Duration::from_secs(30);
/// A question that makes no sense: wrong usage.
const USAGE: u8 = 2;

pub fn explain(options: Options) -> ExitCode {
    let question = Question {
        method: options.method,
        url: options.url,
        headers: options.headers,
        from: options.from,
        listener: options.listener,
    };
    let told = match &options.file {
        Some(file) => from_file(file, &question),
        None => from_running(&options.admin, &question),
    };
    let told = match told {
        Ok(told) => told,
        Err(code) => return code,
    };
    match options.json {
        true => say(serde_json::to_string_pretty(&told).unwrap_or_default() + "\n"),
        false => say(render::text(&told, Style::of_stdout())),
    }
    ExitCode::SUCCESS
}

fn from_file(file: &std::path::Path, question: &Question) -> Result<Explanation, ExitCode> {
    let failed = |text: String| {
        complain(text);
        ExitCode::FAILURE
    };
    let loaded = config::load(file).map_err(|report| failed(report.render(colours(&std::io::stderr()))))?;
    let (current, places) = offline::world(&loaded.plan).map_err(|e| failed(format!("evenkeel: {e}\n")))?;
    let told = explain::explain(&current, &places, question);
    let mut told = told.map_err(|wrong| unclear(&wrong.error, &wrong.help))?;
    if told.upstreams.iter().any(|upstream| !upstream.endpoints.is_empty()) {
        told.notes
            .push("from a file: nobody's health is known, and nothing is under way".to_owned());
    }
    Ok(told)
}

fn from_running(admin: &Admin, question: &Question) -> Result<Explanation, ExitCode> {
    // What can be found wrong here needs no running evenkeel.
    question.read().map_err(|wrong| unclear(&wrong.error, &wrong.help))?;
    let failed = |error: &str| {
        complain(admin.failed(error));
        complain("  = help: name its admin listener with --admin, or a file with --config\n");
        ExitCode::FAILURE
    };
    let body = serde_json::to_string(question).map_err(|e| failed(&e.to_string()))?;
    let answer = admin
        .ask("POST", "/api/v1/explain", Some(&body), PATIENCE)
        .map_err(|e| failed(&e))?;
    match answer.status {
        200 => serde_json::from_slice(&answer.body).map_err(|_| failed("its answer is of another version")),
        400 => {
            let wrong: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
            let text = |key| wrong.get(key).and_then(|value| value.as_str()).unwrap_or_default();
            Err(unclear(text("error"), text("help")))
        }
        404 => Err(failed("it is of an older version, which cannot explain")),
        status => Err(failed(&format!("it answers {status}"))),
    }
}

fn unclear(error: &str, help: &str) -> ExitCode {
    complain(format_args!("error: {error}\n"));
    if !help.is_empty() {
        complain(format_args!("  = help: {help}\n"));
    }
    ExitCode::from(USAGE)
}

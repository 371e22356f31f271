//! `evenkeel proxy`: a load balancer without a file.

use std::process::ExitCode;

use clap::Args;

use super::{Log, say};
use crate::admin;
use crate::control::{self, Source, Start};

#[derive(Debug, Args)]
pub struct Options {
    /// Where clients connect: `address:port`, `:port` (every address) or `unix:/path`. May be given again.
    #[arg(long, value_name = "ADDRESS", required = true)]
    from: Vec<String>,
    /// Where they are sent: `host:port` or `unix:/path`. May be given again.
    #[arg(long, value_name = "ADDRESS", required = true)]
    to: Vec<String>,
    /// Move bytes of any protocol instead of HTTP requests.
    #[arg(long)]
    tcp: bool,
    /// How an endpoint is picked: auto, round_robin, random, least_connections, p2c or peak_ewma.
    #[arg(long, value_name = "ALGORITHM", default_value = "auto")]
    balance: String,
    /// Ask every endpoint for this path every five seconds; without it, whether it accepts connections.
    #[arg(long, value_name = "PATH", conflicts_with = "tcp")]
    health: Option<String>,
    /// Metrics, health and status on this address.
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
    /// Print the configuration these options stand for, to start a file from, and end.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    log: Log,
}

pub fn proxy(options: Options) -> ExitCode {
    let text = configuration(&options);
    if options.print_config {
        say(text);
        return ExitCode::SUCCESS;
    }
    control::run(Start {
        source: Source::Text {
            name: "the command line".to_owned(),
            text,
        },
        log: options.log.into(),
        admin: admin::start,
    })
}

fn configuration(options: &Options) -> String {
    let admin = match &options.admin {
        Some(admin) => format!("[admin]\nbind = {}\n\n", quoted(admin)),
        None => String::new(),
    };
    let (protocol, routes) = match options.tcp {
        true => ("protocol = \"tcp\"\nupstream = \"endpoints\"\n", ""),
        false => ("", "[[routes]]\nname = \"everything\"\nupstream = \"endpoints\"\n\n"),
    };
    let health = match &options.health {
        Some(path) => format!("http = {}", quoted(path)),
        None => "tcp = true".to_owned(),
    };
    format!(
        "{admin}[listeners.proxy]\nbind = {from}\n{protocol}\n{routes}[upstreams.endpoints]\nbalance = {balance}\n\
         endpoints = {to}\n\n[upstreams.endpoints.health]\n{health}\n",
        from = list(&options.from),
        balance = quoted(&options.balance),
        to = list(&options.to),
    )
}

fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(", "))
}

/// A TOML basic string; `$` is doubled, since arguments are no place for variables of a configuration.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '$' => out.push_str("$$"),
            _ if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::config;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn plan(args: &str) -> config::plan::Plan {
        let line = Line::parse_from(std::iter::once("proxy").chain(args.split(' ')));
        let text = configuration(&line.options);
        match config::load_text("the command line", &text) {
            Ok(loaded) => loaded.plan,
            Err(report) => panic!("{text}\n{report}"),
        }
    }

    #[test]
    fn options_become_a_configuration_without_errors() {
        let http =
            plan("--from :8080 --from 127.0.0.1:8081 --to 127.0.0.1:9001 --to db:9002 --health /up --admin :9900");
        assert_eq!(
            (http.listeners[0].bind.len(), http.upstreams[0].endpoints.len()),
            (2, 2)
        );
        assert!(http.admin.is_some() && http.routes.len() == 1);
        let tcp = plan("--tcp --balance least_connections --from unix:/tmp/a --to unix:/tmp/b");
        assert!(tcp.routes.is_empty() && tcp.upstreams[0].health.is_some());
    }

    #[test]
    fn what_is_typed_stays_one_string() {
        assert_eq!(quoted("a\"b\\c$d\n"), r#""a\"b\\c$$d\u000A""#);
    }
}

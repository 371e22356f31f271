//! Setting up `tracing`: text for people, JSON for machines, level by option and environment.

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

use crate::base::terminal::colours;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One line for people; coloured on a terminal.
    Text,
    /// One JSON object per line: `timestamp`, `level`, `message` and the fields.
    Json,
}

/// Changes the level of a running process.
#[derive(Debug, Clone)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

/// Starts logging to standard error. `level`: a level or a filter (`info`, `evenkeel=debug`). Fails when the
/// filter cannot be read, or when logging was started before.
pub fn start(level: &str, format: Format) -> Result<Log, String> {
    let (filter, handle) = reload::Layer::new(filter(level)?);
    let lines = match format {
        Format::Text => fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(colours(&std::io::stderr()))
            .with_target(false)
            .boxed(),
        Format::Json => fmt::layer()
            .with_writer(std::io::stderr)
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_target(false)
            .boxed(),
    };
    let subscriber = tracing_subscriber::registry().with(filter).with(lines);
    subscriber.try_init().map_err(|e| e.to_string())?;
    Ok(Log(handle))
}

impl Log {
    /// Logs from now on what `level` says.
    pub fn set_level(&self, level: &str) -> Result<(), String> {
        self.0.reload(filter(level)?).map_err(|e| e.to_string())
    }
}

/// Libraries that tell of every odd client at a level of their own choosing.
const QUIET: &str = "rustls=error,h2=error,hyper=error,hickory_proto=error,hickory_resolver=error,hickory_net=error";

fn filter(level: &str) -> Result<EnvFilter, String> {
    // A filter that names targets says all itself.
    let all = if level.contains('=') {
        level.to_owned()
    } else {
        format!("{level},{QUIET}")
    };
    EnvFilter::builder()
        .parse(all)
        .map_err(|e| format!("`{level}` is no log level: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_filters() {
        assert!(
            ["info", "warn", "evenkeel=debug,h2=info"]
                .iter()
                .all(|l| filter(l).is_ok())
        );
        assert!(filter("evenkeel=loud").is_err());
    }
}

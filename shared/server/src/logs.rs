//! Logs on stderr: text on a terminal, JSON lines otherwise.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The flags for logs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Log level: error, warn, info, debug or trace
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub log_level: Level,
    /// Log format: text, json, or auto (text on a terminal, json otherwise)
    #[arg(long, env = "PODSHAPER_LOG_FORMAT", value_name = "FORMAT", default_value = "auto")]
    pub log_format: LogFormat,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// A JSON object per line.
    Json,
}

fn level(text: &str) -> Result<Level, String> {
    // The names of Python's and Go's loggers, which the replaced webhooks accept.
    match text.trim().to_ascii_lowercase().as_str() {
        "warning" => Ok(Level::WARN),
        "critical" | "fatal" | "panic" => Ok(Level::ERROR),
        other => other.parse().map_err(|_| "expected error, warn, info, debug or trace".to_owned()),
    }
}

impl LogArgs {
    /// Starts logging to stderr.
    pub fn start(&self) {
        let terminal = io::stderr().is_terminal();
        let json = match self.log_format {
            LogFormat::Auto => !terminal,
            LogFormat::Text => false,
            LogFormat::Json => true,
        };
        let layer = fmt::layer().with_writer(io::stderr).with_target(false);
        let layer = if json {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        } else {
            layer.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed()
        };
        // Fails only if logging has been started before.
        let _ = tracing_subscriber::registry()
            .with(layer.with_filter(LevelFilter::from_level(self.log_level)))
            .try_init();
    }
}

//! Logs on stderr: text on a terminal, JSON lines otherwise.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// Crates that log each frame and record at `debug`. Any client can cause thousands of such lines a second.
const PROTOCOLS: [&str; 6] = ["h2", "hyper", "rustls", "tokio_rustls", "tower", "kube_client"];

/// The flags for logs.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Logs")]
pub struct LogArgs {
    /// Log level: error, warn, info, debug or trace; protocol libraries log at most info, unless named: debug,h2=debug
    #[arg(long, env = "LOG_LEVEL", value_name = "LEVEL", default_value = "info", value_parser = filter)]
    pub log_level: Targets,
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

/// Parses a level, and levels of single libraries after it.
fn filter(text: &str) -> Result<Targets, String> {
    let mut parts = text.split(',');
    let default = level(parts.next().unwrap_or_default())?;
    let protocols = PROTOCOLS.map(|target| (target, default.min(Level::INFO)));
    let mut filter = Targets::new().with_default(default).with_targets(protocols);
    for part in parts {
        let (target, named) =
            part.split_once('=').ok_or_else(|| format!("{part:?}: expected LIBRARY=LEVEL"))?;
        filter = filter.with_target(target.trim(), level(named)?);
    }
    Ok(filter)
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
            // The span of a request has its uid.
            layer.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed()
        } else {
            layer.with_ansi(terminal && std::env::var_os("NO_COLOR").is_none()).boxed()
        };
        // Fails only if logging has been started before.
        let _ = tracing_subscriber::registry().with(layer.with_filter(self.log_level.clone())).try_init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_libraries_log_debug_lines_only_if_named() {
        let debug = filter("debug").unwrap();
        assert!(debug.would_enable("podshaper_server::endpoint", &Level::DEBUG));
        for library in
            ["h2::codec::framed_read", "hyper::proto::h1::io", "hyper_util::client", "rustls::server"]
        {
            assert!(!debug.would_enable(library, &Level::DEBUG), "{library}");
            assert!(debug.would_enable(library, &Level::INFO), "{library}");
        }
        let named = filter("debug, h2=trace").unwrap();
        assert!(named.would_enable("h2::codec", &Level::TRACE));
        assert!(!named.would_enable("hyper::proto", &Level::DEBUG));
        assert!(!filter("error").unwrap().would_enable("h2", &Level::INFO));
    }

    #[test]
    fn level_has_the_names_of_other_loggers() {
        assert!(filter("WARNING").unwrap().would_enable("x", &Level::WARN));
        for wrong in ["", "loud", "debug,h2", "debug,h2=loud"] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }
}

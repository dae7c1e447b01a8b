//! Where in the file something stands, and what is wrong with it.

use std::fmt;

/// A setting that can't be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct ConfigError {
    key: String,
    problem: String,
}

/// Where in the file something stands.
#[derive(Default)]
pub(super) struct Key(pub(super) String);

impl Key {
    pub(super) fn then(&self, name: &str) -> Self {
        let dot = if self.0.is_empty() { "" } else { "." };
        Self(format!("{}{dot}{name}", self.0))
    }

    pub(super) fn error(&self, problem: impl fmt::Display) -> ConfigError {
        ConfigError { key: self.0.clone(), problem: problem.to_string() }
    }
}

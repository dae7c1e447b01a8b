//! The result of one check.

use std::io::{self, Write};

use podshaper_offline::console::printable;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// It holds.
    Passed,
    /// The check passed with a warning.
    Warning,
    /// It does not hold.
    Failed,
    /// The user may not read what it needs.
    Skipped,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How the check ended.
    pub level: Level,
    /// The subject of the check and its state.
    pub text: String,
    /// The steps that repair it; empty if there are none.
    pub hint: String,
}

impl Finding {
    pub(super) fn passed(text: impl Into<String>) -> Self {
        Self { level: Level::Passed, text: text.into(), hint: String::new() }
    }

    pub(super) fn warning(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Warning, text: text.into(), hint: hint.into() }
    }

    pub(super) fn failed(text: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { level: Level::Failed, text: text.into(), hint: hint.into() }
    }

    /// A check of `subject` that lacks a permission.
    pub(super) fn skipped(subject: &str, reason: &str) -> Self {
        Self { level: Level::Skipped, text: format!("{subject}: not checked: {reason}"), hint: String::new() }
    }

    /// Prints the line and the hint.
    pub(super) fn print(&self, out: &mut dyn Write, color: bool) -> io::Result<()> {
        let (mark, code) = match self.level {
            Level::Passed => ("√", 32),
            Level::Warning => ("!", 33),
            Level::Failed => ("×", 31),
            Level::Skipped => ("-", 2),
        };
        let text = printable(&self.text);
        if color {
            writeln!(out, "\x1b[{code}m{mark}\x1b[0m {text}")?;
        } else {
            writeln!(out, "{mark} {text}")?;
        }
        for line in self.hint.lines() {
            writeln!(out, "    {}", printable(line))?;
        }
        Ok(())
    }
}

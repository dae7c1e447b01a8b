//! The standard streams of a command, and its exit status.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::process::ExitCode;

/// Exit status of a command that fails.
pub const FAILURE: u8 = 1;
/// Exit status of invalid arguments, the same as clap's.
pub const USAGE: u8 = 2;

/// The streams of one command. Tests replace them.
pub struct Console<'a> {
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Whether standard input is a terminal.
    pub interactive: bool,
    /// The result of the command.
    pub stdout: &'a mut dyn Write,
    /// Whether standard output shows colors.
    pub color: bool,
    /// Warnings and errors.
    pub stderr: &'a mut dyn Write,
}

impl Console<'_> {
    /// Runs a command on the streams of the process.
    pub fn run(command: impl FnOnce(&mut Console<'_>) -> u8) -> ExitCode {
        let (mut stdin, stdout) = (io::stdin(), io::stdout());
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let mut console = Console {
            interactive: stdin.is_terminal(),
            stdin: &mut stdin,
            color: stdout.is_terminal() && !no_color,
            stdout: &mut BufWriter::new(stdout),
            stderr: &mut io::stderr(),
        };
        command(&mut console).into()
    }

    /// Returns the exit status for this result. Prints an error with its causes, except for a broken pipe.
    pub fn exit_status(&mut self, result: anyhow::Result<()>) -> u8 {
        let Err(error) = result.and_then(|()| Ok(self.stdout.flush()?)) else { return 0 };
        if is_closed_pipe(error.root_cause()) {
            return 0;
        }
        // The output before the error comes first.
        let _ = self.stdout.flush();
        self.message(format_args!("error: {error:#}"));
        FAILURE
    }

    /// Prints one line to standard error.
    pub fn message(&mut self, line: impl Display) {
        // An error on standard error can't be reported.
        let _ = writeln!(self.stderr, "{line}");
    }
}

fn is_closed_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref().is_some_and(|error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// The text without control characters. Names in manifests may contain any character, and a terminal interprets some.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

//! The standard streams of a command, and its exit status.

use std::fmt::Display;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Exit status of a command that fails.
pub const FAILURE: u8 = 1;
/// Exit status of invalid arguments, the same as clap's.
pub const USAGE: u8 = 2;

/// The streams of one command. Tests replace them.
pub struct Console<'a> {
    /// Standard input.
    pub stdin: Box<dyn Read + 'a>,
    /// Whether standard input is a terminal.
    pub interactive: bool,
    /// The result of the command.
    pub stdout: &'a mut dyn Write,
    /// Whether standard output shows colors.
    pub color: bool,
    /// Warnings and errors.
    pub stderr: &'a mut dyn Write,
    /// The progress on standard error; none if a terminal shows the result there, or standard error is no terminal.
    pub progress: Option<Progress>,
}

/// Shows how many objects a command has processed, on a line that the next message replaces.
#[derive(Debug, Default)]
pub struct Progress {
    objects: usize,
    /// When the line was last written, or when the first object was counted.
    shown: Option<Instant>,
}

/// The time between two writes of the progress.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Returns to the start of the line and erases it.
const ERASE_LINE: &str = "\r\x1b[K";

impl Console<'_> {
    /// Runs a command on the streams of the process.
    pub fn run(command: impl FnOnce(&mut Console<'_>) -> u8) -> ExitCode {
        let stdin = io::stdin();
        let stdout = io::stdout();
        let shows_progress = io::stderr().is_terminal() && !stdout.is_terminal();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let mut console = Console {
            interactive: stdin.is_terminal(),
            stdin: Box::new(stdin),
            color: stdout.is_terminal() && !no_color,
            stdout: &mut BufWriter::new(stdout),
            stderr: &mut io::stderr(),
            progress: shows_progress.then(Progress::default),
        };
        let status = command(&mut console);
        console.erase_progress();
        status.into()
    }

    /// Counts an object, and shows the number from time to time.
    pub fn count_object(&mut self) {
        let Some(progress) = &mut self.progress else { return };
        progress.objects += 1;
        let now = Instant::now();
        let begun = *progress.shown.get_or_insert(now);
        if now.duration_since(begun) >= PROGRESS_INTERVAL {
            progress.shown = Some(now);
            // An error on standard error can't be reported.
            let _ = write!(self.stderr, "{ERASE_LINE}{} objects ...", progress.objects);
            let _ = self.stderr.flush();
        }
    }

    fn erase_progress(&mut self) {
        if self.progress.as_ref().is_some_and(|progress| progress.shown.is_some()) {
            let _ = write!(self.stderr, "{ERASE_LINE}");
        }
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
        self.erase_progress();
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

//! The command line that every binary shares.
#![forbid(unsafe_code)]

pub mod completion;
mod runtime;
mod selftest;
mod serve;
mod shutdown;

pub use selftest::Selftest;
pub use serve::{Serve, Start};
pub use shutdown::shutdown_signal;

use std::process::ExitCode;

use runtime::runtime;

/// Ends a command: an error goes to stderr with its causes, and 1 to the shell.
pub fn exit(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the one place where a command's failure is told")]
            {
                eprintln!("error: {error:#}");
            }
            ExitCode::FAILURE
        }
    }
}

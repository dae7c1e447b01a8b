//! The command line that every binary shares.
#![forbid(unsafe_code)]

mod completion;
mod program;
mod runtime;
mod selftest;
mod serve;
mod shutdown;

pub use program::Program;
pub use serve::ServeContext;
pub use shutdown::shutdown_signal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser};
use podshaper_offline::console::Console;

/// Runs the program with these arguments, the first of which is its name.
pub fn run<P: Program>(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = program::Cli::<P>::parse_from(arguments);
    Console::run(|console| cli.run(console))
}

/// The command line of the program.
pub fn command<P: Program>() -> clap::Command {
    program::Cli::<P>::command()
}

/// For commands without options of the webhook's own.
#[derive(Clone, Copy, Debug, Args)]
pub struct NoOptions {}

//! The command line of every binary: its own commands, and `serve`, `mutate`, `selftest` and `completion`.
#![forbid(unsafe_code)]

mod check;
mod completion;
mod program;
mod runtime;
mod selftest;
mod serve;
mod shutdown;

pub use podshaper_server::LogArgs;
pub use program::{Program, ServeOptions, WebhookOptions};
pub use serve::{ObjectMetrics, ServeContext};
pub use shutdown::shutdown_signal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser};
use podshaper_offline::console::Console;

/// Parses the arguments, of which the first is the name of the binary, and runs the command.
pub fn run<P: Program>(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = program::Cli::<P>::parse_from(arguments);
    Console::run(|console| cli.run(console))
}

/// Parses the arguments of a command that needs no cluster, and runs it. `name` is how the user calls the program.
pub fn run_offline<P: Program>(name: &str, arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = std::iter::once(OsString::from(P::NAME)).chain(arguments);
    let matches = program::OfflineCli::<P>::command().bin_name(name).get_matches_from(arguments);
    let cli = program::OfflineCli::<P>::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    Console::run(|console| cli.run(console))
}

/// The definition of the commands that need no cluster.
pub fn offline_command<P: Program>() -> clap::Command {
    program::OfflineCli::<P>::command()
}

/// The definition of the command line, for documentation and tests.
pub fn command<P: Program>() -> clap::Command {
    program::Cli::<P>::command()
}

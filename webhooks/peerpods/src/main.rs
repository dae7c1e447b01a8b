//! `peerpods`: sizes the VM of a Kata peer pod at admission.

mod manager;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use peerpods::Options;
use peerpods::advertise::Advertise;
use podshaper_cli::{Selftest, Serve, completion, exit};
use podshaper_offline::mutate::Mutate;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the original serves.
const PATHS: &[&str] = &["/mutate-v1-pod"];

/// Sizes the VM of a Kata peer pod at admission: one extended resource in place of the containers' own.
#[derive(Parser)]
#[command(name = "peerpods", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve<Options>,
}

#[derive(Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, for as long as the program starts")]
enum Command {
    /// Answer the API server's admission reviews (the default)
    Serve(Serve<Options>),
    /// Decide offline about manifests, as the server would
    Mutate(Mutate<Options>),
    /// Keep the extended resource on this node's status
    Advertise(Advertise),
    /// Send a pod through the installed webhook, in a dry run
    Selftest(Selftest<Options>),
    /// Print a completion script for a shell, as for `source <(peerpods completion bash)`
    Completion {
        /// The shell that it is for
        shell: completion::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(manager::arguments(std::env::args_os()));
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve.run("peerpods", PATHS, Options::webhook),
        Command::Mutate(mutate) => mutate.run(Options::webhook),
        Command::Advertise(advertise) => exit(advertise.run()),
        Command::Selftest(selftest) => selftest.run("peerpods", Options::webhook),
        Command::Completion { shell } => exit(completion::print(shell, Cli::command())),
    }
}

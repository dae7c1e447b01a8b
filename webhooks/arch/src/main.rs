//! `arch`: pods on nodes whose CPU architecture all their images run on.

use std::process::ExitCode;

use arch::explain::Explain;
use arch::report::Report;
use arch::{Offline, Options};
use clap::{CommandFactory, Parser, Subcommand};
use podshaper_cli::{Selftest, Serve, completion, exit};
use podshaper_offline::mutate::Mutate;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PATHS: &[&str] = &["/mutate-v1-pod"];

/// Keeps pods on nodes whose CPU architecture all their images run on.
#[derive(Parser)]
#[command(name = "arch", version, args_conflicts_with_subcommands = true)]
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
    /// Decide about manifests without a cluster, as the server would; registries are asked
    Mutate(Mutate<Offline>),
    /// Show what images run on, by which digest, and who says so
    Explain(Explain),
    /// Show which workloads could move to another architecture today
    Report(Report),
    /// Send a pod through the installed webhook, in a dry run
    Selftest(Selftest<Offline>),
    /// Print a completion script for a shell, as for `source <(arch completion bash)`
    Completion {
        /// The shell that it is for
        shell: completion::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve.start("arch", PATHS, Options::webhook),
        Command::Mutate(mutate) => mutate.run(Offline::webhook),
        Command::Explain(explain) => exit(explain.run()),
        Command::Report(report) => exit(report.run()),
        Command::Selftest(selftest) => selftest.run("arch", Offline::webhook),
        Command::Completion { shell } => exit(completion::print(shell, Cli::command())),
    }
}

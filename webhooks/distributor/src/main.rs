//! `distributor`: a workload's pods spread over groups of nodes by exact shares.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use distributor::plan::Plan;
use distributor::{OfflineOptions, Options, Supposed};
use podshaper_cli::{Selftest, Serve, completion, exit};
use podshaper_offline::mutate::Mutate;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the original serves.
const PATHS: &[&str] = &["/mutate"];

/// What the types say; tests keep the files current.
const CRDS: [&str; 2] = [
    include_str!("../../../charts/podshaper/files/crds/poddistributors.yaml"),
    include_str!("../../../charts/podshaper/files/crds/placements.yaml"),
];

/// Spreads the pods of workloads over groups of nodes, each group its share.
#[derive(Parser)]
#[command(name = "distributor", version, args_conflicts_with_subcommands = true)]
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
    Mutate(Mutate<OfflineOptions>),
    /// Show which groups the pods of a workload go to, one after the other
    Plan(Plan),
    /// Print the definitions of the kinds PodDistributor and Placement
    Crd,
    /// Send a pod through the installed webhook, in a dry run
    Selftest(Selftest<Supposed>),
    /// Print a completion script for a shell, as for `source <(distributor completion bash)`
    Completion {
        /// The shell that it is for
        shell: completion::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve.start("distributor", PATHS, Options::webhook),
        Command::Mutate(mutate) => mutate.run(OfflineOptions::webhook),
        Command::Plan(plan) => exit(plan.run()),
        Command::Crd => exit(std::io::stdout().write_all(CRDS.join("---\n").as_bytes()).map_err(Into::into)),
        Command::Selftest(selftest) => selftest.run("distributor", Supposed::webhook),
        Command::Completion { shell } => exit(completion::print(shell, Cli::command())),
    }
}

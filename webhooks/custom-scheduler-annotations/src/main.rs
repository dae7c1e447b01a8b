//! `custom-scheduler-annotations`: a workload's pods spread over groups of nodes as an annotation says.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use custom_scheduler_annotations::plan::Plan;
use custom_scheduler_annotations::{Offline, Options, Supposed};
use podshaper_cli::{Selftest, Serve, completion, exit};
use podshaper_offline::mutate::Mutate;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "custom-scheduler-annotations";
/// Where the original serves.
const PATHS: &[&str] = &["/mutate"];
/// What the types say; tests keep the file current.
const CRD: &str = include_str!("../../../charts/podshaper/files/crds/placements.yaml");

/// Spreads the pods of workloads over groups of nodes as an annotation says.
#[derive(Parser)]
#[command(name = NAME, version, args_conflicts_with_subcommands = true)]
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
    /// Decide offline about manifests, as the server would; say what the strategies of workloads come to
    Mutate(Mutate<Offline>),
    /// Show which groups the pods of a workload go to, one after the other
    Plan(Plan),
    /// Print the definition of the kind Placement
    Crd,
    /// Send a pod through the installed webhook, in a dry run
    Selftest(Selftest<Supposed>),
    /// Print a completion script for a shell, as for `source <(custom-scheduler-annotations completion bash)`
    Completion {
        /// The shell that it is for
        shell: completion::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve.start(NAME, PATHS, Options::webhook),
        Command::Mutate(mutate) => mutate.run(Offline::webhook),
        Command::Plan(plan) => exit(plan.run()),
        Command::Crd => exit(std::io::stdout().write_all(CRD.as_bytes()).map_err(Into::into)),
        Command::Selftest(selftest) => selftest.run(NAME, Supposed::webhook),
        Command::Completion { shell } => exit(completion::print(shell, Cli::command())),
    }
}

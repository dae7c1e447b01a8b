//! `flexdaemonset`: DaemonSet pods born with the right size for their node.

use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use flexdaemonset::plan::Plan;
use flexdaemonset::{OfflineOptions, Options, Supposed};
use podshaper_cli::{Selftest, Serve, completion, exit};
use podshaper_offline::mutate::Mutate;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Where the original serves.
const PATHS: &[&str] = &["/mutate-v1-pod"];

/// What the types say; a test keeps the file current.
const CRD: &str = include_str!("../../../charts/podshaper/files/crds/flexdaemonsettemplates.yaml");

/// Sizes the pods of DaemonSets as a share of the node that each is bound for.
#[derive(Parser)]
#[command(name = "flexdaemonset", version, args_conflicts_with_subcommands = true)]
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
    /// Show the size of a DaemonSet's pod on each node
    Plan(Plan),
    /// Print the definition of the kind FlexDaemonsetTemplate
    Crd,
    /// Send a pod through the installed webhook, in a dry run
    Selftest(Selftest<Supposed>),
    /// Print a completion script for a shell, as for `source <(flexdaemonset completion bash)`
    Completion {
        /// The shell that it is for
        shell: completion::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => serve.start("flexdaemonset", PATHS, Options::webhook),
        Command::Mutate(mutate) => mutate.run(OfflineOptions::webhook),
        Command::Plan(plan) => exit(plan.run()),
        Command::Crd => exit(std::io::stdout().write_all(CRD.as_bytes()).map_err(Into::into)),
        Command::Selftest(selftest) => selftest.run("flexdaemonset", Supposed::webhook),
        Command::Completion { shell } => exit(completion::print(shell, Cli::command())),
    }
}

//! The command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use arch::ArchCommand;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use custom_scheduler_annotations::CustomSchedulerCommand;
use distributor::DistributorCommand;
use flexdaemonset::FlexDaemonsetCommand;
use peerpods::PeerPodsCommand;
use podshaper_cli::{Program, run_offline};
use podshaper_offline::console::{Console, FAILURE};

use crate::check::Check;
use crate::live::{Live, Source};
use crate::ui::Ui;

/// The name of the binary, by which kubectl finds it: `kubectl podshaper` runs `kubectl-podshaper`.
const NAME: &str = "kubectl podshaper";

/// See what the webhooks of Podshaper decide, and check their installation
#[derive(Parser)]
#[command(name = "kubectl-podshaper", bin_name = NAME, version, arg_required_else_help = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  kubectl podshaper check
  kubectl podshaper arch report --live --all-namespaces
  kubectl podshaper distributor plan --live --namespace shop --replicas 10
  kubectl podshaper peerpods mutate -f pod.yaml -o diff

--live reads the objects of a command from the cluster instead of from files. If you may not list a kind, a warning names it, and the \
result omits it.";

#[derive(Subcommand)]
enum Command {
    Check(Check),
    Ui(Ui),
    /// Commands of the webhook arch: mutate, explain, report
    Arch(Arguments),
    /// Commands of the webhook custom-scheduler-annotations: mutate, plan
    CustomSchedulerAnnotations(Arguments),
    /// Commands of the webhook distributor: mutate, plan
    Distributor(Arguments),
    /// Commands of the webhook flexdaemonset: mutate, plan
    Flexdaemonset(Arguments),
    /// Commands of the webhook peerpods: mutate
    Peerpods(Arguments),
    /// Print a shell completion script
    Completion {
        /// Shell that runs the script
        shell: Shell,
    },
    /// Write manual pages, one for each command, into a folder
    #[command(hide = true)]
    Man {
        /// Existing folder
        folder: PathBuf,
    },
}

/// The arguments of a webhook's command, which that command parses.
#[derive(Args)]
#[command(disable_help_flag = true)]
struct Arguments {
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Parses the arguments, of which the first is the name of the binary, and runs the command.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::parse_from(arguments).command {
        Command::Check(check) => Console::run(|console| check.run(console)),
        Command::Ui(ui) => Console::run(|console| ui.run(console)),
        Command::Arch(arguments) => arguments.run::<ArchCommand>(),
        Command::CustomSchedulerAnnotations(arguments) => arguments.run::<CustomSchedulerCommand>(),
        Command::Distributor(arguments) => arguments.run::<DistributorCommand>(),
        Command::Flexdaemonset(arguments) => arguments.run::<FlexDaemonsetCommand>(),
        Command::Peerpods(arguments) => arguments.run::<PeerPodsCommand>(),
        Command::Completion { shell } => Console::run(|console| {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut all_commands(), "kubectl-podshaper", &mut script);
            let result = console.stdout.write_all(&script).map_err(Into::into);
            console.exit_status(result)
        }),
        Command::Man { folder } => Console::run(|console| {
            let written = clap_mangen::generate_to(all_commands(), &folder);
            console.exit_status(written.with_context(|| folder.display().to_string()))
        }),
    }
}

/// The command line with the commands of the webhooks, which their own programs parse.
fn all_commands() -> clap::Command {
    Cli::command()
        .mut_subcommand("arch", commands_of::<ArchCommand>)
        .mut_subcommand("custom-scheduler-annotations", commands_of::<CustomSchedulerCommand>)
        .mut_subcommand("distributor", commands_of::<DistributorCommand>)
        .mut_subcommand("flexdaemonset", commands_of::<FlexDaemonsetCommand>)
        .mut_subcommand("peerpods", commands_of::<PeerPodsCommand>)
}

fn commands_of<P: Program>(_: clap::Command) -> clap::Command {
    podshaper_cli::offline_command::<P>().mut_subcommands(|command| {
        if Source::of(P::NAME, command.get_name()).is_ok() { Live::describe(command) } else { command }
    })
}

impl Arguments {
    /// Runs a command of the webhook `P`. With `--live`, the objects of the cluster are a file that the command reads.
    fn run<P: Program>(self) -> ExitCode {
        let name = format!("{NAME} {}", P::NAME);
        let (live, mut arguments) = match Live::split(self.arguments) {
            Ok(split) => split,
            Err(error) => return fail(&error),
        };
        // The file must exist as long as the command reads it.
        let mut _objects = None;
        if let Some(live) = live {
            let command = arguments.first().and_then(|command| command.to_str()).unwrap_or_default();
            let result = Source::of(P::NAME, command).and_then(|source| live.objects(&source));
            match result {
                Ok((option, file)) => {
                    arguments.extend([option.into(), file.path().as_os_str().to_owned()]);
                    _objects = Some(file);
                }
                Err(error) => return fail(&error),
            }
        }
        run_offline::<P>(&name, arguments)
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    Console::run(|console| {
        console.message(format_args!("error: {error:#}"));
        FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
        all_commands().debug_assert();
    }

    #[test]
    fn each_command_has_a_manual_page() {
        let folder = tempfile::tempdir().unwrap();
        clap_mangen::generate_to(all_commands(), folder.path()).unwrap();
        for (page, text) in [
            ("kubectl-podshaper", "kubectl podshaper"),
            ("kubectl-podshaper-check", "Exit status"),
            ("kubectl-podshaper-ui", "idle"),
            ("kubectl-podshaper-arch-report", "live"),
            ("kubectl-podshaper-distributor-plan", "replicas"),
            ("kubectl-podshaper-peerpods-mutate", "filename"),
        ] {
            let written = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
            assert!(written.contains(".TH") && written.contains(text), "{page}: {written}");
        }
    }

    #[test]
    fn completion_knows_the_commands_of_webhooks() {
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut all_commands(), "kubectl-podshaper", &mut script);
        let script = String::from_utf8(script).unwrap();
        for word in ["report", "--live", "--replicas"] {
            assert!(script.contains(word), "{word}");
        }
    }
}

//! `PROGRAM completion SHELL` prints a completion script.

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use podshaper_offline::console::Console;

/// Print a shell completion script
#[derive(Debug, Args)]
#[command(after_help = "Example: source <(PROGRAM completion bash)")]
pub(crate) struct Completion {
    /// Shell that runs the script
    shell: Shell,
}

impl Completion {
    /// Prints the script for the arguments of `command`.
    pub(crate) fn run(self, mut command: Command, console: &mut Console<'_>) -> anyhow::Result<()> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        console.stdout.write_all(&script).context("can't print the script")
    }
}

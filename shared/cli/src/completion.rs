//! `NAME completion SHELL`: completion scripts.

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;
use podshaper_offline::console::Console;

/// Print a completion script for a shell, as for `source <(PROGRAM completion bash)`
#[derive(Debug, Args)]
pub(crate) struct Completion {
    /// The shell that it is for
    shell: Shell,
}

impl Completion {
    /// Prints the script that completes `command`.
    pub(crate) fn run(self, mut command: Command, console: &mut Console<'_>) -> anyhow::Result<()> {
        let name = command.get_name().to_owned();
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        console.stdout.write_all(&script).context("can't print the script")
    }
}

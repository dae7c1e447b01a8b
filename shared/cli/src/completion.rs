//! `NAME completion SHELL`: completion scripts.

use std::io::Write;

use anyhow::Context;
use clap::Command;

pub use clap_complete::Shell;

/// Prints the script that completes `command` in `shell`.
pub fn print(shell: Shell, mut command: Command) -> anyhow::Result<()> {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    std::io::stdout().write_all(&script).context("can't print the script")
}

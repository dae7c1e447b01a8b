//! The command line of a binary, compared with the contract in a file.

use std::fmt::Write;
use std::path::Path;
use std::process::{Command as Process, Output};
use std::{env, fs};

use clap::{Arg, Command};

/// Compares the binary with the command line `command` with the file `contract`, which lists all commands, flags, environment
/// variables and defaults. With `UPDATE_COMMAND_LINE=1` writes the file first.
pub fn check(binary: &str, mut command: Command, contract: &Path) {
    command.build();
    command.clone().debug_assert();
    let serve = command.find_subcommand("serve").unwrap();
    assert_eq!(arguments(&command), arguments(serve), "serve is the default");
    let commands: Vec<_> =
        command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help").collect();
    let listed = commands.iter().map(|command| format!("{}\n{}", command.get_name(), arguments(command)));
    let listed: String = listed.collect();
    if env::var_os("UPDATE_COMMAND_LINE").is_some() {
        fs::write(contract, &listed).unwrap();
    }
    let expected = fs::read_to_string(contract).unwrap_or_default();
    assert_eq!(listed, expected, "if this is meant: UPDATE_COMMAND_LINE=1 cargo test --test command_line");

    let help = run(binary, &["--help"]);
    assert!(help.status.success());
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.starts_with(&command.get_about().unwrap().to_string()), "{help}");
    for subcommand in commands {
        assert!(help.contains(&format!("\n  {} ", subcommand.get_name())), "{help}");
        assert!(subcommand.get_about().is_some(), "{}", subcommand.get_name());
    }
    let completion = String::from_utf8(run(binary, &["completion", "bash"]).stdout).unwrap();
    assert!(completion.contains(command.get_name()), "{completion}");
    assert_eq!(run(binary, &["--no-such-flag"]).status.code(), Some(2));
    assert_eq!(run(binary, &["no-such-command"]).status.code(), Some(2));
}

fn run(binary: &str, arguments: &[&str]) -> Output {
    Process::new(binary).args(arguments).output().unwrap()
}

/// One line for each argument.
fn arguments(command: &Command) -> String {
    let mut lines = String::new();
    for argument in command.get_arguments() {
        if matches!(argument.get_id().as_str(), "help" | "version") {
            continue;
        }
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        assert!(!help.is_empty() && !help.ends_with('.'), "{argument}: {help:?}");
        writeln!(lines, "  {}", describe(argument)).unwrap();
    }
    lines
}

fn describe(argument: &Arg) -> String {
    let short = argument.get_short().map(|short| format!("-{short} "));
    let variable = argument.get_env().map(|name| format!(" env {}", name.to_string_lossy()));
    let default = argument.get_default_values().first().map(|value| format!(" default {}", value.display()));
    [short, Some(argument.to_string()), variable, default]
        .into_iter()
        .flatten()
        .collect::<String>()
        .trim_end()
        .to_owned()
}

//! The command line is the contract with charts, scripts and users.

use std::path::Path;

use flexdaemonset::FlexDaemonsetCommand;

#[test]
fn command_line_is_the_contract() {
    let contract = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command_line.txt"));
    let command = podshaper_cli::command::<FlexDaemonsetCommand>();
    podshaper_testing::command_line::check(env!("CARGO_BIN_EXE_flexdaemonset"), command, contract);
}

//! The command line is the contract with charts, scripts and users.

use std::path::Path;

use custom_scheduler_annotations::CustomSchedulerCommand;

#[test]
fn command_line_is_the_contract() {
    let contract = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command_line.txt"));
    let command = podshaper_cli::command::<CustomSchedulerCommand>();
    podshaper_testing::command_line::check(
        env!("CARGO_BIN_EXE_custom-scheduler-annotations"),
        command,
        contract,
    );
}

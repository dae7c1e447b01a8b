//! The binary of the webhook `flexdaemonset`.

use std::process::ExitCode;

use flexdaemonset::FlexDaemonsetCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    podshaper_cli::run::<FlexDaemonsetCommand>(std::env::args_os())
}

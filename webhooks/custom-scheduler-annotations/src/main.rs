//! The binary of the webhook `custom-scheduler-annotations`.

use std::process::ExitCode;

use custom_scheduler_annotations::CustomSchedulerCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    podshaper_cli::run::<CustomSchedulerCommand>(std::env::args_os())
}

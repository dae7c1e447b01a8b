//! The binary of the webhook `arch`.

use std::process::ExitCode;

use arch::ArchCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    podshaper_cli::run::<ArchCommand>(std::env::args_os())
}

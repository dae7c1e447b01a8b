//! The binary of the webhook `distributor`.

use std::process::ExitCode;

use distributor::DistributorCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    podshaper_cli::run::<DistributorCommand>(std::env::args_os())
}

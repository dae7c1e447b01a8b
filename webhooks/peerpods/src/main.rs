//! The binary of the webhook `peerpods`.

mod manager;

use std::process::ExitCode;

use peerpods::PeerPodsCommand;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    podshaper_cli::run::<PeerPodsCommand>(manager::arguments(std::env::args_os()))
}

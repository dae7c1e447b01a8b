//! The binary of `kubectl podshaper`.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubectl_podshaper::run(std::env::args_os())
}

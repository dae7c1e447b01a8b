//! The runtime of the server.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

/// Decisions take microseconds, so more workers don't shorten the latency.
const MAX_WORKERS: usize = 4;

/// A runtime for the available processors. With a single processor it uses the calling thread alone, which saves a context switch
/// for each request.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder =
        if processors == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if processors > 1 {
        builder.worker_threads(processors.min(MAX_WORKERS));
    }
    builder.enable_all().build().context("can't start the runtime")
}

//! The runtime that commands run on.

use anyhow::Context;
use tokio::runtime::{Builder, Runtime};

/// More workers than this don't make a webhook faster: its decisions take microseconds.
const WORKERS: usize = 4;

/// A runtime for the processors there are: with one, a thread less to wake.
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut builder =
        if processors == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if processors > 1 {
        builder.worker_threads(processors.min(WORKERS));
    }
    builder.enable_all().build().context("can't start the runtime")
}

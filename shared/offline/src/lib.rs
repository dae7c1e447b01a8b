//! Commands that decide about files, without a cluster.
#![forbid(unsafe_code)]

pub mod console;
pub mod manifests;
pub mod mutate;
pub mod plan;
pub mod table;
pub mod yaml;

use anyhow::Context;

/// Runs a future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("can't start the runtime")?.block_on(future)
}

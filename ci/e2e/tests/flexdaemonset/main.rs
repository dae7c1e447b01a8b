//! `flexdaemonset` in a cluster, installed by the chart: pods are born with their size, on every node that there is or
//! will be, and those that run follow their template as it says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

mod birth;
mod cgroup;
mod nodes;
mod refits;
mod scene;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

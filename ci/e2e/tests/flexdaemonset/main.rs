//! `flexdaemonset` in a cluster, installed by the chart: pods are created with their size on every node, and running pods
//! are refitted as their template says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

mod cgroup;
mod create;
mod fixture;
mod nodes;
mod refits;
mod replacements;
mod scenarios;

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

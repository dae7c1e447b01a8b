//! Commands that decide about files, without a cluster.
#![forbid(unsafe_code)]

pub mod mutate;
pub mod plan;
pub mod yaml;

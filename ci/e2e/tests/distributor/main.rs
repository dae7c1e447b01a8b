//! `distributor` in a cluster, installed by the chart with three replicas: shares are exact on every step, through bursts,
//! scaling and rollouts, whatever controller creates the pods.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]

mod autoscaler;
mod availability;
mod bursts;
mod cases;
mod changes;
mod controllers;
mod definition;
mod distribution;
mod faults;
mod fixture;
mod foreign_pods;
mod outages;
mod page;
mod selector;

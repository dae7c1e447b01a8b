//! The decision of the webhook `distributor`: it distributes the pods of a workload over groups of nodes by exact shares.
//!
//! ```text
//! pod ──▶ owners ──▶ PodDistributor ──▶ groups with nodes ──▶ slot and group ──▶ patch
//! ```
//!
//! [`webhook`] decides about one pod. [`podshaper_placement`] finds its slot and group. [`rebalance`] and [`status`] decide for the
//! controller.
#![forbid(unsafe_code)]

pub mod availability;
pub mod crd;
pub mod distributor;
pub mod facts;
pub mod findings;
pub mod node;
pub mod offline;
mod pod_selector;
pub mod rebalance;
mod scheduling;
pub mod spec;
pub mod status;
pub mod take_back;
pub mod volumes;
pub mod webhook;

pub use webhook::DistributorWebhook;

/// The name of the webhook in labels, metrics and messages.
pub const WEBHOOK: &str = "distributor";

//! A workload's pods spread over groups of nodes, each group its share, exactly.
//!
//! ```text
//! pod ──▶ its owners ──▶ PodDistributor ┐
//!    └──▶ groups that it fits into ─────┴──▶ ledger: slot, group ──▶ patch
//! ```
//!
//! How pods find their slots is the library's ([`podshaper_placement`]). Here is what governs which pod ([`distributor`]),
//! the decision about one ([`PodDistribution`]), and the cluster that it is made by ([`facts::Facts`]); without the feature
//! `serve` there is nothing else here.
#![forbid(unsafe_code)]

pub mod crd;
pub mod distributor;
pub mod facts;
pub mod node;
pub mod offline;
pub mod rebalance;
mod scheduling;
pub mod spec;
pub mod status;
pub mod webhook;

pub use webhook::PodDistribution;

/// The webhook's name, on pods, in ledgers and in metrics.
pub const WEBHOOK: &str = "distributor";

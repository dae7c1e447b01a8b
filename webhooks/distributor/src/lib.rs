//! A workload's pods spread over groups of nodes, each group its share, exactly.
//!
//! ```text
//! pod ──▶ its owners ──▶ PodDistributor ┐
//!    └──▶ groups that it fits into ─────┴──▶ ledger: slot, group ──▶ patch
//! ```
//!
//! How pods find their slots is the library's ([`podshaper::placement`]). Here is what governs which pod ([`distributor`]),
//! the decision about one ([`PodDistribution`]), and the cluster that it is made by ([`facts::Facts`]); without the feature
//! `serve` there is nothing else here.
#![forbid(unsafe_code)]

pub mod distributor;
pub mod facts;
pub mod offline;
pub mod rebalance;
mod webhook;

#[cfg(feature = "serve")]
pub mod cluster;
#[cfg(feature = "serve")]
pub mod crd;
#[cfg(feature = "serve")]
mod options;
#[cfg(feature = "serve")]
pub mod page;
#[cfg(feature = "serve")]
pub mod plan;

#[cfg(feature = "serve")]
pub use options::{Offline as OfflineOptions, Options, Supposed};
pub use webhook::PodDistribution;

/// The webhook's name, on pods, in ledgers and in metrics.
pub(crate) const WEBHOOK: &str = "distributor";

//! Placement against the API server.
//!
//! ```text
//! admission ──▶ ClusterBackend ──▶ OwnerReader: GET of owners
//!                     │
//!                     ▼
//! watches ──▶    Ledgers    ──▶ LedgerDriver: one state machine per owner ──▶ LedgerClient: Placement objects, pods
//!                     ▲
//!                     └── reconcile: on the leader
//! ```
//!
//! Each replica has a ledger for each owner of placed pods. Watch events reach it before the version that they led to, so that no replica
//! decides by a version with pods that it has not observed.
#![forbid(unsafe_code)]

mod backend;
mod chain_cache;
mod inventory;
mod ledger_client;
mod ledger_driver;
mod ledgers;
mod metrics;
mod observed_pod;
mod owner_reader;
mod owner_template;
mod placement_object;
mod pod_evidence;
mod reconcile;

pub use backend::ClusterBackend;
pub use chain_cache::ChainCache;
pub use inventory::{InventoryPod, LedgerInventory};
pub use ledgers::Ledgers;
pub use metrics::{PlacementMetrics, PodSeries};
pub use observed_pod::{Health, SelectedPod, UnplacedPods};
pub use owner_reader::OwnerReader;
pub use owner_template::OwnerTemplate;
pub use placement_object::{LedgerId, NamespacedOwner, PlacedWorkload, crd};
pub use pod_evidence::PodEvidence;
pub use reconcile::{PolicySource, reconcile};

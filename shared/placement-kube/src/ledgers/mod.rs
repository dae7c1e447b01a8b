//! The ledgers of placement (see [`podshaper_placement::ledger`]) at work against the API server.
//!
//! ```text
//! admission ──▶ Ledgers::place ──▶ Ledger::handle ──▶ calls: Placement objects, lists, owners
//!                                      ▲                │ what they came to
//! watch of placed pods ── Pods ────────┴────────────────┘
//! the leader, now and then ── Ledgers::tend
//! watch of Placement objects ── Standings: what others have written, and what there is to tend
//! ```
//!
//! What the watches show is brought in `news`, and counted in `census`. Each replica keeps a ledger for each owner of placed pods. Events of the watch reach it before the version is told that
//! they have led to, so that nobody decides by a version whose pods it doesn't know.

mod api;
mod census;
mod crd;
mod driver;
mod id;
mod news;
mod object;
mod pods;
mod reconcile;
mod standings;
#[cfg(test)]
mod tests;

pub use census::{Census, Counted};
pub use crd::crd;
pub use driver::Ledgers;
pub use id::LedgerId;
pub use object::{PLURAL, Standing, Told};
pub use pods::{Health, Origin, Others};
pub use reconcile::{Policies, reconcile};
pub use standings::follow as follow_standings;

use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::ledger::ResourceVersion;

/// Whose pods share a sequence of slots, and a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The namespace.
    pub namespace: String,
    /// The owner, which was read and is who it is said to be.
    pub owner: OwnerReference,
    /// Where the API server has it, made of names that can't lead elsewhere: `/apis/apps/v1/namespaces/NAMESPACE/replicasets/NAME`.
    pub path: String,
    /// A label selector that all of its pods meet, others perhaps too.
    pub selector: String,
    /// How many pods the owner may have at a time; `None`: nobody knows.
    pub pods: Option<u32>,
    /// How many pods the owner says that it has; `None`: it doesn't.
    pub created: Option<u32>,
    /// The owner's version that says so.
    pub version: ResourceVersion,
}

impl Workload {
    /// Which ledger is about its pods.
    pub fn ledger(&self) -> LedgerId {
        LedgerId::new(&self.namespace, &self.owner.uid)
    }
}

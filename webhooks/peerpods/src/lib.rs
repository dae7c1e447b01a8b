//! Peer pods: pods whose containers run in a VM of their own, outside the node.
//!
//! Such a pod must not claim CPU and memory of its node, but one of the VMs that the node can start. So at admission
//! the containers' resources give way to one extended resource, and their total goes into annotations that
//! cloud-api-adaptor sizes the VM by:
//!
//! ```text
//! Pod ──▶ Demand: what its author asked for, ──▶ Size ──▶ annotations ──┐
//!         remembered from the first pass on       └──▶ machine type ──┴──▶ patch
//! ```
//!
//! The decision is a pure function; without the feature `serve` there is nothing else here.
#![forbid(unsafe_code)]

pub mod annotations;
pub mod catalogue;
pub mod class;
pub mod config;
mod decide;
mod demand;
mod dropped;
pub mod originals;
mod refusal;
pub mod size;
pub mod sizing;
pub mod standing;
mod webhook;

#[cfg(feature = "serve")]
pub mod advertise;
#[cfg(feature = "serve")]
mod options;

#[cfg(feature = "serve")]
pub use options::Options;
pub use refusal::Refusal;
pub use webhook::PeerPods;

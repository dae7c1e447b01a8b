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
pub mod decide;
pub mod demand;
pub mod dropped;
pub mod originals;
pub mod refusal;
pub mod size;
pub mod sizing;
pub mod standing;
pub mod webhook;

pub use refusal::Refusal;
pub use webhook::PeerPods;

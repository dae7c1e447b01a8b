//! Sizes the VM of a peer pod: a Kata pod with its containers in a VM outside the node.
//!
//! Such a pod must not claim CPU and memory of its node. It claims one of the VMs that the node can start. So the
//! webhook replaces the containers' resources by one extended resource, and writes their total into annotations by
//! which cloud-api-adaptor sizes the VM:
//!
//! ```text
//! Pod ──▶ OriginalRequests ──▶ VmSize ──▶ annotations ──▶ patch
//! ```
#![forbid(unsafe_code)]

pub mod annotations;
pub mod catalogue;
pub mod config;
pub mod deny_reason;
pub mod original_requests;
pub mod remaining_resources;
pub mod runtime_class;
pub mod sizing;
mod validation;
pub mod webhook;

pub use webhook::PeerPods;

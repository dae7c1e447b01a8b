//! Sizes the pods of a `DaemonSet`: each gets a share of its node's allocatable resources.
//!
//! Such a pod names its node when it is created. So it is created with its size, and needs no resize later:
//!
//! ```text
//! pod ──▶ template (named by its DaemonSet) ┐
//!    └──▶ node ─────────────────────────────┴──▶ size ──▶ patch
//! ```
//!
//! The decision is a pure function of the pod and of [`facts::SizingFacts`].
#![forbid(unsafe_code)]

pub mod crd;
pub mod daemon_set;
pub mod facts;
pub mod limit_range;
pub mod namespace;
pub mod namespace_limits;
pub mod node;
pub mod offline;
pub mod original_requests;
pub mod owner_kind;
pub mod patch;
pub mod refit;
pub mod resource;
pub mod resource_quota;
pub mod rules;
pub mod selection;
pub mod size_range;
pub mod sizing;
pub mod template;
pub mod template_object;
pub mod webhook;

pub use webhook::FlexDaemonset;

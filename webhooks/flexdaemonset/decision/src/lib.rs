//! Pods of a `DaemonSet` with the right size for their node: a share of what the node has to give.
//!
//! A pod of a `DaemonSet` names its node when it is created. So it is born with its size, and nothing has to be patched
//! afterwards:
//!
//! ```text
//! pod ──▶ template (named by its DaemonSet) ┐
//!    └──▶ node ─────────────────────────────┴──▶ size ──▶ patch
//! ```
//!
//! The decision is a pure function of the pod and of [`facts::Facts`]; without the feature `serve` there is nothing else
//! here.
#![forbid(unsafe_code)]

pub mod crd;
pub mod daemon_set;
pub mod facts;
pub mod node;
pub mod offline;
pub mod original_requests;
pub mod patch;
pub mod range;
pub mod refit;
pub mod resource;
pub mod rules;
pub mod sizing;
pub mod template;
pub mod template_object;
pub mod webhook;

pub use webhook::FlexDaemonset;

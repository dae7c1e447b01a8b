//! The decision of `arch`: restricts pods to nodes with a CPU architecture that all of their images support.
//!
//! ```text
//! pod ──▶ its images ──▶ platforms of each ──▶ nodes that run all ──▶ affinity, tolerations
//! ```
//!
//! The decision is a pure function of the pod and of the answers for its images.
#![forbid(unsafe_code)]

pub mod affinity;
mod assess;
pub mod config;
pub mod decide;
pub mod exempt;
pub mod gate;
pub mod images;
pub mod learned;
pub mod name;
pub mod notices;
pub mod overrides;
pub mod pattern;
pub mod platform;
pub mod readiness;
pub mod table;
pub mod tolerations;
pub mod truncate;
pub mod webhook;

pub use assess::UnknownReason;
pub use webhook::Arch;

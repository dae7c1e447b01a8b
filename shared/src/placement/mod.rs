//! Placing a workload's pods over groups of nodes, exactly, by weight.
//!
//! ```text
//! Policy ──▶ Sequence: slot ──▶ group
//! ```
//!
//! [`policy`] says which groups share a workload and how; [`sequence`] is the group of each slot.

pub mod policy;
pub mod sequence;

//! Placing a workload's pods over groups of nodes, exactly, by weight.
//!
//! ```text
//! Policy ──▶ Sequence: slot ──▶ group ──▶ SlotAllocator ──▶ the next slot and its group
//!                                           ▲
//!                                         Ledger: which slots are taken, agreed on by all replicas
//! ```
#![forbid(unsafe_code)]

pub mod admit;
pub mod allocator;
pub mod annotations;
pub mod availability;
pub mod cycle;
pub mod definition;
mod hash;
pub mod identity;
pub mod ledger;
#[cfg(test)]
mod model;
pub mod namespace;
pub mod offline;
pub mod owner_object;
pub mod owners;
pub mod pod_object;
pub mod policy;
pub mod precedence;
pub mod sequence;
mod slot_order;
pub mod spread;
pub mod strategy;

//! Placing a workload's pods over groups of nodes, exactly, by weight.
//!
//! ```text
//! Policy ──▶ Sequence: slot ──▶ group ──▶ Rules: who is where ──▶ the next place
//!                                           ▲
//!                                         Ledger: many replicas agree on who is where
//! ```
#![forbid(unsafe_code)]

pub mod distribution;
pub mod ledger;
pub mod marks;
#[cfg(test)]
mod model;
pub mod offline;
mod ordinal;
pub mod owners;
pub mod placing;
pub mod policy;
pub mod rules;
pub mod sequence;
pub mod spread;
pub mod strategy;
mod valid;

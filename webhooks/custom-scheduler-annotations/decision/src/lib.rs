//! Spreads the pods of a workload over groups of nodes by an annotation with a base and weights.
//!
//! ```text
//! pod ──▶ its owners ──▶ annotation ──▶ Strategy ──▶ Rules ──▶ ledger: slot, group ──▶ patch
//! ```
//!
//! [`podshaper_placement`] parses strategies and places pods. This crate finds the strategy ([`annotations`]) and warns about invalid
//! ones ([`Annotated`]).
#![forbid(unsafe_code)]

pub mod annotations;
pub mod facts;
pub mod strategies;
pub mod webhook;
pub mod workload;

pub use webhook::{Annotated, Settings};

/// The webhook's name, on pods, in ledgers and in messages.
pub const WEBHOOK: &str = "custom-scheduler-annotations";

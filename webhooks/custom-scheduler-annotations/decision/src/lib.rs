//! A workload's pods spread over groups of nodes as an annotation says: so many first, the others by weight.
//!
//! ```text
//! pod ──▶ its owners ──▶ annotation ──▶ Strategy ──▶ Rules ──▶ ledger: slot, group ──▶ patch
//! ```
//!
//! What a strategy means and how pods find their slots is the library's ([`podshaper_placement`]). Here is where a
//! strategy stands ([`annotations`]), and what is said to who writes a bad one ([`Annotated`]).
#![forbid(unsafe_code)]

pub mod annotations;
pub mod facts;
pub mod strategies;
pub mod webhook;
pub mod workload;

pub use webhook::{Annotated, Settings};

/// The webhook's name, on pods, in ledgers and in messages.
pub const WEBHOOK: &str = "custom-scheduler-annotations";

//! Ledgers against an API server in memory. Time stands still except for its round trips.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;
mod ownership;
mod place;
mod reconcile;

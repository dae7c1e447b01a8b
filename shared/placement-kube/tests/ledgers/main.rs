//! Ledgers against an API server in memory. Time is paused except for its round trips.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod fixture;
mod ownership;
mod place;
mod reconcile;

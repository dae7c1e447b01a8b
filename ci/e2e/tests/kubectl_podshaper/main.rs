//! `kubectl podshaper` against a cluster: faults that `check` finds, and the rights of a user of one namespace.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

mod check;
mod fixture;
mod rights;

//! Helpers for tests against running binaries and real clusters.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::missing_panics_doc,
    clippy::indexing_slicing,
    reason = "a test that can't go on stops"
)]

pub mod authority;
pub mod browser;
pub mod client;
pub mod cluster;
pub mod in_process;
pub mod lag;
pub mod pods;
pub mod process;
pub mod registry;
pub mod release;
pub mod stream;

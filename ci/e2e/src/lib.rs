//! What tests against running binaries need: a webhook as a process, and a client that may misbehave.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test that can't go on stops")]

pub mod client;
pub mod process;

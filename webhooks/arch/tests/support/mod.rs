//! Registries, the webhook that asks them, and the binary.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

pub(crate) mod generated_images;
pub(crate) mod registry;
pub(crate) mod resolver;
pub(crate) mod server;

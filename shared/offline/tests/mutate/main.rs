//! The offline command as a whole, with a webhook that marks pods.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod documents;
mod errors;
mod hostile;
mod marker;
mod output;
mod reviews;

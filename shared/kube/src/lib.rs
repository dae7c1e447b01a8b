//! The Kubernetes API as a pod uses it: requests that end, lists and watches, stores, leases and Events.
#![forbid(unsafe_code)]

pub mod client;
pub mod discovery;
pub mod error;
pub mod events;
pub mod lease;
pub mod pages;
pub mod point_read;
pub mod replica;
pub mod request;
pub mod store;
#[cfg(test)]
mod thing;
pub mod watch;

//! A client of the Kubernetes API in a pod: bounded requests, watches and their stores, leader election and Events.
#![forbid(unsafe_code)]

pub mod client;
pub mod discovery;
pub mod error;
pub mod events;
pub mod lease;
pub mod metrics;
pub mod pages;
pub mod point_reader;
pub mod replica;
pub mod request;
pub mod store;
#[cfg(test)]
mod test_object;
pub mod watch;

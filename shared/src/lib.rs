//! What every Podshaper webhook shares.
//!
//! Without features this is the pure core: admission reviews in and out ([`admission`]), the pod as decisions read it
//! ([`pod`]), patches that always apply ([`patch`]), and Kubernetes quantities ([`quantity`]).
//! The feature `serve` adds what a binary needs around its decision: the command line, the servers, certificates and the
//! Kubernetes client. The feature `watch` adds what those need that decide by more than the pod ([`cluster`]).
#![forbid(unsafe_code)]

pub mod admission;
pub mod definition;
pub mod found;
pub mod json;
pub mod label;
pub mod patch;
pub mod placement;
pub mod pod;
pub mod quantity;
pub mod workload;

#[cfg(feature = "serve")]
pub mod api_server;
#[cfg(feature = "serve")]
pub mod certificates;
#[cfg(feature = "serve")]
pub mod cli;
#[cfg(feature = "watch")]
pub mod cluster;
#[cfg(feature = "serve")]
pub mod in_cluster;
#[cfg(feature = "serve")]
pub mod server;
#[cfg(feature = "serve")]
pub mod telemetry;

//! The webhook `peerpods`: what knows the cluster, and its commands.
#![forbid(unsafe_code)]

pub mod advertise;
mod options;
mod program;

pub use program::PeerPodsCommand;

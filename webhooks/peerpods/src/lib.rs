//! The commands of the webhook `peerpods`.
#![forbid(unsafe_code)]

pub mod advertise;
mod options;
mod program;

pub use program::PeerPodsCommand;

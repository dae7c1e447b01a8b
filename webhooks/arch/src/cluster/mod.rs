//! The controller of scheduling gates.

mod events;
mod gate_controller;
mod gated;
mod namespaces;
mod recheck;

pub(crate) use events::OwnerEvents;
pub(crate) use gate_controller::GateController;
pub(crate) use namespaces::WatchedNamespaces;

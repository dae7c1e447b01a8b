//! The objects of the cluster that the webhook watches, and the controller of scheduling gates.

mod architectures;
mod events;
mod gate_controller;
mod gated;
mod namespaces;
mod node_record;
mod recheck;

pub(crate) use architectures::ClusterArchitectures;
pub(crate) use events::OwnerEvents;
pub(crate) use gate_controller::GateController;
pub(crate) use namespaces::WatchedNamespaces;

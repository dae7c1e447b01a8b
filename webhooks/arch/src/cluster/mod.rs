//! What is done in the cluster: pods that wait for their images are let go.

mod gate_controller;
mod gated;
mod recheck;

pub(crate) use gate_controller::GateController;

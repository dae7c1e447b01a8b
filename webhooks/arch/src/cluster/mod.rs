//! The controller of scheduling gates.

mod gate_controller;
mod gated;
mod recheck;

pub(crate) use gate_controller::GateController;

//! What is done in the cluster: pods that wait for their images are let go.

mod gated;
mod lift;
mod pause;

pub(crate) use lift::Lifter;

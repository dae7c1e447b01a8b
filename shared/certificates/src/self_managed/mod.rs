//! A CA and a serving certificate that the webhook's replicas keep themselves, in one Secret and in the caBundle of one
//! `MutatingWebhookConfiguration`, without a leader.

mod bundle;
mod cluster;
mod controller;
#[cfg(test)]
mod fake_api_server;
mod issue;
#[cfg(test)]
mod model;
mod pace;
mod secret;
mod state;

pub(super) use cluster::Cluster;
pub(super) use controller::Controller;
pub(super) use issue::Service;
pub(super) use state::Settings;

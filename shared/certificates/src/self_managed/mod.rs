//! A CA and a leaf that the replicas of a webhook keep in a Secret, with the CA in the caBundle of their
//! `MutatingWebhookConfiguration`. The replicas have no leader.

mod authority;
mod ca_bundle;
mod controller;
#[cfg(test)]
mod model;
mod replica;
mod secret;
mod store;
mod webhook_configuration;
mod write_backoff;

pub(crate) use authority::WebhookService;
pub(crate) use controller::CertificateController;
pub(crate) use replica::Lifetimes;
pub(crate) use store::CertificateStore;

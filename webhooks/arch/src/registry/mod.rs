//! Registries, as far as an image's platforms are concerned.
//!
//! ```text
//! resolve: mirrors, credentials, index ──▶ token ──▶ exchange: bounds, redirects, pace ──▶ connect: addresses
//!                        manifest ◀──────────────────────┘
//! ```
//!
//! What an image is called is chosen by tenants, and so is every host that is asked, and what it answers: no client of
//! registries at hand has a say in where a request leads, so this is ours.

mod address;
mod body;
mod challenge;
mod connect;
mod exchange;
mod host_limiter;
mod hosts;
mod manifest;
mod resolve;
mod tls;
mod token;

use std::sync::Arc;

pub(crate) use resolve::{Keyring, Plan, Resolved, Resolver};

use arch_decision::config::Registries;
use exchange::Exchange;
use hosts::Hosts;

/// What asks the registries of these settings.
pub(crate) fn resolver(settings: &Registries) -> anyhow::Result<Resolver> {
    let tls = tls::client_config(settings)?;
    Ok(Resolver::new(Exchange::new(Arc::new(Hosts::new(settings.clone())), connect::names(), &tls)))
}

//! A client of registries for the platforms of images.
//!
//! ```text
//! resolve: mirrors, credentials, index ──▶ token ──▶ exchange: bounds, redirects, limits ──▶ connect: addresses
//!                        manifest ◀──────────────────────┘
//! ```
//!
//! Tenants choose the names of images, and so the hosts and their responses. No client library restricts the addresses of a request,
//! its redirects and its token servers, so this code does.

mod address;
mod body;
pub mod challenge;
mod cloud;
mod connect;
mod connection;
mod exchange;
mod host_limiter;
mod hosts;
pub mod manifest;
mod resolve;
mod tls;
mod token;

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;

pub(crate) use resolve::{Keyring, Plan, Resolved, Resolver};

use arch_decision::config::Settings;
use cloud::CloudKeyring;
use exchange::Exchange;
use hosts::Hosts;

/// A resolver with these settings.
pub(crate) fn resolver(settings: &Settings) -> anyhow::Result<Resolver> {
    let registries = &settings.registries;
    let tls = tls::client_config(registries)?;
    if let Some(directory) = &registries.proxy_credentials_dir {
        connect::proxy_credentials_of(Path::new(directory)).context("registries.proxyCredentialsDir")?;
    }
    let hosts = Arc::new(Hosts::new(registries.clone()));
    let cloud = CloudKeyring::new(&settings.cloud_credentials, &hosts, &tls);
    Ok(Resolver::new(Exchange::new(hosts, connect::names(), &tls), cloud))
}

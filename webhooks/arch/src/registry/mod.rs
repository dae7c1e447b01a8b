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
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

pub(crate) use resolve::{Keyring, Plan, Resolved, Resolver};

use address::AddressPolicy;
use arch_decision::config::Settings;
use body::Body;
use cloud::CloudKeyring;
use exchange::Exchange;
use hosts::Hosts;

use crate::credentials::Credential;

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

/// A request to a registry.
#[derive(Clone, Debug)]
struct RegistryRequest {
    /// GET, HEAD, or POST to a token server.
    method: Method,
    uri: Uri,
    /// `Accept`.
    accept: &'static str,
    /// `Authorization`, which redirects do not get.
    authorization: Option<HeaderValue>,
    /// A body of the type `application/x-www-form-urlencoded`.
    form: Option<Bytes>,
    /// The addresses that it may go to.
    reach: AddressPolicy,
    /// The lookup that sends it.
    requester: Requester,
}

/// A response of a registry.
#[derive(Debug)]
struct RegistryResponse {
    status: StatusCode,
    headers: HeaderMap,
    body: Body,
    /// The addresses that its redirect or its challenge may lead to.
    reach: AddressPolicy,
    /// The URI that answered.
    uri: Uri,
    /// Whether a redirect led to it.
    redirected: bool,
}

/// The origin of a request to a registry.
#[derive(Clone, Debug, Default)]
struct Requester {
    /// The namespace of the pod.
    namespace: Arc<str>,
    /// The repository that is looked up.
    repository: Arc<str>,
    /// The credential, if the request may have one.
    identity: [u8; 16],
}

/// The registry, repository and credential that a token is valid for.
#[derive(Clone, Debug)]
struct Scope<'s> {
    /// `https://host:port`.
    registry: &'s Uri,
    repository: &'s str,
    /// The credential; none for anonymous access.
    credential: Option<&'s Credential>,
    /// Identifies the credential without revealing it.
    identity: [u8; 16],
    /// The namespace that the lookup is for.
    namespace: &'s Arc<str>,
}

impl Scope<'_> {
    /// The origin of a request.
    fn requester(&self) -> Requester {
        let namespace = Arc::clone(self.namespace);
        let identity = self.identity;
        Requester { namespace, repository: self.repository.into(), identity }
    }
}

/// Host and port of a URI, with the default port of its scheme.
fn host_and_port(uri: &Uri) -> (&str, u16) {
    let default_port = if uri.scheme_str() == Some("http") { 80 } else { 443 };
    (uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default_port))
}

/// `host:port` in lower case, as a key of caches: the spelling of a host is up to tenants.
fn authority(uri: &Uri) -> String {
    let (host, port) = host_and_port(uri);
    format!("{}:{port}", host.to_ascii_lowercase())
}

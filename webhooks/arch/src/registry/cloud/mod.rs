//! Credentials for registries of clouds, by the identity of the webhook's pod.
//!
//! A cloud gives the pod a token or the address of an identity service, and that gives a credential for a registry. The requests have a
//! client of their own: registries and their redirects can never lead to an identity service.

mod acr;
mod artifact_registry;
mod client;
mod ecr;
mod signature;

use std::env;
use std::fs;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ring::digest::{Context, SHA256};
use rustls::ClientConfig;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::hosts::Hosts;
use crate::credentials::Credential;
use arch_decision::config::{Cloud, CloudCredentials};
use arch_decision::images::LookupError;
use client::IdentityClient;

/// How long a failure is remembered.
const FAILURE: Duration = Duration::from_secs(10);
/// The time before the end of a credential at which it isn't used any more.
const MARGIN: Duration = Duration::from_mins(2);
/// The longest time that a credential is used.
const MAX_LIFETIME: Duration = Duration::from_hours(6);
/// The longest token of an identity, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// The credentials of clouds.
#[derive(Default)]
pub(crate) struct CloudKeyring(Vec<Arc<CloudSource>>);

/// The credential for one registry.
pub(crate) struct CloudSource {
    registry: String,
    namespaces: Vec<String>,
    /// Identifies the credential. Answers are shared by the pods that may use it, also when it is renewed.
    identity: [u8; 16],
    tokens: Box<dyn TokenSource>,
    latest: Mutex<Option<Latest>>,
}

/// A credential or the failure to get one, and the end of its use.
type Latest = (Result<Arc<Credential>, LookupError>, Instant);

/// A credential, and how long it is valid.
pub(crate) struct CloudToken {
    user: String,
    password: String,
    refresh_token: Option<String>,
    lifetime: Duration,
}

type Fetching<'a> = Pin<Box<dyn Future<Output = Result<CloudToken, CloudError>> + Send + 'a>>;

/// A cloud that gives credentials for its registries.
trait TokenSource: Send + Sync {
    /// Checks that the pod has an identity.
    fn check(&self) -> Result<(), CloudError>;

    /// A new credential for this registry.
    fn fetch<'a>(&'a self, registry: &'a str) -> Fetching<'a>;
}

/// The reason why there is no credential. No message repeats a response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CloudError {
    #[error("the pod has no identity: {0} isn't set")]
    NoIdentity(&'static str),
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    #[error("{0} isn't an address of an identity service")]
    Address(&'static str),
    #[error("{0} doesn't answer: {1}")]
    NotConnected(String, String),
    #[error("{0} responds with status {1}")]
    Status(String, u16),
    #[error("{0} responds with something else than credentials")]
    Malformed(String),
}

impl CloudKeyring {
    pub(crate) fn new(items: &[CloudCredentials], hosts: &Arc<Hosts>, tls: &ClientConfig) -> Self {
        let client = Arc::new(IdentityClient::new(hosts, tls));
        let sources = items.iter().flat_map(|item| {
            let client = &client;
            item.registries.iter().map(move |registry| {
                let client = Arc::clone(client);
                let (name, tokens): (_, Box<dyn TokenSource>) = match &item.cloud {
                    Cloud::Ecr => ("ecr", Box::new(ecr::Ecr::new(client))),
                    Cloud::ArtifactRegistry => {
                        ("artifact-registry", Box::new(artifact_registry::ArtifactRegistry::new(client)))
                    }
                    Cloud::Acr(tenant) => ("acr", Box::new(acr::Acr::new(client, tenant.clone()))),
                };
                let registry = registry.clone();
                let namespaces = item.namespaces.clone();
                let mut hash = Context::new(&SHA256);
                for part in ["cloud", name, &*registry] {
                    hash.update(part.as_bytes());
                    hash.update(&[0]);
                }
                let identity = hash.finish().as_ref().first_chunk().copied().unwrap_or_default();
                Arc::new(CloudSource { registry, namespaces, identity, tokens, latest: Mutex::default() })
            })
        });
        Self(sources.collect())
    }

    /// The credential for images of this registry in pods of this namespace. Without a pod, the operator asks.
    pub(crate) fn source(&self, registry: &str, namespace: Option<&str>) -> Option<&Arc<CloudSource>> {
        self.0.iter().find(|source| {
            let has = |namespace| source.namespaces.iter().any(|own| own == namespace);
            source.registry == registry && (source.namespaces.is_empty() || namespace.is_none_or(has))
        })
    }

    /// Checks that the pod has the identities that the settings need.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for source in &self.0 {
            source
                .tokens
                .check()
                .map_err(|error| anyhow::anyhow!("cloudCredentials: {}: {error}", source.registry))?;
        }
        Ok(())
    }
}

impl CloudSource {
    /// Identifies the credential without revealing it.
    pub(crate) fn identity(&self) -> [u8; 16] {
        self.identity
    }

    /// The current credential. Concurrent lookups share a request.
    pub(crate) async fn credential(&self) -> Result<Arc<Credential>, LookupError> {
        let mut latest = self.latest.lock().await;
        if let Some((credential, until)) = &*latest
            && Instant::now() < *until
        {
            return credential.clone();
        }
        let (credential, lifetime) = match self.tokens.fetch(&self.registry).await {
            Ok(CloudToken { user, password, refresh_token, lifetime }) => {
                let credential = Credential::of_cloud(user, password, refresh_token, self.identity);
                (Ok(Arc::new(credential)), lifetime.saturating_sub(MARGIN).clamp(FAILURE, MAX_LIFETIME))
            }
            Err(error) => {
                let registry = &*self.registry;
                tracing::warn!(registry, %error, "no credential for a registry");
                (Err(LookupError::Unavailable), FAILURE)
            }
        };
        *latest = Some((credential.clone(), Instant::now() + lifetime));
        credential
    }
}

/// An environment variable that the cloud's controller sets in the pod.
fn variable(name: &'static str) -> Result<String, CloudError> {
    env::var(name).ok().filter(|value| !value.is_empty()).ok_or(CloudError::NoIdentity(name))
}

/// The content of a file with a token, which the kubelet renews.
fn token_of(path: &str) -> Result<String, CloudError> {
    let text = fs::read_to_string(path).map_err(|error| CloudError::File(path.to_owned(), error))?;
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_TOKEN {
        let error = std::io::Error::other("isn't a token");
        return Err(CloudError::File(path.to_owned(), error));
    }
    Ok(text.to_owned())
}

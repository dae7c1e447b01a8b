//! The pull secrets of pods. Each Secret is read when a pod names it. Without the permission, no Secret counts.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::{Client, Error};
use moka::sync::Cache;
use podshaper_core::object::is_name;
use podshaper_kube::error::describe;
use podshaper_kube::request::get;
use serde::Deserialize;
use tokio::time::timeout_at;

use crate::credentials::{DockerConfig, HELPERS};
use arch_decision::images::Access;

/// How long a Secret is cached. For so long, a replaced Secret is still used.
const FRESH: Duration = Duration::from_mins(1);
/// Bytes of the cache of Secrets.
const MEMORY: u64 = 16 << 20;
/// Bytes of a cached Secret beside its content, roughly.
const ENTRY: usize = 400;
/// Largest number of Secrets that are read for a pod.
const SECRETS: usize = 32;
/// Largest number of absent Secrets that are read for the pods of a namespace within [`FRESH`]: each name costs a request, and tenants
/// can make up any number of names. Beyond it, only cached Secrets count.
const ABSENT: u32 = 64;
/// Largest number of namespaces with such a count.
const NAMESPACES: u64 = 4096;
/// Largest number of cached ServiceAccounts.
const ACCOUNTS: u64 = 1024;
/// Largest number of credentials in the Secrets of a pod.
const CREDENTIALS: usize = 256;
/// The longest Docker configuration, in bytes of base64: hundreds of registries.
const MAX_CONFIG: usize = 256 << 10;

/// The data of a Secret.
#[derive(Clone, Debug)]
enum Secret {
    /// Credentials.
    Credentials(Arc<DockerConfig>),
    /// The Secret does not exist or cannot be read.
    Nothing,
    /// The Secret is not a pull secret; the text says why.
    Malformed(Arc<str>),
}

/// Namespace and name.
type Key = (Box<str>, Box<str>);

/// Reads and caches pull secrets.
pub struct PullSecrets {
    client: Client,
    known: Cache<Key, Secret>,
    /// Names without a Secret, by namespace.
    absent: Cache<Box<str>, Arc<AtomicU32>>,
    /// The pull secrets of ServiceAccounts; none for one that cannot be read.
    accounts: Cache<Key, Option<Arc<[String]>>>,
}

/// `v1.ServiceAccount`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceAccount {
    image_pull_secrets: Option<Vec<SecretName>>,
}

/// `v1.LocalObjectReference`.
#[derive(Deserialize)]
struct SecretName {
    #[serde(default)]
    name: String,
}

/// `v1.Secret`.
#[derive(Deserialize)]
struct SecretObject {
    #[serde(default)]
    r#type: String,
    #[serde(default)]
    data: Option<Data>,
}

#[derive(Default, Deserialize)]
struct Data {
    #[serde(rename = ".dockerconfigjson")]
    config: Option<String>,
    #[serde(rename = ".dockercfg")]
    legacy: Option<String>,
}

impl PullSecrets {
    /// Reads with the permissions of `client`.
    pub fn new(client: Client) -> Self {
        let known = Cache::builder().weigher(weight).max_capacity(MEMORY).time_to_live(FRESH).build();
        let absent = Cache::builder().max_capacity(NAMESPACES).time_to_live(FRESH).build();
        let accounts = Cache::builder().max_capacity(ACCOUNTS).time_to_live(FRESH).build();
        Self { client, known, absent, accounts }
    }

    /// The names of the pull secrets of a ServiceAccount; none if it cannot be read, or does not exist, so that it has no pods.
    ///
    /// Rights: get serviceaccounts.
    pub(crate) async fn of_service_account(
        &self,
        namespace: &str,
        name: &str,
        deadline: Instant,
    ) -> Option<Vec<String>> {
        if !is_name(namespace) || !is_name(name) {
            return None;
        }
        let key = (namespace.into(), name.into());
        if let Some(known) = self.accounts.get(&key) {
            return known.map(|names| names.to_vec());
        }
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}");
        let read = timeout_at(deadline.into(), get::<ServiceAccount>(&self.client, &path)).await.ok()?;
        let account = read.unwrap_or_else(|error| {
            tracing::debug!(namespace, name, error = describe(&error), "can't read a ServiceAccount");
            None
        });
        let names = account.map(|account| {
            let secrets = account.image_pull_secrets.unwrap_or_default().into_iter();
            secrets
                .map(|secret| secret.name)
                .filter(|name| is_name(name))
                .take(SECRETS + 1)
                .collect::<Vec<_>>()
        });
        self.accounts.insert(key, names.clone().map(Into::into));
        names
    }

    /// The credentials of a pod's Secrets, and a warning for each Secret that cannot be used.
    pub(crate) async fn of(
        &self,
        access: &Access<'_>,
        deadline: Instant,
    ) -> (Vec<Arc<DockerConfig>>, Vec<String>) {
        let mut files = Vec::new();
        let mut warnings = Vec::new();
        let mut held = 0;
        let names = named(access);
        for name in names.iter().take(SECRETS) {
            match self.read(access.namespace, name, deadline).await {
                Secret::Credentials(file) if held + file.len() <= CREDENTIALS => {
                    held += file.len();
                    if file.has_helpers() {
                        warnings.push(format!("arch: Secret {name}: {HELPERS}"));
                    }
                    files.push(file);
                }
                Secret::Credentials(_) => warnings.push(format!(
                    "arch: Secret {name} isn't used: a pod's Secrets may hold {CREDENTIALS} credentials in all"
                )),
                Secret::Nothing => {}
                Secret::Malformed(problem) => warnings.push(format!("arch: Secret {name}: {problem}")),
            }
        }
        if names.len() > SECRETS {
            warnings.push(format!("arch: only the first {SECRETS} of imagePullSecrets are read"));
        }
        (files, warnings)
    }

    async fn read(&self, namespace: &str, name: &str, deadline: Instant) -> Secret {
        let key = (namespace.into(), name.into());
        if let Some(known) = self.known.get(&key) {
            return known;
        }
        if self.absent.get(namespace).is_some_and(|count| count.load(Ordering::Relaxed) >= ABSENT) {
            let problem = format!(
                "it isn't read: pods of this namespace name more than {ABSENT} Secrets that don't exist"
            );
            return Secret::Malformed(problem.into());
        }
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let secret = match timeout_at(deadline.into(), get::<SecretObject>(&self.client, &path)).await {
            Ok(Ok(Some(object))) => object.credentials(),
            Ok(Ok(None)) => Secret::Nothing,
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                tracing::debug!(namespace, name, "this Secret may not be read");
                Secret::Nothing
            }
            // Not cached: the next read may succeed.
            Ok(Err(error)) => {
                tracing::warn!(namespace, name, error = describe(&error), "can't read a pull secret");
                return Secret::Nothing;
            }
            Err(_) => return Secret::Nothing,
        };
        if matches!(secret, Secret::Nothing) {
            self.absent.get_with(namespace.into(), Arc::default).fetch_add(1, Ordering::Relaxed);
        }
        self.known.insert(key, secret.clone());
        secret
    }
}

/// The Secrets that a pod names, each once: at most one more than are read.
pub(crate) fn named<'p>(access: &Access<'p>) -> Vec<&'p str> {
    let mut seen = HashSet::new();
    let names = access.pull_secrets.iter().copied().filter(|_| is_name(access.namespace));
    names.filter(|name| is_name(name) && seen.insert(*name)).take(SECRETS + 1).collect()
}

/// Bytes of a cached Secret, roughly.
fn weight((namespace, name): &(Box<str>, Box<str>), secret: &Secret) -> u32 {
    let content = if let Secret::Credentials(file) = secret { file.size() } else { 0 };
    u32::try_from(ENTRY + namespace.len() + name.len() + content).unwrap_or(u32::MAX)
}

impl SecretObject {
    fn credentials(self) -> Secret {
        let data = self.data.unwrap_or_default();
        let (encoded, legacy) = match (&*self.r#type, data.config, data.legacy) {
            ("kubernetes.io/dockerconfigjson", Some(config), _) => (config, false),
            ("kubernetes.io/dockercfg", _, Some(legacy)) => (legacy, true),
            _ => return Secret::Malformed("it holds no .dockerconfigjson".into()),
        };
        if encoded.len() > MAX_CONFIG {
            return Secret::Malformed("it is larger than any Docker configuration".into());
        }
        let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else { return Secret::Malformed("it isn't text".into()) };
        let file =
            if legacy { DockerConfig::from_legacy_json(&text) } else { DockerConfig::from_json(&text) };
        match file {
            Ok(file) => Secret::Credentials(Arc::new(file)),
            // The error would quote the credentials.
            Err(_) => Secret::Malformed("it isn't a Docker configuration".into()),
        }
    }
}

//! Pull secrets, read one by one when a pod names them. The permission is optional: without it there are none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kube::{Client, Error};
use moka::sync::Cache;
use podshaper::api_server::get;
use podshaper::cluster::is_name;
use serde::Deserialize;
use tokio::time::timeout_at;

use crate::credentials::DockerConfig;

/// How long one is remembered, and so how long one that was replaced is still used.
const FRESH: Duration = Duration::from_mins(1);
/// Secrets that are remembered.
const SECRETS: u64 = 2048;

/// What a Secret holds.
#[derive(Clone, Debug)]
pub enum Secret {
    /// Credentials.
    Credentials(Arc<DockerConfig>),
    /// There is none, or it can't be read.
    Nothing,
    /// It isn't what it should be.
    Malformed(Arc<str>),
}

/// Reads Secrets.
pub struct PullSecrets {
    client: Client,
    known: Cache<(Box<str>, Box<str>), Secret>,
}

/// `v1.Secret`.
#[derive(Deserialize)]
struct Object {
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
    /// Secrets as this client may read them.
    pub fn new(client: Client) -> Self {
        Self { client, known: Cache::builder().max_capacity(SECRETS).time_to_live(FRESH).build() }
    }

    /// The Secret of this name.
    pub(crate) async fn read(&self, namespace: &str, name: &str, deadline: Instant) -> Secret {
        if !is_name(namespace) || !is_name(name) {
            return Secret::Nothing;
        }
        let key = (namespace.into(), name.into());
        if let Some(known) = self.known.get(&key) {
            return known;
        }
        let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
        let secret = match timeout_at(deadline.into(), get::<Object>(&self.client, &path)).await {
            Ok(Ok(Some(object))) => object.credentials(),
            Ok(Ok(None)) => Secret::Nothing,
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                tracing::debug!(namespace, name, "this Secret may not be read");
                Secret::Nothing
            }
            // It may be read in a moment.
            Ok(Err(error)) => {
                tracing::warn!(namespace, name, %error, "can't read a pull secret");
                return Secret::Nothing;
            }
            Err(_) => return Secret::Nothing,
        };
        self.known.insert(key, secret.clone());
        secret
    }
}

impl Object {
    fn credentials(self) -> Secret {
        let data = self.data.unwrap_or_default();
        let (encoded, legacy) = match (&*self.r#type, data.config, data.legacy) {
            ("kubernetes.io/dockerconfigjson", Some(config), _) => (config, false),
            ("kubernetes.io/dockercfg", _, Some(legacy)) => (legacy, true),
            _ => return Secret::Malformed("it holds no .dockerconfigjson".into()),
        };
        let text = STANDARD.decode(encoded).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let Some(text) = text else { return Secret::Malformed("it isn't text".into()) };
        let file =
            if legacy { DockerConfig::from_legacy_json(&text) } else { DockerConfig::from_json(&text) };
        match file {
            Ok(file) => Secret::Credentials(Arc::new(file)),
            // The error would quote what stands there.
            Err(_) => Secret::Malformed("it isn't a Docker configuration".into()),
        }
    }
}

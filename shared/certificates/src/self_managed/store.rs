//! Reads, writes and watches the Secret and the `MutatingWebhookConfiguration`.
//!
//! It needs these rights, each limited by `resourceNames`: `get`, `watch` and `patch` on both objects, and `create` on the
//! Secret, to create it again after it was deleted.

use std::fmt;

use kube::Client;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Duration;

use super::secret::CertificateSecret;
use super::webhook_configuration::WebhookConfiguration;
use podshaper_kube::error::describe;
use podshaper_kube::request::{self, MediaType, REQUEST_TIMEOUT, WatchEvent};

/// The API server ends a watch after as many seconds, so that a dead connection is noticed.
const WATCH_SECONDS: u64 = 240;

/// The Secret and the configuration of one webhook.
#[derive(Clone)]
pub(crate) struct CertificateStore {
    client: Client,
    secret: ApiObject,
    configuration: ApiObject,
}

/// An object of the API.
#[derive(Clone)]
pub(super) struct ApiObject {
    /// The path of its collection.
    collection: String,
    name: String,
    display: String,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// Another writer was faster: read again.
    #[error("changed by another writer at the same time")]
    Conflict,
    #[error("{0}")]
    Failed(String),
}

impl CertificateStore {
    pub(crate) fn new(client: Client, namespace: &str, secret: String, configuration: String) -> Self {
        let secret = ApiObject {
            collection: format!("/api/v1/namespaces/{namespace}/secrets"),
            display: format!("Secret {namespace}/{secret}"),
            name: secret,
        };
        let configuration = ApiObject {
            collection: "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations".into(),
            display: format!("MutatingWebhookConfiguration {configuration}"),
            name: configuration,
        };
        Self { client, secret, configuration }
    }

    pub(super) fn secret(&self) -> &ApiObject {
        &self.secret
    }

    pub(super) fn configuration(&self) -> &ApiObject {
        &self.configuration
    }

    /// Returns `None` if the Secret doesn't exist.
    pub(super) async fn read_secret(&self) -> Result<Option<CertificateSecret>, StoreError> {
        self.read(&self.secret).await
    }

    /// Returns the default if the configuration doesn't exist.
    pub(super) async fn read_configuration(&self) -> Result<WebhookConfiguration, StoreError> {
        self.read(&self.configuration).await.map(Option::unwrap_or_default)
    }

    /// Replaces the content of the Secret. Fails with a conflict if it has another version than `secret`.
    pub(super) async fn write_secret(&self, secret: &CertificateSecret) -> Result<(), StoreError> {
        self.patch(&self.secret, MediaType::MergePatch, "", &secret.patch()).await
    }

    /// Creates an empty Secret. No release owns it, so the configuration does, and both are deleted together. When two
    /// replicas create it, both succeed.
    pub(super) async fn create_secret(&self, configuration: &WebhookConfiguration) -> Result<(), StoreError> {
        let owner = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "name": self.configuration.name, "uid": configuration.uid(),
        });
        let metadata = json!({ "name": self.secret.name, "ownerReferences": [owner] });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata });
        self.patch(&self.secret, MediaType::ApplyPatch, "?fieldManager=podshaper", &secret).await
    }

    /// Replaces caBundles, by the index of their webhook. Fails with a conflict if the configuration has another version.
    pub(super) async fn write_bundles(
        &self,
        configuration: &WebhookConfiguration,
        bundles: &[(usize, String)],
    ) -> Result<(), StoreError> {
        self.patch(&self.configuration, MediaType::JsonPatch, "", &configuration.patch(bundles)).await
    }

    /// Notifies `changed` of the object as it is and of every change, until the watch ends.
    pub(super) async fn watch(&self, object: &ApiObject, changed: &Notify) -> Result<(), StoreError> {
        let ApiObject { collection, name, .. } = object;
        // Without a version the watch begins with the object as it is, so no earlier change is missed.
        let path = format!(
            "{collection}?watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds={WATCH_SECONDS}"
        );
        let notify = &mut |_: WatchEvent<'_>| {
            changed.notify_one();
            Ok(())
        };
        let ended =
            request::watch(&self.client, &path, Duration::from_secs(WATCH_SECONDS) + REQUEST_TIMEOUT, notify)
                .await;
        ended.map_err(|error| failure("watch", object, &error))
    }

    async fn read<T: DeserializeOwned>(&self, object: &ApiObject) -> Result<Option<T>, StoreError> {
        let read = request::get(&self.client, &object.path()).await;
        read.map_err(|error| failure("get", object, &error))
    }

    async fn patch(
        &self,
        object: &ApiObject,
        media: MediaType,
        query: &str,
        patch: &Value,
    ) -> Result<(), StoreError> {
        let uri = object.path() + query;
        match request::send(&self.client, "PATCH", &uri, media, patch).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Err(StoreError::Conflict),
            sent => sent.map(drop).map_err(|error| failure("patch", object, &error)),
        }
    }
}

impl ApiObject {
    fn path(&self) -> String {
        format!("{}/{}", self.collection, self.name)
    }
}

impl fmt::Display for ApiObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.display)
    }
}

fn failure(verb: &str, object: &ApiObject, error: &kube::Error) -> StoreError {
    let reason = match error {
        // serde's error may quote a value of the Secret.
        kube::Error::SerdeError(_) => "unexpected response".to_owned(),
        error => describe(error),
    };
    StoreError::Failed(format!("{verb} {object}: {reason}"))
}

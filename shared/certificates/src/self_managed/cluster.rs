//! The two objects that a webhook keeps: its Secret and its `MutatingWebhookConfiguration`.
//!
//! Read and written as the few fields that matter; patches leave the rest alone. The rights it takes, each limited by
//! `resourceNames`: `get`, `watch` and `patch` on both, and `create` on the Secret to have it back when it was deleted.

use std::collections::BTreeMap;
use std::error::Error;
use std::iter::successors;

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use http::{Method, Request, StatusCode};
use kube::Client;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Duration, timeout};

use super::bundle::Bundle;
use super::secret::Stored;
use super::state::Configuration;
use podshaper_kube::request::{Event, watch};

/// No single call takes longer; a connection that is dead shows as this.
const CALL: Duration = Duration::from_secs(10);
/// After so many seconds the API server ends a watch, which then begins anew.
const WATCH: u64 = 240;

/// Where the two objects are.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
    secret: String,
    configuration: String,
}

/// One of the two.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Secret,
    Configuration,
}

/// A version of an object, with what we read in it.
pub(super) struct Version<T> {
    pub(super) resource_version: String,
    pub(super) content: T,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterError {
    /// The object is another than the one that was read: read again.
    #[error("changed by somebody else at the same time")]
    Conflict,
    #[error("{0}")]
    Failed(String),
}

#[derive(Deserialize)]
struct SecretObject {
    metadata: Metadata,
    data: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct ConfigurationObject {
    metadata: Metadata,
    webhooks: Option<Vec<Webhook>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    uid: String,
    resource_version: String,
    #[serde(default)]
    generation: i64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Webhook {
    client_config: ClientConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    #[serde(default)]
    ca_bundle: String,
}

impl Cluster {
    pub(crate) fn new(client: Client, namespace: String, secret: String, configuration: String) -> Self {
        Self { client, namespace, secret, configuration }
    }

    /// The Secret and what in it couldn't be read; none if it doesn't exist.
    pub(super) async fn secret(&self) -> Result<Option<Version<(Stored, Vec<String>)>>, ClusterError> {
        let object: Option<SecretObject> = self.get(Kind::Secret).await?;
        Ok(object.map(|SecretObject { metadata, data }| Version {
            resource_version: metadata.resource_version,
            content: Stored::decode(&data.unwrap_or_default(), &metadata.annotations),
        }))
    }

    /// The configuration; none if it doesn't exist.
    pub(super) async fn configuration(&self) -> Result<Option<Version<Configuration>>, ClusterError> {
        let object: Option<ConfigurationObject> = self.get(Kind::Configuration).await?;
        Ok(object.map(|ConfigurationObject { metadata, webhooks }| {
            let bundle =
                |webhook: Webhook| BASE64.decode(webhook.client_config.ca_bundle).unwrap_or_default();
            let bundles =
                webhooks.into_iter().flatten().map(|webhook| Bundle::new(bundle(webhook))).collect();
            let Metadata { uid, resource_version, generation, .. } = metadata;
            Version { resource_version, content: Configuration { uid, generation, bundles } }
        }))
    }

    /// Has the Secret hold `stored`, if it is still the version that was read.
    pub(super) async fn write_secret(
        &self,
        resource_version: &str,
        stored: &Stored,
    ) -> Result<(), ClusterError> {
        let patch = stored.patch(resource_version);
        self.patch(Kind::Secret, "application/merge-patch+json", "", &patch).await
    }

    /// Makes an empty Secret where there is none, which goes with the configuration that has this uid, because it is of no release. Of two
    /// replicas that do so both succeed.
    pub(super) async fn create_secret(&self, configuration: &str) -> Result<(), ClusterError> {
        let owner = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "name": self.configuration, "uid": configuration,
        });
        let metadata = json!({ "name": self.secret, "ownerReferences": [owner] });
        let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata });
        self.patch(Kind::Secret, "application/apply-patch+yaml", "?fieldManager=podshaper", &secret).await
    }

    /// Gives webhooks, by index, new caBundles, if the configuration is still the version that was read.
    pub(super) async fn write_bundles(
        &self,
        resource_version: &str,
        bundles: &[(usize, String)],
    ) -> Result<(), ClusterError> {
        // To set the version read makes any other a conflict, in a JSON Patch as in every other write.
        let version =
            json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": resource_version });
        let operations = bundles.iter().map(|(i, text)| {
            let path = format!("/webhooks/{i}/clientConfig/caBundle");
            json!({ "op": "add", "path": path, "value": BASE64.encode(text) })
        });
        let patch = [version].into_iter().chain(operations).collect();
        self.patch(Kind::Configuration, "application/json-patch+json", "", &patch).await
    }

    /// Calls `changed` when the object is first seen, and whenever it changes, until the watch ends.
    pub(super) async fn watch(
        &self,
        kind: Kind,
        changed: impl Fn() + Send + Sync,
    ) -> Result<(), ClusterError> {
        let (path, name) = self.path(kind);
        // Without a version the watch begins with the object as it is now: nothing that happened before is missed.
        let query = format!("watch=true&fieldSelector=metadata.name%3D{name}&timeoutSeconds={WATCH}");
        let patience = Duration::from_secs(WATCH) + CALL;
        let each = &mut |_: Event<'_>| {
            changed();
            Ok(())
        };
        let ended = watch(&self.client, &format!("{path}?{query}"), patience, each).await;
        ended.map_err(|e| self.explain(kind, "watch", &e))
    }

    pub(super) fn describe(&self, kind: Kind) -> String {
        match kind {
            Kind::Secret => format!("Secret {}/{}", self.namespace, self.secret),
            Kind::Configuration => format!("MutatingWebhookConfiguration {}", self.configuration),
        }
    }

    async fn get<T: DeserializeOwned>(&self, kind: Kind) -> Result<Option<T>, ClusterError> {
        match self.call(kind, Method::GET, "", None).await {
            Ok(text) => {
                // Not by kube, which logs what it can't read, keys and all.
                let unexpected =
                    |_| ClusterError::Failed(format!("{}: unexpected answer", self.describe(kind)));
                serde_json::from_str(&text).map(Some).map_err(unexpected)
            }
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(e) => Err(self.explain(kind, "get", &e)),
        }
    }

    async fn patch(&self, kind: Kind, media: &str, query: &str, patch: &Value) -> Result<(), ClusterError> {
        match self.call(kind, Method::PATCH, query, Some((media, patch.to_string()))).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == StatusCode::CONFLICT.as_u16() => {
                Err(ClusterError::Conflict)
            }
            Err(e) => Err(self.explain(kind, "patch", &e)),
        }
    }

    async fn call(
        &self,
        kind: Kind,
        method: Method,
        query: &str,
        body: Option<(&str, String)>,
    ) -> Result<String, kube::Error> {
        let (path, name) = self.path(kind);
        let mut request = Request::builder().method(method).uri(format!("{path}/{name}{query}"));
        if let Some((media, _)) = body {
            request = request.header(http::header::CONTENT_TYPE, media);
        }
        let body = body.map(|(_, body)| body.into_bytes()).unwrap_or_default();
        let request = request.body(body).map_err(kube::Error::HttpError)?;
        timeout(CALL, self.client.request_text(request)).await.unwrap_or_else(|_| Err(no_answer()))
    }

    /// The path of the collection, and the name in it.
    fn path(&self, kind: Kind) -> (String, &str) {
        match kind {
            Kind::Secret => (format!("/api/v1/namespaces/{}/secrets", self.namespace), &self.secret),
            Kind::Configuration => (
                "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations".into(),
                &self.configuration,
            ),
        }
    }

    fn explain(&self, kind: Kind, verb: &str, error: &kube::Error) -> ClusterError {
        let mut reasons = vec![match error {
            kube::Error::Api(status) => status.message.clone(),
            other => other.to_string(),
        }];
        // The first source is in kube's own message already.
        let causes = successors(error.source().and_then(Error::source), |cause| (*cause).source());
        reasons.extend(causes.map(ToString::to_string));
        ClusterError::Failed(format!("{verb} {}: {}", self.describe(kind), reasons.join(": ")))
    }
}

fn no_answer() -> kube::Error {
    kube::Error::Service(format!("no answer within {CALL:?}").into())
}

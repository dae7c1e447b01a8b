//! The caBundles of a `MutatingWebhookConfiguration`.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ca_bundle::CaBundle;
use crate::certificate::Certificate;

/// A `MutatingWebhookConfiguration`. The default value means that it doesn't exist.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "ConfigurationObject")]
pub(super) struct WebhookConfiguration {
    uid: String,
    /// The API server increments it when a webhook of the configuration changes.
    generation: i64,
    resource_version: String,
    bundles: Vec<CaBundle>,
}

#[derive(Deserialize)]
struct ConfigurationObject {
    metadata: ConfigurationMetadata,
    webhooks: Option<Vec<WebhookEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigurationMetadata {
    uid: String,
    resource_version: String,
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WebhookEntry {
    client_config: ClientConfig,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClientConfig {
    #[serde(default)]
    ca_bundle: String,
}

impl From<ConfigurationObject> for WebhookConfiguration {
    fn from(object: ConfigurationObject) -> Self {
        let bundles =
            object.webhooks.into_iter().flatten().map(|webhook| {
                CaBundle::new(BASE64.decode(webhook.client_config.ca_bundle).unwrap_or_default())
            });
        let ConfigurationMetadata { uid, resource_version, generation } = object.metadata;
        Self::new(uid, generation, resource_version, bundles.collect())
    }
}

impl WebhookConfiguration {
    pub(super) fn new(
        uid: String,
        generation: i64,
        resource_version: String,
        bundles: Vec<CaBundle>,
    ) -> Self {
        Self { uid, generation, resource_version, bundles }
    }

    pub(super) fn exists(&self) -> bool {
        !self.uid.is_empty()
    }

    pub(super) fn uid(&self) -> &str {
        &self.uid
    }

    pub(super) fn generation(&self) -> i64 {
        self.generation
    }

    /// Whether any webhook trusts `ca`.
    pub(super) fn trusts(&self, ca: &Certificate) -> bool {
        self.bundles.iter().any(|bundle| bundle.contains(ca))
    }

    /// The CAs of every webhook, one after the other.
    pub(super) fn cas(&self) -> impl Iterator<Item = &Certificate> {
        self.bundles.iter().flat_map(CaBundle::certificates)
    }

    /// The CAs that every webhook trusts.
    pub(super) fn common_cas(&self) -> impl Iterator<Item = &Certificate> {
        let first = self.bundles.first().into_iter().flat_map(CaBundle::certificates);
        first.filter(|ca| self.bundles.iter().all(|bundle| bundle.contains(ca)))
    }

    /// The caBundles that change if they contain `required` and don't contain `obsolete`, by the index of their webhook.
    pub(super) fn edited_bundles(
        &self,
        required: &[&Certificate],
        obsolete: &[&Certificate],
    ) -> Vec<(usize, String)> {
        let bundles = self.bundles.iter().enumerate();
        bundles.filter_map(|(i, bundle)| Some((i, bundle.edited(required, obsolete)?))).collect()
    }

    /// The JSON Patch that replaces `bundles`. It conflicts with every other write since this version was read.
    pub(super) fn patch(&self, bundles: &[(usize, String)]) -> Value {
        let version =
            json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": self.resource_version });
        let operations = bundles.iter().map(|(i, text)| {
            let path = format!("/webhooks/{i}/clientConfig/caBundle");
            json!({ "op": "add", "path": path, "value": BASE64.encode(text) })
        });
        [version].into_iter().chain(operations).collect()
    }
}

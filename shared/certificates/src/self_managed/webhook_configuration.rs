//! The caBundles of a `MutatingWebhookConfiguration`.

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ca_bundle::CaBundle;
use crate::certificate::Certificate;

/// A `MutatingWebhookConfiguration`. The default value means that it doesn't exist.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(from = "Value")]
pub(super) struct WebhookConfiguration {
    uid: String,
    /// The API server increments it when a webhook of the configuration changes.
    generation: i64,
    resource_version: String,
    bundles: Vec<CaBundle>,
}

impl From<Value> for WebhookConfiguration {
    fn from(object: Value) -> Self {
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let webhooks = object.get("webhooks").and_then(Value::as_array).into_iter().flatten();
        let bundles = webhooks.map(|webhook| {
            let base64 = text(webhook.pointer("/clientConfig/caBundle"));
            CaBundle::new(BASE64.decode(base64).unwrap_or_default())
        });
        Self::new(
            text(object.pointer("/metadata/uid")),
            object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default(),
            text(object.pointer("/metadata/resourceVersion")),
            bundles.collect(),
        )
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

//! Server-side apply of one `PodDistributor`.

use anyhow::{Context, anyhow, bail, ensure};
use kube::Client;
use podshaper_kube::error::describe;
use podshaper_kube::request::{MediaType, get, send};
use podshaper_offline::yaml;
use serde::Deserialize;
use serde_json::Value;

/// The owner of the fields that the page applies.
const FIELD_MANAGER: &str = "kubectl-podshaper";
const API_VERSION: &str = "versprei.versprei.io/v1beta1";

/// The body of `/apply`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Apply {
    manifest: Value,
    dry_run: bool,
}

impl Apply {
    /// Applies the manifest, or shows what that would change. Returns the change as a unified diff, which is empty if there is none.
    ///
    /// # Errors
    /// The manifest is not that of a `PodDistributor`, or the API server refuses it.
    pub(super) async fn run(&self, client: &Client) -> anyhow::Result<String> {
        let path = path(&self.manifest)?;
        let before: Option<Value> =
            get(client, &path).await.map_err(|error| anyhow!("{}", describe(&error)))?;
        let dry_run = if self.dry_run { "&dryRun=All" } else { "" };
        let uri = format!("{path}?fieldManager={FIELD_MANAGER}&fieldValidation=Strict{dry_run}");
        let after = send(client, "PATCH", &uri, MediaType::ApplyPatch, &self.manifest).await;
        let after = after.map_err(|error| anyhow!("{}", describe(&error)))?;
        let after: Value = serde_json::from_str(&after).context("the API server's response is no JSON")?;
        Ok(diff(before.as_ref(), &after))
    }
}

/// The path of the object. Names are checked first, because the path is of a request with the user's rights.
fn path(manifest: &Value) -> anyhow::Result<String> {
    let text = |pointer: &str| manifest.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if (text("/apiVersion"), text("/kind")) != (API_VERSION, "PodDistributor") {
        bail!("the page applies PodDistributors of {API_VERSION} only");
    }
    let namespace = text("/metadata/namespace");
    let name = text("/metadata/name");
    ensure!(is_name(namespace, 63), "metadata.namespace: {namespace:?} is not the name of a namespace");
    ensure!(
        is_name(name, 253),
        "metadata.name: {name:?} is not a name: lower-case letters, digits, '-' and '.'"
    );
    Ok(format!("/apis/{API_VERSION}/namespaces/{namespace}/poddistributors/{name}"))
}

/// RFC 1123 subdomain (`IsDNS1123Subdomain` of apimachinery).
fn is_name(text: &str, longest: usize) -> bool {
    let is_label = |label: &str| {
        let inner =
            label.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        !label.is_empty() && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= longest && text.split('.').all(is_label)
}

/// The difference in what users write: labels, annotations and spec.
fn diff(before: Option<&Value>, after: &Value) -> String {
    let written = |object: &Value| {
        let part = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        let parts =
            [("labels", "/metadata/labels"), ("annotations", "/metadata/annotations"), ("spec", "/spec")];
        let parts = parts.map(|(name, pointer)| (name.to_owned(), part(pointer)));
        yaml::to_string(&parts.into_iter().filter(|(_, value)| !value.is_null()).collect())
    };
    let before = before.map(written).unwrap_or_default();
    let after = written(after);
    if before == after {
        return String::new();
    }
    let patch = diffy::create_patch(&before, &after).to_string();
    // Without the names of the files.
    patch.lines().skip(2).fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use podshaper_testing::InMemoryApiServer;
    use serde_json::json;

    use super::*;

    fn manifest(weight: u32) -> Value {
        json!({
            "apiVersion": API_VERSION, "kind": "PodDistributor", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"distribution": [{"nodeLabel": {"type": "spot"}, "weight": weight}], "target": {"name": "web"}},
        })
    }

    #[test]
    fn other_objects_and_names_are_refused() {
        for (pointer, value) in [
            ("/kind", "Secret"),
            ("/apiVersion", "v1"),
            ("/metadata/name", "../../secrets/a"),
            ("/metadata/name", ""),
            ("/metadata/name", "web?force=true"),
            ("/metadata/namespace", "kube-system/pods"),
            ("/metadata/namespace", "-a"),
        ] {
            let mut manifest = manifest(1);
            *manifest.pointer_mut(pointer).unwrap() = json!(value);
            assert!(path(&manifest).is_err(), "{pointer} {value}");
        }
        assert!(path(&manifest(1)).unwrap().ends_with("/v1beta1/namespaces/shop/poddistributors/web"));
    }

    #[test]
    fn diff_has_the_lines_that_change() {
        let text = diff(Some(&manifest(1)), &manifest(2));
        assert!(text.contains("\n-") && text.contains("weight: 1") && text.contains("weight: 2"), "{text}");
        assert_eq!(diff(Some(&manifest(1)), &manifest(1)), "");
        assert!(diff(None, &manifest(1)).lines().skip(1).all(|line| line.starts_with('+')));
    }

    #[tokio::test]
    async fn apply_creates_the_object() {
        let server = InMemoryApiServer::default();
        let apply = Apply { manifest: manifest(80), dry_run: false };
        assert!(apply.run(&server.client()).await.unwrap().contains("weight: 80"));
        let stored = server.get("/apis/versprei.versprei.io/v1beta1/namespaces/shop/poddistributors/web");
        assert_eq!(stored["spec"]["distribution"][0]["weight"], 80);
    }

    #[test]
    fn unknown_field_of_the_body_is_refused() {
        let body = r#"{"manifest": {}, "dryRun": true, "force": true}"#;
        assert!(serde_json::from_str::<Apply>(body).is_err());
    }
}

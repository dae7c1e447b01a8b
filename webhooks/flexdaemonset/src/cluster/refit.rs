//! What is done to running pods: written patches, and evictions.

use kube::Client;
use podshaper_kube::request::{Media, send};
use serde_json::{Value, json};

use flexdaemonset_decision::memory::ANNOTATION;
use flexdaemonset_decision::template::{API_VERSION, PLURAL, TemplateStatus};

/// Resizes a pod in place.
pub(super) async fn resize(client: &Client, key: &str, patch: &Value) -> kube::Result<()> {
    write(client, "PATCH", key, "/resize", Media::StrategicMergePatch, patch).await
}

/// Has a pod remember what it had asked for, before that changes.
pub(super) async fn remember(client: &Client, key: &str, uid: &str, memory: &str) -> kube::Result<()> {
    let patch = json!({"metadata": {"uid": uid, "annotations": {ANNOTATION: memory}}});
    write(client, "PATCH", key, "", Media::MergePatch, &patch).await
}

/// Evicts a pod, as far as disruption budgets allow; its `DaemonSet` creates it anew.
pub(super) async fn evict(client: &Client, key: &str, uid: &str) -> kube::Result<()> {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": name},
        "deleteOptions": {"preconditions": {"uid": uid}},
    });
    write(client, "POST", key, "/eviction", Media::Json, &eviction).await
}

/// Writes the status of a template.
pub(super) async fn write_status(client: &Client, name: &str, status: &TemplateStatus) -> kube::Result<()> {
    let uri = format!("/apis/{API_VERSION}/{PLURAL}/{name}/status");
    send(client, "PATCH", &uri, Media::MergePatch, &json!({"status": status})).await.map(drop)
}

async fn write(
    client: &Client,
    method: &str,
    key: &str,
    sub: &str,
    media: Media,
    body: &Value,
) -> kube::Result<()> {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}{sub}");
    send(client, method, &path, media, body).await.map(drop)
}

//! What is done to running pods: written patches, and evictions.

use http::Request;
use kube::Client;
use serde_json::{Value, json};
use std::time::Duration;

use crate::memory::ANNOTATION;

/// A write that takes longer is given up, and tried again later.
const PATIENCE: Duration = Duration::from_secs(10);

/// Resizes a pod in place.
pub(super) async fn resize(client: &Client, key: &str, patch: &Value) -> kube::Result<()> {
    write(client, "PATCH", key, "/resize", "application/strategic-merge-patch+json", patch).await
}

/// Has a pod remember what it had asked for, before that changes.
pub(super) async fn remember(client: &Client, key: &str, uid: &str, memory: &str) -> kube::Result<()> {
    let patch = json!({"metadata": {"uid": uid, "annotations": {ANNOTATION: memory}}});
    write(client, "PATCH", key, "", "application/merge-patch+json", &patch).await
}

/// Evicts a pod, as far as disruption budgets allow; its `DaemonSet` creates it anew.
pub(super) async fn evict(client: &Client, key: &str, uid: &str) -> kube::Result<()> {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": name},
        "deleteOptions": {"preconditions": {"uid": uid}},
    });
    write(client, "POST", key, "/eviction", "application/json", &eviction).await
}

/// Writes the status of a template.
pub(super) async fn write_status(client: &Client, name: &str, status: &Value) -> kube::Result<()> {
    let uri = format!("/apis/flexdaemonsets.xai/v1alpha1/{}/{name}/status", crate::template::PLURAL);
    send(client, "PATCH", uri, "application/merge-patch+json", &json!({"status": status})).await
}

async fn write(
    client: &Client,
    method: &str,
    key: &str,
    sub: &str,
    media: &str,
    body: &Value,
) -> kube::Result<()> {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    send(client, method, format!("/api/v1/namespaces/{namespace}/pods/{name}{sub}"), media, body).await
}

async fn send(client: &Client, method: &str, uri: String, media: &str, body: &Value) -> kube::Result<()> {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header(http::header::CONTENT_TYPE, media)
        .body(body.to_string().into_bytes())
        .map_err(kube::Error::HttpError)?;
    let answer = tokio::time::timeout(PATIENCE, client.request_text(request)).await;
    answer.map_err(|elapsed| kube::Error::Service(elapsed.into()))?.map(|_| ())
}

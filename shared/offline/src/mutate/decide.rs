//! Asking the webhook, by the same `AdmissionReview` that the API server would send, so that the answer is the server's.

use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::defaults::requests_from_limits;
use super::subjects::Subject;
use podshaper_core::admission::{Outcome, Request, Response, Webhook, answer};
use podshaper_core::json::Text;

/// Nobody waits with a timeout here.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a webhook said.
#[derive(Debug)]
pub(super) struct Decision {
    pub(super) outcome: Outcome,
    /// RFC 6902 operations on the pod.
    pub(super) patch: Vec<Value>,
    /// Of an object that nothing could be decided about, the first is why.
    pub(super) warnings: Vec<String>,
    /// Why it was denied.
    pub(super) denial: Option<String>,
    /// The `AdmissionReview` that the server would send.
    pub(super) review: Vec<u8>,
}

/// Asks `webhook` by the `AdmissionReview` that `review` is.
///
/// An error is a review that can't be answered.
pub(super) async fn decide<W: Webhook>(webhook: &W, review: &str) -> anyhow::Result<Decision> {
    let answer = answer(webhook, review.as_bytes(), Instant::now() + PATIENCE).await?;
    let Response { denial, warnings, patch } = answer.response()?;
    Ok(Decision { outcome: answer.outcome, patch, warnings, denial, review: answer.body })
}

/// The review that the API server would send about the pod of `subject`, and the operations on the pod by which it fills in
/// what isn't said. `namespace` is for an object that names none.
pub(super) fn review(
    document: &Value,
    subject: &Subject,
    namespace: &str,
) -> anyhow::Result<(String, Vec<Value>)> {
    let pod = document.pointer(&format!("{}{}", subject.at, subject.pod)).and_then(Value::as_object);
    let filled = pod.map(requests_from_limits).unwrap_or_default();
    // A template, and an item of a PodList, don't say what they are.
    let mut object = json!({"apiVersion": "v1", "kind": "Pod"});
    if let Some(object) = object.as_object_mut() {
        object.extend(pod.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())));
        own(object, subject);
    }
    apply(&filled, &mut object).context("the API server's defaults do not apply")?;
    Ok((creation("v1", "Pod", &object, subject, namespace)?, filled))
}

/// The review about the workload that `subject` is.
pub(super) fn workload_review(
    document: &Value,
    subject: &Subject,
    namespace: &str,
) -> anyhow::Result<String> {
    let Subject { api_version, kind, .. } = subject;
    // An item of a typed list doesn't say what it is.
    let mut object = document.pointer(subject.at.as_str()).cloned().unwrap_or_default();
    if let Some(object) = object.as_object_mut() {
        object.insert("apiVersion".to_owned(), json!(api_version));
        object.insert("kind".to_owned(), json!(kind));
    }
    creation(api_version, kind, &object, subject, namespace)
}

fn creation(
    api_version: &str,
    kind: &str,
    object: &Value,
    subject: &Subject,
    namespace: &str,
) -> anyhow::Result<String> {
    let namespace = subject.namespace.as_deref().unwrap_or(namespace);
    let name = object.pointer("/metadata/name").and_then(Value::as_str).map(Text::from);
    Ok(Request { name, ..Request::create(api_version, kind, namespace, object) }.to_review()?)
}

/// Applies RFC 6902 operations.
pub(super) fn apply(operations: &[Value], to: &mut Value) -> anyhow::Result<()> {
    let patch: json_patch::Patch = serde_json::from_value(operations.into())?;
    Ok(json_patch::patch(to, &patch)?)
}

/// The pod of a template is its workload's, as the controller would have it.
///
/// (That of a Deployment is a ReplicaSet's, which nobody knows yet: it stays without an owner.)
fn own(pod: &mut Map<String, Value>, subject: &Subject) {
    let Subject { api_version, kind, name, .. } = subject;
    if !matches!(
        (&**api_version, &**kind),
        ("apps/v1", "DaemonSet" | "StatefulSet" | "ReplicaSet") | ("batch/v1", "Job")
    ) {
        return;
    }
    // What a patch finds in the pod must be in the document: nothing is added but to what stands.
    if let Some(metadata) = pod.get_mut("metadata").and_then(Value::as_object_mut) {
        let owner =
            json!({"apiVersion": api_version, "kind": kind, "name": name, "uid": "", "controller": true});
        metadata.entry("ownerReferences").or_insert_with(|| json!([owner]));
    }
}

/// The operations of `patch` with their paths counted from `base`.
pub(super) fn rebase(patch: &[Value], base: &str) -> Vec<Value> {
    let mut patch = patch.to_vec();
    for path in patch.iter_mut().filter_map(Value::as_object_mut).flatten() {
        if let ("path" | "from", Value::String(path)) = (path.0.as_str(), path.1) {
            path.insert_str(0, base);
        }
    }
    patch
}

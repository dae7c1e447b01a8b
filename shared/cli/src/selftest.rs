//! `PROGRAM selftest` checks the installed webhook; `helm test` runs it.
//!
//! The API server creates a pod in a dry run. It calls the webhook as for any pod: through selectors, match conditions, the
//! Service, the certificate and the CA bundle. The self-test compares the created pod with the decision that this binary makes.

use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use clap::Args;
use http_body_util::BodyExt;
use json_patch::PatchOperation;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use podshaper_core::admission;
use podshaper_core::admission::{Request, Webhook};
use podshaper_kube::client;
use podshaper_kube::error::describe;
use podshaper_kube::request::get;
use podshaper_offline::block_on;
use podshaper_offline::console::Console;

/// How long the decision and the request to the API server may take, each.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Check the installed webhook: create a pod in a dry run
#[derive(Debug, Args)]
pub(crate) struct Selftest<O: Args> {
    #[command(flatten)]
    options: O,
    /// Namespace of the pod; the dry run stores nothing there
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// Pod that the webhook changes, in JSON
    #[arg(long, value_name = "JSON")]
    pod: String,
    /// Node of the pod, if the webhook needs one
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// API path of the pod's controller, if the webhook needs one, such as /apis/apps/v1/namespaces/NS/daemonsets/NAME
    #[arg(long, value_name = "PATH")]
    owner: Option<String>,
}

impl<O: Args> Selftest<O> {
    /// Creates the pod and compares it with the decision of the webhook that `webhook` builds.
    pub(crate) fn run<W: Webhook>(
        self,
        name: &str,
        console: &mut Console<'_>,
        webhook: impl FnOnce(O) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        let (changes, warnings) = block_on(self.test(name, webhook))?;
        Ok(writeln!(
            console.stdout,
            "{name} changed the pod as expected: {changes} changes, {warnings} warnings"
        )?)
    }

    /// Returns the numbers of changes and warnings.
    async fn test<W: Webhook>(
        self,
        name: &str,
        webhook: impl FnOnce(O) -> anyhow::Result<W>,
    ) -> anyhow::Result<(usize, usize)> {
        let mut pod: Value = serde_json::from_str(&self.pod).context("--pod is not JSON")?;
        if let (Some(node), Some(spec)) = (self.node, pod.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.insert("nodeName".to_owned(), node.into());
        }
        let client = client::in_cluster().context("the self-test must run in a pod of the cluster")?;
        if let (Some(path), Some(metadata)) =
            (self.owner, pod.get_mut("metadata").and_then(Value::as_object_mut))
        {
            metadata.insert("ownerReferences".to_owned(), json!([owner_reference(&client, &path).await?]));
        }
        let (patch, warnings) = decide(&webhook(self.options)?, &pod, &self.namespace).await?;
        ensure!(
            !patch.is_empty() || !warnings.is_empty(),
            "{name} doesn't change the pod: --pod must name one that it changes"
        );
        let url = format!("/api/v1/namespaces/{}/pods?dryRun=All", self.namespace);
        let request = http::Request::post(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&pod)?)
            .context("--namespace is not a valid name")?;
        let (returned, created) = tokio::time::timeout(TIMEOUT, create(&client, request))
            .await
            .context("the API server did not answer in time")?
            .context("the API server rejected the pod")?;
        for warning in &warnings {
            ensure!(
                returned.contains(warning),
                "the API server didn't return the warning of {name}: {warning}"
            );
        }
        let mut expected = pod;
        json_patch::patch(&mut expected, &patch)
            .context("the patch of the decision doesn't apply to the pod")?;
        for operation in patch.iter() {
            check(operation, &expected, &created)
                .with_context(|| format!("the created pod lacks a change of {name}"))?;
        }
        Ok((patch.len(), warnings.len()))
    }
}

/// A reference to the object at `path` as a controller (`metav1.OwnerReference`).
async fn owner_reference(client: &Client, path: &str) -> anyhow::Result<Value> {
    let object: Option<Value> =
        get(client, path).await.map_err(|error| anyhow!("can't read {path}: {}", describe(&error)))?;
    let object = object.with_context(|| format!("{path} doesn't exist"))?;
    let field = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    Ok(json!({
        "apiVersion": field("/apiVersion"), "kind": field("/kind"), "name": field("/metadata/name"), "uid": field("/metadata/uid"),
        "controller": true,
    }))
}

/// Returns the warnings of the API server, and the pod as it would be stored.
async fn create(client: &Client, request: http::Request<Vec<u8>>) -> anyhow::Result<(String, Value)> {
    let answer =
        client.send(request.map(Body::from)).await.map_err(|error| anyhow!("{}", describe(&error)))?;
    let (parts, body) = answer.into_parts();
    let body: Value = serde_json::from_str(std::str::from_utf8(&body.collect().await?.to_bytes())?)?;
    if !parts.status.is_success() {
        let message = body.get("message").and_then(Value::as_str);
        bail!("{}", message.unwrap_or(parts.status.as_str()));
    }
    // A warning is a quoted string with backslash escapes (RFC 7234 section 5.5).
    let warnings = parts.headers.get_all(http::header::WARNING).iter();
    let warnings = warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).replace('\\', ""));
    Ok((warnings.collect::<Vec<_>>().join("\n"), body))
}

/// Returns the patch and the warnings of the webhook for the creation of `pod`.
async fn decide<W: Webhook>(
    webhook: &W,
    pod: &Value,
    namespace: &str,
) -> anyhow::Result<(json_patch::Patch, Vec<String>)> {
    let review = Request::create("v1", "Pod", namespace, pod).to_review()?;
    let answer = admission::answer(webhook, review.as_bytes(), Instant::now() + TIMEOUT).await?;
    let response = answer.response()?;
    if let Some(reason) = response.denial {
        bail!("the webhook denies the pod: {reason}");
    }
    let patch = response.patch.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    Ok((json_patch::Patch(patch), response.warnings))
}

/// Checks that the created pod has the value that one operation of the patch has set.
fn check(operation: &PatchOperation, expected: &Value, created: &Value) -> anyhow::Result<()> {
    let path = operation.path().as_str();
    let wanted = expected.pointer(path);
    let actual = created.pointer(path);
    let applied = match (wanted, actual) {
        (Some(wanted), Some(actual)) => contains(actual, wanted),
        // The API server may serialize an absent object as an empty one.
        (None, actual) => actual.is_none_or(|actual| actual == &json!({})),
        (Some(_), None) => false,
    };
    let or_null = |value: Option<&Value>| value.unwrap_or(&Value::Null).to_string();
    ensure!(applied, "{path} should be {}, and is {}", or_null(wanted), or_null(actual));
    Ok(())
}

/// Whether `actual` has everything that `wanted` has. Other admission plugins may add to an object.
fn contains(actual: &Value, wanted: &Value) -> bool {
    match (actual, wanted) {
        (Value::Object(actual), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| actual.get(key).is_some_and(|actual| contains(actual, value)))
        }
        _ => actual == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_change_is_an_error() {
        let patch: json_patch::Patch = serde_json::from_value(
            json!([{"op": "add", "path": "/a", "value": {"b": "1"}}, {"op": "remove", "path": "/c"}]),
        )
        .unwrap();
        let expected = json!({"a": {"b": "1"}});
        let errors = |created: Value| -> Vec<String> {
            patch.iter().filter_map(|o| check(o, &expected, &created).err()).map(|e| e.to_string()).collect()
        };
        assert_eq!(errors(json!({"a": {"b": "1", "more": 2}, "c": {}})), Vec::<String>::new());
        assert_eq!(errors(json!({"a": {"b": "2"}})), [r#"/a should be {"b":"1"}, and is {"b":"2"}"#]);
        assert_eq!(errors(json!({"a": {"b": "1"}, "c": {"d": 1}})), [r#"/c should be null, and is {"d":1}"#]);
    }
}

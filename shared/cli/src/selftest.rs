//! `NAME selftest`: what `helm test` runs.
//!
//! Has the API server create a pod in a dry run, which takes the whole way of a real one (selectors, conditions,
//! Service, certificate, CA bundle), and compares what comes back with what this binary decides by itself.

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

/// How long one try may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Send a pod through the installed webhook, in a dry run
#[derive(Debug, Args)]
pub(crate) struct Selftest<O: Args> {
    #[command(flatten)]
    options: O,
    /// The namespace that the pod is for; nothing is stored there
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    namespace: String,
    /// The pod, as JSON: one that the webhook changes
    #[arg(long, value_name = "JSON")]
    pod: String,
    /// The node that the pod is for, where the webhook wants one
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Where the API server has the object that controls the pod, where the webhook wants one
    #[arg(long, value_name = "PATH")]
    owner: Option<String>,
}

impl<O: Args> Selftest<O> {
    /// Sends the pod through the webhook `name`, and through the one that `webhook` makes of its options.
    pub(crate) fn run<W: Webhook>(
        self,
        name: &str,
        console: &mut Console<'_>,
        webhook: impl FnOnce(O) -> anyhow::Result<W>,
    ) -> anyhow::Result<()> {
        let (changes, warnings) = block_on(self.test(name, webhook))?;
        Ok(writeln!(
            console.stdout,
            "{name} changed the pod in {changes} places and gave {warnings} warnings, as it should"
        )?)
    }

    /// The numbers of changes and of warnings that came back as they should.
    async fn test<W: Webhook>(
        self,
        name: &str,
        webhook: impl FnOnce(O) -> anyhow::Result<W>,
    ) -> anyhow::Result<(usize, usize)> {
        let mut pod: Value = serde_json::from_str(&self.pod).context("--pod is not JSON")?;
        if let (Some(node), Some(spec)) = (self.node, pod.get_mut("spec").and_then(Value::as_object_mut)) {
            spec.insert("nodeName".to_owned(), node.into());
        }
        let client = client::in_cluster().context("the test runs in a pod of the cluster")?;
        if let (Some(path), Some(metadata)) =
            (self.owner, pod.get_mut("metadata").and_then(Value::as_object_mut))
        {
            metadata.insert("ownerReferences".to_owned(), json!([controller(&client, &path).await?]));
        }
        let (patch, warnings) = decide(&webhook(self.options)?, &pod, &self.namespace).await?;
        let silent = patch.is_empty() && warnings.is_empty();
        ensure!(!silent, "{name} doesn't change this pod: --pod needs one that it changes");
        let url = format!("/api/v1/namespaces/{}/pods?dryRun=All", self.namespace);
        let request = http::Request::post(url)
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(serde_json::to_vec(&pod)?)
            .context("--namespace is no name of a namespace")?;
        let (told, created) = tokio::time::timeout(PATIENCE, create(&client, request))
            .await
            .context("the API server doesn't answer")?
            .context("the API server refused the pod")?;
        for warning in &warnings {
            ensure!(told.contains(warning), "the pod came back without the warning of {name}: {warning}");
        }
        let mut expected = pod;
        json_patch::patch(&mut expected, &patch).context("the decision doesn't apply to the pod")?;
        for operation in patch.iter() {
            check(operation, &expected, &created)
                .with_context(|| format!("the pod came back without the change of {name}"))?;
        }
        Ok((patch.len(), warnings.len()))
    }
}

/// What names the object at `path` as a pod's controller (`metav1.OwnerReference`).
async fn controller(client: &Client, path: &str) -> anyhow::Result<Value> {
    let object: Option<Value> =
        get(client, path).await.map_err(|error| anyhow!("can't read {path}: {}", describe(&error)))?;
    let object = object.with_context(|| format!("there is no {path}"))?;
    let field = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
    Ok(json!({
        "apiVersion": field("/apiVersion"), "kind": field("/kind"), "name": field("/metadata/name"), "uid": field("/metadata/uid"),
        "controller": true,
    }))
}

/// What the API server warns of, and the pod as it would be stored.
async fn create(client: &Client, request: http::Request<Vec<u8>>) -> anyhow::Result<(String, Value)> {
    let answer =
        client.send(request.map(Body::from)).await.map_err(|error| anyhow!("{}", describe(&error)))?;
    let (parts, body) = answer.into_parts();
    let body: Value = serde_json::from_str(std::str::from_utf8(&body.collect().await?.to_bytes())?)?;
    if !parts.status.is_success() {
        let message = body.get("message").and_then(Value::as_str);
        bail!("{}", message.unwrap_or(parts.status.as_str()));
    }
    // RFC 9110's predecessor, 7234 section 5.5: a quoted string, escaped by backslashes.
    let warnings = parts.headers.get_all(http::header::WARNING).iter();
    let warnings = warnings.map(|warning| String::from_utf8_lossy(warning.as_bytes()).replace('\\', ""));
    Ok((warnings.collect::<Vec<_>>().join("\n"), body))
}

/// What the webhook makes of `pod`: its patch, and its warnings.
async fn decide<W: Webhook>(
    webhook: &W,
    pod: &Value,
    namespace: &str,
) -> anyhow::Result<(json_patch::Patch, Vec<String>)> {
    let review = Request::create("v1", "Pod", namespace, pod).to_review()?;
    let answer = admission::answer(webhook, review.as_bytes(), Instant::now() + PATIENCE).await?;
    let response = answer.response()?;
    if let Some(reason) = response.denial {
        bail!("the webhook would deny this pod: {reason}");
    }
    let patch = response.patch.into_iter().map(serde_json::from_value).collect::<Result<_, _>>()?;
    Ok((json_patch::Patch(patch), response.warnings))
}

/// Whether one operation shows in the created pod.
fn check(operation: &PatchOperation, expected: &Value, created: &Value) -> anyhow::Result<()> {
    let path = operation.path().as_str();
    let (wanted, got) = (expected.pointer(path), created.pointer(path));
    let shows = match (wanted, got) {
        (Some(wanted), Some(got)) => contains(got, wanted),
        // What is removed may stand empty in the API server's own form of the object.
        (None, got) => got.is_none_or(|got| got == &json!({})),
        (Some(_), None) => false,
    };
    ensure!(
        shows,
        "{path} should be {}, and is {}",
        wanted.unwrap_or(&Value::Null),
        got.unwrap_or(&Value::Null)
    );
    Ok(())
}

/// Whether `got` has all that `wanted` has: admission may add to an object.
fn contains(got: &Value, wanted: &Value) -> bool {
    match (got, wanted) {
        (Value::Object(got), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| got.get(key).is_some_and(|got| contains(got, value)))
        }
        _ => got == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_does_not_show_is_told() {
        let patch: json_patch::Patch = serde_json::from_value(
            json!([{"op": "add", "path": "/a", "value": {"b": "1"}}, {"op": "remove", "path": "/c"}]),
        )
        .unwrap();
        let expected = json!({"a": {"b": "1"}});
        let told = |created: Value| -> Vec<String> {
            patch.iter().filter_map(|o| check(o, &expected, &created).err()).map(|e| e.to_string()).collect()
        };
        assert_eq!(told(json!({"a": {"b": "1", "more": 2}, "c": {}})), Vec::<String>::new());
        assert_eq!(told(json!({"a": {"b": "2"}})), [r#"/a should be {"b":"1"}, and is {"b":"2"}"#]);
        assert_eq!(told(json!({"a": {"b": "1"}, "c": {"d": 1}})), [r#"/c should be null, and is {"d":1}"#]);
    }
}

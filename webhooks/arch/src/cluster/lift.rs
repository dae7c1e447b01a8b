//! Lets pods go once their images are known, or they have waited for long enough.
//!
//! Every replica does so. Who comes second finds that the pod has changed: each patch names the version that it is for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Error};
use podshaper::admission::{Decision, Verdict};
use podshaper::api_server::{Media, get, send};
use podshaper::cluster::{Scope, Store, follow};
use podshaper::patch::Pointer;
use podshaper::pod::Pod;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::gated::GatedPod;
use crate::affinity::Stage;
use crate::decide::ANNOTATION;
use crate::gate::{LABEL, gate_of};
use crate::images::{Images, Knowledge, Known};
use crate::webhook::Arch;

/// Between two looks at those that still wait.
const PACE: Duration = Duration::from_secs(2);
/// How long the registries of one pod are waited for; what isn't there by then is looked at next time.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lets pods go.
pub(crate) struct Lifter<I> {
    client: Client,
    arch: Arch<I>,
    max_age: Duration,
}

impl<I: Images> Lifter<I> {
    pub(crate) fn new(client: Client, arch: Arch<I>, max_age: Duration) -> Self {
        Self { client, arch, max_age }
    }

    /// Does so for ever. Rights: get, list, watch and patch pods.
    pub(crate) async fn run(self) {
        let store = Arc::new(Store::<GatedPod>::default());
        let mut changes = store.changes();
        let scope = Scope { namespace: None, labels: format!("{LABEL}=true") };
        tokio::spawn(follow(self.client.clone(), scope, Arc::clone(&store)));
        loop {
            changes.mark_unchanged();
            for (key, pod) in store.all() {
                if let Err(error) = self.look(&key, &pod).await {
                    tracing::warn!(pod = &*key, %error, "can't let a pod go");
                }
            }
            if store.is_empty() {
                // An error is the end of the store, and it is ours.
                let _ = changes.changed().await;
            } else {
                let _ = timeout(PACE, async {
                    let _ = changes.changed().await;
                    // A burst of pods is looked at once.
                    sleep(PACE / 20).await;
                })
                .await;
            }
        }
    }

    async fn look(&self, key: &str, gated: &GatedPod) -> kube::Result<()> {
        let Some((namespace, name)) = key.split_once('/') else { return Ok(()) };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let Some(object) = get::<Value>(&self.client, &path).await? else { return Ok(()) };
        let text = object.to_string();
        let pod: Pod<'_> = serde_json::from_str(&text).map_err(Error::SerdeError)?;
        let is_same = object.pointer("/metadata/uid").and_then(Value::as_str) == Some(&*gated.uid);
        let Some(gate) = gate_of(&pod).filter(|_| is_same) else { return Ok(()) };

        let known = self.arch.known(&pod, namespace, Instant::now() + PATIENCE).await;
        let complete = known.as_ref().is_none_or(|(_, known)| is_complete(known));
        if !complete && !has_waited(gated, self.max_age, Timestamp::now()) {
            return Ok(());
        }
        let decision = self.arch.decide_by(known.as_ref(), &pod, Stage::Gated);
        let version = object.pointer("/metadata/resourceVersion").cloned().unwrap_or_default();
        let Some(operations) = operations(&pod, gate, &version, &decision) else { return Ok(()) };
        match send(&self.client, "PATCH", &path, Media::JsonPatch, &operations).await {
            Ok(_) => {
                tracing::info!(pod = key, complete, "a pod doesn't wait any more");
                Ok(())
            }
            // Another was faster, or the pod is gone.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
                tracing::debug!(pod = key, %status, "a pod has changed meanwhile");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the pod has waited for long enough; so has one of which nobody can tell.
fn has_waited(gated: &GatedPod, longest: Duration, now: Timestamp) -> bool {
    gated.created.is_none_or(|created| now.duration_since(created).unsigned_abs() >= longest)
}

fn is_complete(known: &Known) -> bool {
    known.images.iter().all(|image| matches!(image, Knowledge::Known(_)))
}

/// What is sent for a decision; none where there is nothing to do: a pod that would be refused keeps waiting, and says why.
fn operations(pod: &Pod<'_>, gate: usize, version: &Value, decision: &Decision) -> Option<Vec<Value>> {
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    if let Verdict::Deny(reason) = &decision.verdict {
        if pod.annotation(ANNOTATION) == Some(reason) {
            return None;
        }
        let mut patch = podshaper::pod::PodPatch::new(pod);
        patch.set_annotation(ANNOTATION, reason);
        operations.extend(parsed(&patch.finish().ok()?.to_json()));
        return Some(operations);
    }
    operations.extend(parsed(&decision.patch.to_json()));
    let gates = Pointer::root().key("spec").key("schedulingGates").index(gate);
    operations.push(json!({"op": "remove", "path": gates.as_str()}));
    let labels = pod.metadata.as_ref().and_then(|metadata| metadata.labels);
    let labels = labels.and_then(|labels| serde_json::from_str::<Value>(labels.get()).ok());
    if labels.is_some_and(|labels| labels.get(LABEL).is_some()) {
        let label = Pointer::root().key("metadata").key("labels").key(LABEL);
        operations.push(json!({"op": "remove", "path": label.as_str()}));
    }
    Some(operations)
}

fn parsed(patch: &[u8]) -> Vec<Value> {
    str::from_utf8(patch).ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use podshaper::patch::Patch;

    use super::*;

    #[test]
    fn for_how_long_a_pod_waits() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        for (created, waited) in
            [(Some("2026-01-01T00:00:00Z"), true), (Some("2026-01-01T00:00:01Z"), false), (None, true)]
        {
            let gated = GatedPod { uid: "u".into(), created: created.map(|time| time.parse().unwrap()) };
            assert_eq!(has_waited(&gated, Duration::from_mins(10), now), waited, "{created:?}");
        }
        let complete = |images| is_complete(&Known { images, warnings: Vec::new() });
        let known = || Knowledge::Known(Arc::new(crate::platform::Platforms::Any));
        assert!(
            complete(vec![known()])
                && !complete(vec![known(), Knowledge::Unknown(crate::images::Why::Timeout)])
        );
    }

    #[test]
    fn what_is_sent() {
        let pod = r#"{"metadata":{"labels":{"podshaper.dev/arch-gated":"true"}},"spec":{"schedulingGates":[{"name":"x"},{"name":"podshaper.dev/arch"}]}}"#;
        let pod: Pod<'_> = serde_json::from_str(pod).unwrap();
        let gate = gate_of(&pod).unwrap();
        let mut patch = Patch::default();
        patch.add(&Pointer::root().key("spec").key("tolerations"), &json!([]));
        let sent = operations(&pod, gate, &json!("7"), &Decision::patched(patch)).unwrap();
        assert_eq!(
            Value::from(sent),
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "add", "path": "/spec/tolerations", "value": []},
                {"op": "remove", "path": "/spec/schedulingGates/1"},
                {"op": "remove", "path": "/metadata/labels/podshaper.dev~1arch-gated"},
            ])
        );
        let refused = operations(&pod, gate, &json!("7"), &Decision::denied("why")).unwrap();
        assert!(!Value::from(refused).to_string().contains("schedulingGates"), "it goes on waiting");
        let told: Pod<'_> =
            serde_json::from_str(r#"{"metadata":{"annotations":{"podshaper.dev/arch":"why"}}}"#).unwrap();
        assert_eq!(operations(&told, gate, &json!("7"), &Decision::denied("why")), None, "once is enough");
    }
}

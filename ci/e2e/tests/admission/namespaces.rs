//! Namespaces with the same LimitRanges and quota, one with the webhook and one without it.

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl};
use serde_json::{Value, json};

/// Where a pod is created: in the first two, the same LimitRanges and the same quota apply.
pub(super) struct Namespaces {
    pub(super) with: String,
    pub(super) without: String,
    /// Neither the webhook nor LimitRanges nor a quota; `PodSecurity` as in the others.
    pub(super) plain: String,
}

impl Namespaces {
    /// `label` selects namespaces for the webhook.
    pub(super) async fn create(name: &str, label: &str) -> Self {
        let namespace = async |kind: &str, label: &str| {
            let name = format!("{name}-{kind}");
            let labels = json!({"podshaper-test": label, "pod-security.kubernetes.io/enforce": "restricted"});
            apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}))
                .await;
            let account =
                ["--namespace", &name, "wait", "--for=create", "serviceaccount/default", "--timeout=60s"];
            kubectl(&account).await;
            name
        };
        let with = namespace("with", label).await;
        let without = namespace("without", "no-webhook").await;
        let plain = namespace("plain", "no-webhook").await;
        Self { with, without, plain }
    }

    /// Creates the LimitRange in both namespaces. The API server refuses one that contradicts itself.
    pub(super) async fn limit(&self, name: &str, spec: &Value) -> Result<(), String> {
        for namespace in [&self.with, &self.without] {
            let metadata = json!({"name": name, "namespace": namespace});
            let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": spec});
            create(&range, &[]).await?;
        }
        Ok(())
    }

    /// A quota that is never used up, and demands these resources of each pod.
    pub(super) async fn demand(&self, resources: &[&str]) {
        let hard: Value = resources.iter().map(|name| ((*name).to_owned(), json!("1E"))).collect();
        for namespace in [&self.with, &self.without] {
            let metadata = json!({"name": "demands", "namespace": namespace});
            let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": {"hard": hard}});
            create(&quota, &[]).await.unwrap();
            // Until then, each pod is refused.
            eventually("the quota has a status", PATIENCE, async || {
                let quota = get(&["--namespace", namespace, "resourcequota", "demands"]).await;
                (quota["status"]["hard"].as_object()?.len() == resources.len()).then_some(())
            })
            .await;
        }
    }
}

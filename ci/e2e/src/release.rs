//! A release of the chart, for the pods of one namespace alone.

use serde_json::{Value, json};

use crate::cluster::{apply, get, kubectl, run};

/// The chart as it is in this checkout.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../charts/podshaper");
/// The runtime class of peer pods; here the containers run as any others.
const RUNTIME_CLASS: &str = "kata-remote";

/// An installed release. It is uninstalled when this is dropped.
pub struct Release {
    /// Its name, and that of its namespace.
    pub name: String,
    /// The namespace of the pods under test.
    pub pods: String,
    /// Its webhook.
    pub webhook: &'static str,
}

impl Release {
    /// Installs peerpods with `values` and waits until it is ready. It sees the pods of one new namespace.
    pub async fn install(name: &str, values: &Value) -> Self {
        Self::install_webhook("peerpods", name, values).await
    }

    /// The same with another webhook.
    pub async fn install_webhook(webhook: &'static str, name: &str, values: &Value) -> Self {
        let release = Self { name: name.to_owned(), pods: format!("{name}-pods"), webhook };
        for namespace in [&release.name, &release.pods] {
            apply(&json!({
                "apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": namespace, "labels": {"podshaper-test": namespace}},
            }))
            .await;
        }
        apply(&json!({
            "apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass",
            "metadata": {"name": RUNTIME_CLASS}, "handler": "runc",
        }))
        .await;
        release.upgrade(values).await;
        release
    }

    /// Installs or upgrades with `values` over those of every test, and waits until it is ready.
    pub async fn upgrade(&self, values: &Value) {
        let error = self.try_upgrade(values).await.err();
        assert!(error.is_none(), "{}\n{values}", error.unwrap_or_default());
    }

    /// The same; the error is what helm printed.
    pub async fn try_upgrade(&self, values: &Value) -> Result<(), String> {
        let mut all = json!({
            "defaults": {"image": {"pullPolicy": "Never"}},
            (self.webhook): {
                "enabled": true,
                "namespaceSelector": {"matchLabels": {"podshaper-test": self.pods}},
            },
        });
        overlay(&mut all, values);
        let arguments = [
            "upgrade",
            "--install",
            &self.name,
            CHART,
            "--namespace",
            &self.name,
            "--wait",
            "--timeout=120s",
            "--values=-",
        ];
        let output = run("helm", &arguments, &all.to_string()).await;
        let text = [output.stdout, output.stderr].concat();
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&text).into_owned()) }
    }

    /// The name of the webhook's Deployment, Service, Secret and configuration.
    pub fn fullname(&self) -> String {
        format!("{}-{}", self.name, self.webhook)
    }

    /// The CA bundle of the webhook configuration, in base64.
    pub async fn ca_bundle(&self) -> String {
        let configuration = get(&["mutatingwebhookconfiguration", &self.fullname()]).await;
        configuration["webhooks"][0]["clientConfig"]["caBundle"].as_str().unwrap_or_default().to_owned()
    }

    /// A command of kubectl in the release's own namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> String {
        kubectl(&[&["--namespace", &self.name], arguments].concat()).await
    }

    /// Every value of the metric `name` on the webhook's pods, with its labels.
    pub async fn metric(&self, name: &str) -> Vec<String> {
        let selector = "--selector=app.kubernetes.io/component=webhook";
        let mut values = Vec::new();
        for pod in get(&["--namespace", &self.name, "pods", selector]).await["items"]
            .as_array()
            .into_iter()
            .flatten()
        {
            let pod = pod["metadata"]["name"].as_str().unwrap_or_default();
            let path = format!("/api/v1/namespaces/{}/pods/{pod}:8080/proxy/metrics", self.name);
            let page = kubectl(&["get", "--raw", &path]).await;
            let lines = page.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix('{'));
            values.extend(lines.filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())));
        }
        values
    }

    /// Restarts all pods of the webhook, a few at a time, and waits for the end.
    pub async fn restart(&self) {
        let deployment = format!("deployment/{}", self.fullname());
        self.kubectl(&["rollout", "restart", &deployment]).await;
        self.kubectl(&["rollout", "status", &deployment, "--timeout=120s"]).await;
    }
}

impl Drop for Release {
    fn drop(&mut self) {
        // A failed test leaves its release for whoever looks into it.
        if !std::thread::panicking() {
            let arguments = ["uninstall", &self.name, "--namespace", &self.name, "--wait"];
            let _ = std::process::Command::new("helm").args(arguments).output();
        }
    }
}

/// A peer pod for `namespace` that no node takes, so that nothing has to run.
pub fn peer_pod(namespace: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "pod-", "namespace": namespace},
        "spec": {
            "runtimeClassName": RUNTIME_CLASS,
            "nodeSelector": {"podshaper-test": "no-node"},
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "app",
                "image": "podshaper/pause:1",
                "resources": {"requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "3", "memory": "5Gi"}},
            }],
        },
    })
}

/// Whether `pod` is [`peer_pod`] as peerpods shapes it.
pub fn is_shaped(pod: &Value) -> bool {
    let annotations = &pod["metadata"]["annotations"];
    annotations["io.katacontainers.config.hypervisor.default_vcpus"] == "3"
        && annotations["io.katacontainers.config.hypervisor.default_memory"] == "5120"
        && pod["spec"]["containers"][0]["resources"]
            == json!({"requests": {"kata.peerpods.io/vm": "1"}, "limits": {"kata.peerpods.io/vm": "1"}})
}

fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

//! Fixtures of the tests: a release, a template, a DaemonSet and its pods.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output};
use e2e::release::Release;
use serde_json::{Value, json};

use super::REPOSITORY;
use super::nodes::real_node;

/// Removes what a failed test has left. Its release would write the status of the templates of all tests.
async fn remove_leftovers() {
    let left = output("helm", &["list", "--all-namespaces", "--short", "--filter", "^flex-"], "").await;
    for name in left.lines() {
        output("helm", &["uninstall", name, "--namespace", name, "--wait"], "").await;
        let pods = format!("{name}-pods");
        kubectl(&["delete", "daemonset", "--all", "--namespace", &pods, "--wait=false"]).await;
    }
}

/// Installs a release. The CRD is shared by all tests, so no release owns it.
pub(super) async fn install(name: &str, values: Value) -> Release {
    remove_leftovers().await;
    let crds = format!("{REPOSITORY}/crds/flexdaemonsettemplates.yaml");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds]).await;
    eventually("the CRD is established", Duration::from_mins(1), async || {
        let crd = get(&["-f", &crds]).await;
        let mut conditions = crd["status"]["conditions"].as_array()?.iter();
        conditions.find(|c| c["type"] == "Established" && c["status"] == "True").map(|_| ())
    })
    .await;
    let values = json!({"crds": {"enabled": false}, "flexdaemonset": values});
    Release::install_webhook("flexdaemonset", name, &values).await
}

pub(super) async fn template(name: &str, spec: Value) {
    apply(&json!({
        "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate", "metadata": {"name": name}, "spec": spec,
    }))
    .await;
}

pub(super) fn daemon_set(namespace: &str, template: &str, containers: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {
            "name": "agent", "namespace": namespace,
            "annotations": {"flexdaemonsets.xai/resource-template": template},
        },
        "spec": {
            "selector": {"matchLabels": {"app": "agent"}},
            "template": {
                "metadata": {"labels": {"app": "agent"}},
                "spec": {
                    "terminationGracePeriodSeconds": 0,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": containers,
                },
            },
        },
    })
}

pub(super) fn one_container() -> Value {
    json!([{"name": "agent", "image": "podshaper/pause:1"}])
}

/// The pods of the DaemonSet, by node. Pods that don't fit and so aren't bound are included.
pub(super) async fn pods(namespace: &str) -> Vec<(String, Value)> {
    let list = get(&["pods", "--namespace", namespace, "--selector", "app=agent"]).await;
    let node = |pod: &Value| {
        let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
        pod.pointer(affinity).unwrap().as_str().unwrap().to_owned()
    };
    list["items"].as_array().unwrap().iter().map(|pod| (node(pod), pod.clone())).collect()
}

/// Waits for the pod of `node`, one that isn't terminating.
pub(super) async fn pod_on(namespace: &str, node: &str) -> Value {
    eventually(&format!("a pod for {node}"), PATIENCE, async || {
        let found = pods(namespace)
            .await
            .into_iter()
            .find(|(name, pod)| name == node && pod["metadata"]["deletionTimestamp"].is_null());
        found.map(|(_, pod)| pod)
    })
    .await
}

/// Waits until the pod of the real node is ready.
pub(super) async fn running_pod(namespace: &str, node: &str) -> Value {
    eventually("the pod runs", PATIENCE, async || {
        let pod = pod_on(namespace, node).await;
        (pod["status"]["containerStatuses"][0]["ready"] == true).then_some(pod)
    })
    .await
}

pub(super) fn requests(pod: &Value, container: usize) -> &Value {
    &pod["spec"]["containers"][container]["resources"]["requests"]
}

/// The resourceVersion of the list of pods.
pub(super) async fn resource_version(namespace: &str) -> String {
    let pods = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods")]).await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    pods["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Asserts that every pod was created with its size and kept it at every resourceVersion since `version`. Returns the number
/// of pods.
pub(super) async fn assert_created_with_size(namespace: &str, version: &str) -> usize {
    let history =
        format!("/api/v1/namespaces/{namespace}/pods?watch=true&resourceVersion={version}&timeoutSeconds=1");
    let history = kubectl(&["get", "--raw", &history]).await;
    let mut created: BTreeMap<String, Value> = BTreeMap::new();
    for event in history.lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        let pod = &event["object"];
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let resources: Value = containers.iter().map(|container| container["resources"].clone()).collect();
        if event["type"] == "ADDED" {
            assert!(!resources[0]["requests"]["cpu"].is_null(), "created without a size: {pod:#}");
            created.insert(uid.clone(), resources.clone());
        }
        assert_eq!(created[&uid], resources, "changed after its creation: {pod:#}");
    }
    created.len()
}

/// Excludes the namespace in the webhook's configuration alone, and waits until the API server doesn't call the webhook for its pods. The
/// chart's selectors, which refits respect, still select it.
pub(super) async fn exclude_namespace(release: &Release, template: &str) {
    let excluded =
        json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [release.pods]});
    let expressions = "/webhooks/0/namespaceSelector/matchExpressions/-";
    let patch = json!([{"op": "add", "path": expressions, "value": excluded}]).to_string();
    let configuration = release.fullname();
    kubectl(&["patch", "mutatingwebhookconfiguration", &configuration, "--type=json", "--patch", &patch])
        .await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "probe", "namespace": release.pods,
            "annotations": {"flexdaemonsets.xai/apply-template": template},
        },
        "spec": {"nodeName": real_node().await, "containers": one_container()},
    });
    eventually("the webhook isn't called", PATIENCE, async || {
        let pod = create(&pod, &["--dry-run=server"]).await.unwrap();
        pod["metadata"]["annotations"]["podshaper.dev/flexdaemonset"].is_null().then_some(())
    })
    .await;
}

/// Waits until the leader has reconciled the template once more, refits included.
pub(super) async fn reconciled_again(template: &str) {
    // A reconciliation refits after it has written the status. So when the second status is there, the refits of the first
    // reconciliation have been tried.
    for cpu in ["1k", "2k"] {
        let patch = json!({"spec": {"maxCPU": cpu}}).to_string();
        kubectl(&["patch", "flexdaemonsettemplate", template, "--type=merge", "--patch", &patch]).await;
        let generation = get(&["flexdaemonsettemplate", template]).await["metadata"]["generation"].clone();
        eventually("the change is observed", PATIENCE, async || {
            (status(template).await["observedGeneration"] == generation).then_some(())
        })
        .await;
    }
}

pub(super) async fn status(template: &str) -> Value {
    get(&["flexdaemonsettemplate", template]).await["status"].clone()
}

pub(super) fn progressing(status: &Value) -> &Value {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == "Progressing").unwrap_or(&Value::Null)
}

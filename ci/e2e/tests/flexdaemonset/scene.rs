//! What each of the tests begins with and looks at: a release, a template, a DaemonSet and its pods.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl};
use e2e::release::Release;
use serde_json::{Value, json};

use super::REPOSITORY;
use super::nodes::real_node;

/// A release. The definition of the kind is every test's, so it belongs to none of the releases.
pub(super) async fn install(name: &str, values: Value) -> Release {
    let crds = format!("{REPOSITORY}/crds/flexdaemonsettemplates.yaml");
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &crds]).await;
    eventually("the definition is established", Duration::from_mins(1), async || {
        let definition = get(&["-f", &crds]).await;
        let mut conditions = definition["status"]["conditions"].as_array()?.iter();
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

/// The pods of the DaemonSet, by node; also of those that aren't bound, because the size doesn't fit.
pub(super) async fn pods(namespace: &str) -> Vec<(String, Value)> {
    let list = get(&["pods", "--namespace", namespace, "--selector", "app=agent"]).await;
    let node = |pod: &Value| {
        let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values/0";
        pod.pointer(affinity).unwrap().as_str().unwrap().to_owned()
    };
    list["items"].as_array().unwrap().iter().map(|pod| (node(pod), pod.clone())).collect()
}

/// Waits for the pod of `node`.
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

/// The pod of the node that is real, once it runs.
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

/// The version at which the pods of a namespace stand.
pub(super) async fn version(namespace: &str) -> String {
    let pods = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods")]).await;
    let pods: Value = serde_json::from_str(&pods).unwrap();
    pods["metadata"]["resourceVersion"].as_str().unwrap().to_owned()
}

/// Nobody has changed the size of a pod since it was created: in its history since `version` there is no other, at any
/// resourceVersion. How many pods there were.
pub(super) async fn assert_born_so(namespace: &str, version: &str) -> usize {
    let history =
        format!("/api/v1/namespaces/{namespace}/pods?watch=true&resourceVersion={version}&timeoutSeconds=1");
    let history = kubectl(&["get", "--raw", &history]).await;
    let mut born: BTreeMap<String, Value> = BTreeMap::new();
    for event in history.lines() {
        let event: Value = serde_json::from_str(event).unwrap();
        let pod = &event["object"];
        let uid = pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let containers = pod["spec"]["containers"].as_array().unwrap();
        let resources: Value = containers.iter().map(|container| container["resources"].clone()).collect();
        if event["type"] == "ADDED" {
            assert!(!resources[0]["requests"]["cpu"].is_null(), "created without a size: {pod:#}");
            born.insert(uid.clone(), resources.clone());
        }
        assert_eq!(born[&uid], resources, "changed after its creation: {pod:#}");
    }
    born.len()
}

/// Takes the namespace from the webhook's, and waits until pods in it are created without.
pub(super) async fn hide(release: &Release, template: &str) {
    kubectl(&["label", "namespace", &release.pods, "podshaper-test-"]).await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "probe", "namespace": release.pods,
            "annotations": {"flexdaemonsets.xai/apply-template": template},
        },
        "spec": {"nodeName": real_node().await, "containers": one_container()},
    });
    eventually("the webhook isn't called any more", PATIENCE, async || {
        let pod = create(&pod, &["--dry-run=server"]).await.unwrap();
        pod["metadata"]["annotations"]["podshaper.dev/flexdaemonset"].is_null().then_some(())
    })
    .await;
}

/// Waits until the leader has looked at everything again, and has done what it does about that.
pub(super) async fn looked_again(template: &str) {
    // It acts after it writes the status: so what it has seen first is done when it sees the second.
    for cpu in ["1k", "2k"] {
        let patch = json!({"spec": {"maxCPU": cpu}}).to_string();
        kubectl(&["patch", "flexdaemonsettemplate", template, "--type=merge", "--patch", &patch]).await;
        let generation = get(&["flexdaemonsettemplate", template]).await["metadata"]["generation"].clone();
        eventually("it is seen", PATIENCE, async || {
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

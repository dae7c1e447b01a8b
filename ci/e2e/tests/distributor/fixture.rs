//! The fixture: nodes, an installed webhook, a PodDistributor and a workload.

use std::cell::RefCell;

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output};
use e2e::release::Release;
use serde_json::{Value, json};
use tokio::time::timeout;

pub(crate) const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// How often what depends on chance is tried: `ci/test --long` says more.
pub(crate) fn rounds() -> usize {
    std::env::var("PODSHAPER_TEST_ROUNDS").map_or(1, |rounds| rounds.parse().expect("a number"))
}

/// The label of nodes that an autoscaler has added.
pub(crate) const AUTOSCALED: &str = "podshaper-test/autoscaled=true";

/// Nodes that only seem to be some: pods bound to them seem to run. Nodes that the autoscaler of another test has added are removed.
pub(crate) async fn nodes() {
    kubectl(&["delete", "nodes", "--selector", AUTOSCALED, "--wait=false"]).await;
    for group in ["default", "spot"] {
        let label = format!("type={group}");
        let arguments =
            ["nodes", "2", "--prefix", group, "--label", &label, "--pods", "1000", "--cpu", "1000"];
        output(&format!("{REPOSITORY}/ci/cluster"), &arguments, "").await;
    }
}

pub(crate) async fn install(name: &str, values: &Value) -> Release {
    let mut block = json!({"replicas": 3});
    block.as_object_mut().unwrap().extend(values.as_object().unwrap().clone());
    let crds: Vec<_> = ["poddistributors", "placements"]
        .iter()
        .flat_map(|plural| ["-f".to_owned(), format!("{REPOSITORY}/crds/{plural}.yaml")])
        .collect();
    let crds: Vec<&str> = crds.iter().map(String::as_str).collect();
    kubectl(&[&["apply", "--server-side", "--force-conflicts"], &crds[..]].concat()).await;
    eventually("the kinds are served", PATIENCE, async || {
        let served = e2e::cluster::run("kubectl", &["get", "poddistributors,placements", "-A"], "").await;
        served.status.success().then_some(())
    })
    .await;
    Release::install_webhook("distributor", name, &json!({"crds": {"enabled": false}, "distributor": block}))
        .await
}

/// The original's sample: 80 percent on default nodes, 20 on spot nodes. Every replica knows it then.
pub(crate) async fn distributor(namespace: &str, target: &Value) {
    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "sample", "namespace": namespace},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": target,
        },
    }))
    .await;
    // The leader writes the status after a while. The other replicas have received the object by then.
    eventually("the distributor is known", PATIENCE, async || {
        let known = get(&["poddistributor", "sample", "-n", namespace]).await;
        (known["status"]["observedGeneration"] == known["metadata"]["generation"]).then_some(())
    })
    .await;
}

/// A pod template for the fake nodes.
pub(crate) fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "containers": [{"name": "c", "image": "podshaper/pause:1"}],
        },
    })
}

/// A Deployment of ten pods, which take two to four seconds until they are ready, as those that a kubelet starts.
pub(crate) async fn starting_deployment(namespace: &str) {
    let mut template = template();
    template["metadata"]["annotations"] = json!({
        "pod-ready.stage.kwok.x-k8s.io/delay": "2s",
        "pod-ready.stage.kwok.x-k8s.io/jitter-delay": "4s",
    });
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 10, "template": template})).await;
}

pub(crate) async fn workload(namespace: &str, api_version: &str, kind: &str, spec: Value) {
    let mut all = json!({"selector": {"matchLabels": {"app": "web"}}, "template": template()});
    all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let metadata = json!({"name": "web", "namespace": namespace});
    apply(&json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": all})).await;
}

/// The status of the distributor, once it is as wanted.
pub(crate) async fn status(namespace: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let last = RefCell::default();
    let read = async || {
        let status = get(&["poddistributor", "sample", "-n", namespace]).await["status"].clone();
        last.replace(status.clone());
        wanted(&status).then_some(status)
    };
    let status = timeout(PATIENCE, eventually(what, PATIENCE * 2, read)).await;
    status.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}: {:#}", last.into_inner()))
}

pub(crate) fn condition<'s>(status: &'s Value, kind: &str) -> &'s Value {
    let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
    conditions.iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

pub(crate) async fn spot_nodes(verb: &str) {
    kubectl(&[verb, "spot-1", "spot-2"]).await;
}

//! Pods of DaemonSets, on nodes of any size, by any template and under any LimitRange.

use e2e::cluster::{apply, create, kubectl};
use e2e::release::Release;
use kube::Client;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::flexdaemonset_support::generated::{limit_ranges, nodes, pods_with_pod_level, templates};
use super::flexdaemonset_support::{NODE, node};
use super::namespaces::Namespaces;
use super::verdicts::{Verdicts, restricted};

const NAMESPACES: usize = 12;
const NODES: usize = 8;
const TEMPLATES: usize = 24;
/// Of this many pods, one breaks `PodSecurity`'s level.
const UNRESTRICTED: usize = 10;
/// The definition is shared by all tests, so no release owns it.
const CRD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../crds/flexdaemonsettemplates.yaml");

#[tokio::test]
async fn daemon_set_pod_admitted_without_webhook_is_admitted_with_it() {
    kubectl(&["apply", "--server-side", "--force-conflicts", "-f", CRD]).await;
    kubectl(&["wait", "--for=condition=Established", "-f", CRD, "--timeout=60s"]).await;
    let values = json!({"crds": {"enabled": false}});
    let release = Release::install_webhook("flexdaemonset", "admission-flex", &values).await;
    let mut runner = TestRunner::deterministic();
    let namespaces = create_namespaces(&mut runner, &release.pods).await;
    for index in 0..NODES {
        let allocatable = generate(&mut runner, &nodes())["status"]["allocatable"].clone();
        let mut node = node(&node_name(index), allocatable.clone());
        // Half of the nodes get what overrides say.
        node["metadata"]["labels"]["size"] = json!(if index % 2 == 0 { NODE } else { "other" });
        node["status"]["capacity"] = allocatable;
        create(&node, &[]).await.unwrap();
    }
    for index in 0..TEMPLATES {
        let spec = generate(&mut runner, &templates());
        apply(&json!({
            "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate",
            "metadata": {"name": template_name(index)}, "spec": spec,
        }))
        .await;
    }
    // A replica is ready when it has listed all of these.
    release.restart().await;

    let strategy = pods_with_pod_level();
    let pods = (0..super::pods()).map(|index| {
        let pod = pod(index, strategy.new_tree(&mut runner).unwrap().current());
        (&namespaces[index % NAMESPACES], pod)
    });
    let verdicts = Verdicts::of(&Client::try_default().await.unwrap(), pods).await;
    for index in 0..NODES {
        kubectl(&["delete", "node", &node_name(index)]).await;
    }
    // Sizes change the amounts, and with them the reasons of a refusal.
    verdicts.assert_none_refused_by_webhook();
}

/// The first namespaces have a quota, and a LimitRange with defaults, so that pods have what it demands.
async fn create_namespaces(runner: &mut TestRunner, label: &str) -> Vec<Namespaces> {
    let mut all = Vec::new();
    for index in 0..NAMESPACES {
        let namespaces = Namespaces::create(&format!("admission-flex-{index}"), label).await;
        if index < NAMESPACES / 3 {
            let defaults = json!({"cpu": "800m", "memory": "600Mi"});
            namespaces
                .limit("defaults", &json!({"limits": [{"type": "Container", "default": defaults}]}))
                .await
                .unwrap();
            namespaces.demand(&["requests.cpu", "requests.memory", "limits.cpu", "limits.memory"]).await;
        }
        if index % 3 > 0 {
            let mut accepted = 0;
            while accepted == 0 {
                for range in limit_ranges().new_tree(runner).unwrap().current() {
                    accepted += usize::from(
                        namespaces.limit(&format!("range-{accepted}"), &range["spec"]).await.is_ok(),
                    );
                }
            }
        }
        all.push(namespaces);
    }
    all
}

fn generate(runner: &mut TestRunner, strategy: &impl Strategy<Value = Value>) -> Value {
    strategy.new_tree(runner).unwrap().current()
}

fn node_name(index: usize) -> String {
    format!("admission-flex-{index}")
}

fn template_name(index: usize) -> String {
    format!("admission-flex-{index}")
}

/// `pod` for one of the nodes, with one of the templates.
fn pod(index: usize, mut pod: Value) -> Value {
    // Different divisors, so that each template meets each node.
    let node = node_name(index / NAMESPACES % NODES);
    let template = template_name(index / 5 % TEMPLATES);
    pod["metadata"]["annotations"] = json!({"flexdaemonsets.xai/resource-template": template});
    let affinity = "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0/matchFields/0/values";
    *pod.pointer_mut(affinity).unwrap() = json!([node]);
    if index.is_multiple_of(UNRESTRICTED) { pod } else { restricted(pod) }
}

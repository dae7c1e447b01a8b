//! An object means the same in a file given by `--facts` as on a watch.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Debug;
use std::io::Write;

use flexdaemonset_decision::daemon_set::DaemonSet;
use flexdaemonset_decision::limit_range::LimitRange;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::template_object::TemplateObject;
use podshaper_core::facts::Fact;
use podshaper_core::object::FromObject;
use podshaper_kube::watch::{WatchScope, spawn_reflector};
use podshaper_offline::manifests::read_objects;
use podshaper_testing::InMemoryApiServer;
use serde_json::{Value, json};

/// Asserts that the object, as the API server stores it, is the same on both ways, and so is what people write for it.
async fn assert_equal<T: FromObject + Debug>(path: &str, stored: &Value, written: &[Value]) {
    let server = InMemoryApiServer::default();
    server.put(path, stored.clone());
    let store = spawn_reflector::<T>(&server.client(), WatchScope::default());
    store.changes().wait_for(|_| store.has_synced()).await.unwrap();
    let (_, watched) = store.all().pop().unwrap();
    for object in [&[server.get(path)], written].concat() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(object.to_string().as_bytes()).unwrap();
        let objects = read_objects(&[file.path().to_owned()]).unwrap();
        let (_, fact) = Fact::new(&objects[0]).unwrap().project::<T>().unwrap().unwrap();
        assert_eq!(fact, *watched, "{object}");
    }
}

#[tokio::test]
async fn node_is_equal() {
    let node = |allocatable: Value| {
        json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": "a", "labels": {"zone": "z", "class": "huge"}},
            "status": {"allocatable": allocatable},
        })
    };
    let stored = node(json!({"cpu": "3920m", "memory": "16Gi", "pods": "110"}));
    let written = [node(json!({"cpu": 3.92, "memory": 17_179_869_184_u64, "pods": 110}))];
    assert_equal::<Node>("/api/v1/nodes/a", &stored, &written).await;
    let invalid = node(json!({"cpu": "much", "memory": "-1"}));
    assert_equal::<Node>("/api/v1/nodes/a", &invalid, &[node(json!({"cpu": "many"})), node(json!(null))])
        .await;
}

#[tokio::test]
async fn template_is_equal() {
    let path = "/apis/flexdaemonsets.xai/v1alpha1/flexdaemonsettemplates/agent";
    let template = |spec: Value| {
        json!({
            "apiVersion": "flexdaemonsets.xai/v1alpha1", "kind": "FlexDaemonsetTemplate",
            "metadata": {"name": "agent", "uid": "u", "generation": 3}, "spec": spec,
            "status": {"observedGeneration": 3},
        })
    };
    for spec in [json!({"minCPU": "100m", "cpuFraction": "0.1"}), json!({"minCPU": "much"}), json!(null)] {
        assert_equal::<TemplateObject>(path, &template(spec), &[]).await;
    }
}

#[tokio::test]
async fn limit_range_is_equal() {
    let range = |max: Value| {
        json!({
            "apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r", "namespace": "ns"},
            "spec": {"limits": [
                {"type": "Container", "max": {"cpu": max}, "min": {"cpu": "10m"}},
                {"type": "Pod", "max": {"memory": "1Gi"}},
            ]},
        })
    };
    let path = "/api/v1/namespaces/ns/limitranges/r";
    assert_equal::<LimitRange>(path, &range(json!("2")), &[range(json!(2)), range(json!(2.0))]).await;
}

#[tokio::test]
async fn daemon_set_is_equal() {
    let path = "/apis/apps/v1/namespaces/ns/daemonsets/agent";
    let template = |name: &str| json!({"flexdaemonsets.xai/resource-template": name});
    for pods in [json!({"annotations": template("pods")}), json!({"annotations": null}), json!(null)] {
        let daemon_set = json!({
            "apiVersion": "apps/v1", "kind": "DaemonSet",
            "metadata": {"name": "agent", "namespace": "ns", "uid": "u", "annotations": template("own")},
            "spec": {"selector": {"matchLabels": {"app": "agent"}}, "template": {"metadata": pods}},
        });
        assert_equal::<DaemonSet>(path, &daemon_set, &[]).await;
    }
}

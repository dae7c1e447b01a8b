//! An object means the same in a file given by `--facts` as to the server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fmt::Debug;
use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use distributor_decision::distributor::Distributor;
use distributor_decision::node::Node;
use podshaper_core::facts::Fact;
use podshaper_core::object::{FromObject, Lookup, OwnerReference};
use podshaper_kube::watch::{WatchScope, spawn_reflector};
use podshaper_offline::manifests::read_objects;
use podshaper_placement::admit::PlacementBackend;
use podshaper_placement::namespace::NamespaceRestrictions;
use podshaper_placement::offline::FileBackend;
use podshaper_placement::owner_object::OwnerObject;
use podshaper_placement::pod_object::PodObject;
use podshaper_placement_kube::OwnerReader;
use podshaper_testing::InMemoryApiServer;
use serde_json::{Value, json};
use tempfile::NamedTempFile;

fn file(objects: &[&Value]) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    for object in objects {
        writeln!(file, "---\n{object}").unwrap();
    }
    file
}

fn read(object: &Value) -> Value {
    read_objects(&[file(&[object]).path().to_owned()]).unwrap().remove(0)
}

/// Asserts that the object is the same in a file as on its watch, and returns it if it is of interest.
async fn watched_as_read<T: FromObject + Debug>(path: &str, object: &Value) -> Option<T> {
    let server = InMemoryApiServer::default();
    server.put(path, object.clone());
    let store = spawn_reflector::<T>(&server.client(), WatchScope::default());
    store.changes().wait_for(|_| store.has_synced()).await.unwrap();
    let watched = store.all().pop().map(|(_, object)| object);
    let read = read(&server.get(path));
    let fact = Fact::new(&read).unwrap().project::<T>().unwrap().map(|(_, fact)| fact);
    assert_eq!(fact.as_ref(), watched.as_deref(), "{object}");
    fact
}

/// Asserts that the object is the same in a file as on its watch, and returns whether it is of interest.
async fn assert_equal<T: FromObject + Debug>(path: &str, object: &Value) -> bool {
    watched_as_read::<T>(path, object).await.is_some()
}

fn node(spec: &Value, status: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "a", "labels": {"type": "spot"}}, "spec": spec, "status": status,
    })
}

#[tokio::test]
async fn node_is_equal() {
    let ready = |status: &str| json!({"conditions": [{"type": "Ready", "status": status}]});
    for (spec, status, takes_pods) in [
        (json!({}), ready("True"), true),
        (json!({}), ready("Unknown"), false),
        (json!({"unschedulable": true}), ready("True"), false),
        (json!({}), json!({"conditions": []}), false),
        (json!({}), json!({}), false),
    ] {
        let node = watched_as_read::<Node>("/api/v1/nodes/a", &node(&spec, &status)).await.unwrap();
        assert_eq!((node.takes_pods, &*node.labels["type"]), (takes_pods, "spot"), "{status}");
    }
}

#[tokio::test]
async fn namespace_is_equal() {
    let of = |annotations: Value| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns", "annotations": annotations}});
    for (key, value, of_interest) in [
        ("scheduler.alpha.kubernetes.io/node-selector", "type=spot", true),
        ("openshift.io/node-selector", "type=spot", true),
        ("scheduler.alpha.kubernetes.io/tolerationsWhitelist", "[{", true),
        ("other", "type=spot", false),
    ] {
        let namespace = of(json!({key: value}));
        assert_eq!(
            assert_equal::<NamespaceRestrictions>("/api/v1/namespaces/ns", &namespace).await,
            of_interest,
            "{key}"
        );
    }
}

#[tokio::test]
async fn distributor_is_equal() {
    let path = "/apis/versprei.versprei.io/v1beta1/namespaces/ns/poddistributors/sample";
    let groups = json!([{"nodeLabel": {"type": "a"}, "weight": 1}]);
    for (spec, deleted) in [
        (json!({"distribution": groups, "target": {"name": "web"}}), json!(null)),
        (json!({"distribution": "none", "target": {"name": "web"}}), json!(null)),
        (json!({"distribution": groups, "target": {"name": "web"}}), json!("2026-01-02T00:00:00Z")),
    ] {
        let object = json!({
            "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
            "metadata": {
                "name": "sample", "namespace": "ns", "uid": "u", "generation": 2,
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": deleted,
            },
            "spec": spec, "status": {"observedGeneration": 2},
        });
        assert_eq!(assert_equal::<Distributor>(path, &object).await, deleted.is_null());
    }
}

#[tokio::test]
async fn pod_is_equal() {
    let owner = |uid: &str| json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": uid, "controller": true}]);
    // A pod without a controller is one that a selector may match.
    for (owners, counts) in [(owner("u"), true), (owner("not a uid"), false), (json!(null), true)] {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "web-1", "namespace": "ns", "ownerReferences": owners, "labels": {"podshaper.dev/placed": "distributor"},
                "annotations": {
                    "placement.podshaper.dev/token": "00000000000000ff", "placement.podshaper.dev/slot": "3",
                    "placement.podshaper.dev/group": "spot", "controller.kubernetes.io/pod-deletion-cost": "7",
                },
            },
            "spec": {"nodeName": "n", "nodeSelector": {"type": "spot"}, "affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "zone", "operator": "In", "values": ["a"]}]}, null]}}}},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": 3}]},
        });
        assert_eq!(assert_equal::<PodObject>("/api/v1/namespaces/ns/pods/web-1", &pod).await, counts);
    }
}

#[tokio::test]
async fn owner_is_equal() {
    let annotations = json!({"strategy": "own"});
    for (api_version, kind, plural, spec) in [
        ("apps/v1", "StatefulSet", "statefulsets", json!({"replicas": 3, "ordinals": {"start": 5}})),
        ("batch/v1", "Job", "jobs", json!({"template": {"metadata": {"annotations": annotations}}})),
        (
            "batch/v1",
            "CronJob",
            "cronjobs",
            json!({"jobTemplate": {"spec": {"template": {"metadata": {"annotations": annotations}}}}}),
        ),
        (
            "apps/v1",
            "ReplicaSet",
            "replicasets",
            json!({"replicas": "many", "selector": {"matchLabels": {"app": "web"}}}),
        ),
    ] {
        let object = json!({
            "apiVersion": api_version, "kind": kind,
            "metadata": {
                "name": "web", "namespace": "ns", "uid": "u", "annotations": annotations,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "uid": "d", "controller": true}],
            },
            "spec": spec, "status": {"replicas": 2},
        });
        let server = InMemoryApiServer::default();
        let path = format!("/apis/{api_version}/namespaces/ns/{plural}/web");
        server.put(&path, object);
        let reference = OwnerReference::new(api_version, kind, "web", "u");
        let deadline = Instant::now() + Duration::from_mins(1);
        let reader = OwnerReader::new(server.client(), &["strategy"]);
        let Lookup::Found(read_by_server) = reader.read("ns", &reference, deadline).await else {
            panic!("{kind}")
        };
        let backend = FileBackend::new([&read(&server.get(&path))]).unwrap();
        let Lookup::Found(fact) = backend.owner("ns", &reference, deadline).await else { panic!("{kind}") };
        assert_eq!(fact, read_by_server);
        assert_ne!(*fact, OwnerObject { uid: "u".to_owned(), ..OwnerObject::default() });
    }
}

#[test]
fn node_without_conditions_counts_as_ready_with_a_warning() {
    let distributor = json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor", "metadata": {"name": "sample"},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 1}, {"nodeLabel": {"type": "spot"}, "weight": 1}],
            "target": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web"},
            "availability": "Nodes",
        },
    });
    let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": true}]);
    let set = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "web", "uid": "u"}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web-1", "ownerReferences": owners},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    });
    let facts = file(&[&distributor, &set, &node(&json!({}), &json!({}))]);
    let pod = file(&[&pod]);
    let output = Command::new(env!("CARGO_BIN_EXE_distributor"))
        .args(["mutate", "-f"])
        .arg(pod.path())
        .arg("--facts")
        .arg(facts.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(stderr, "warning: --facts: nodes without conditions count as ready: a\n");
    assert!(String::from_utf8(output.stdout).unwrap().contains("type: spot"), "the only group with a node");
}

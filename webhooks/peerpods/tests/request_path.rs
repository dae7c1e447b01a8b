//! A peer pod through the real server. `ci/request-path` lists the files that its review passes.
#![allow(clippy::unwrap_used, clippy::panic)]

use e2e::in_process::answer;
use peerpods_decision::config::Config;
use peerpods_decision::runtime_class::{DEFAULT_RUNTIME_CLASS, DEFAULT_VM_RESOURCE};
use peerpods_decision::webhook::PeerPods;
use serde_json::{Value, json};

fn review(uid: &str) -> Value {
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
        "uid": uid, "operation": "CREATE", "namespace": "shop",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "object": {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {
                "runtimeClassName": "kata-remote",
                "containers": [{"name": "web", "image": "web", "resources": {
                    "requests": {"cpu": "2", "memory": "4Gi"}, "limits": {"cpu": "3", "memory": "5Gi"},
                }}],
            },
        },
    }})
}

#[tokio::test]
async fn peer_pod_is_patched() {
    let webhook = PeerPods::new(Config::default(), [DEFAULT_RUNTIME_CLASS], DEFAULT_VM_RESOURCE).unwrap();
    for answer in answer(webhook, "/mutate-v1-pod", &["1", "2", "3"].map(review)).await {
        assert_eq!(answer["response"]["patchType"], "JSONPatch", "{answer}");
    }
}

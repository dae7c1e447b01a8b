//! Whatever creates pods.

use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output};
use serde_json::{Value, json};

use crate::distribution::{assert_exact, assert_near, pods, reserved, scale, settled, shares};
use crate::fixture::{distributor, install, nodes, rounds, template, workload};

#[tokio::test]
async fn pods_of_every_controller_are_distributed() {
    nodes().await;
    let owners = json!({"owners": [{"apiGroup": "farms.example.com", "resources": ["farms"]}]});
    let release = install("kinds", &owners).await;
    let namespace = &*release.pods;
    for _ in 0..rounds() {
        numbered(namespace).await;
        jobs(namespace).await;
        foreign(namespace).await;
    }
    distributor(namespace, &json!({"name": "nobody"})).await;
    workload(namespace, "apps/v1", "Deployment", json!({"replicas": 3})).await;
    let untouched = eventually("three pods", PATIENCE, async || {
        let pods = pods(namespace).await;
        (pods.len() == 3).then_some(pods)
    })
    .await;
    assert!(untouched.iter().all(|pod| pod.group.is_none()), "of no distributor: {untouched:?}");
}

/// A StatefulSet: its pods' slots are their ordinals.
async fn numbered(namespace: &str) {
    distributor(namespace, &json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web"})).await;
    let spec = json!({"replicas": 10, "podManagementPolicy": "Parallel", "ordinals": {"start": 3}, "serviceName": "web"});
    workload(namespace, "apps/v1", "StatefulSet", spec).await;
    assert_exact(&settled(namespace, 10).await, "a StatefulSet");
    assert_near(shares(&scale(namespace, "statefulset", 3).await), "three of them");
    assert_exact(&scale(namespace, "statefulset", 20).await, "and twenty");
    assert!(reserved(namespace).await.is_empty(), "numbers need no ledger");
    kubectl(&["delete", "statefulset/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

/// Jobs: the shares are over all completions. Those of a CronJob share them.
async fn jobs(namespace: &str) {
    let mut template = template();
    template["spec"]["restartPolicy"] = json!("Never");
    let job = |name: &str, owner: Option<&Value>, spec: Value| {
        let mut all = json!({"template": template});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let owners = owner.map(|cron| {
            json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "web", "uid": cron["metadata"]["uid"], "controller": true}])
        });
        json!({
            "apiVersion": "batch/v1", "kind": "Job", "spec": all,
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners},
        })
    };
    distributor(namespace, &json!({"apiVersion": "batch/v1", "kind": "Job", "name": "web"})).await;
    apply(&job("web", None, json!({"parallelism": 2, "completions": 10}))).await;
    assert_exact(&settled(namespace, 10).await, "a Job's completions");
    kubectl(&["delete", "job/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
    apply(&job("web", None, json!({"parallelism": 4, "completions": 10, "completionMode": "Indexed"}))).await;
    assert_exact(&settled(namespace, 10).await, "an Indexed Job's completions");
    kubectl(&["delete", "job/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;

    // The API version goes without saying.
    distributor(namespace, &json!({"kind": "CronJob", "name": "web"})).await;
    apply(&json!({
        "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"suspend": true, "schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template}}},
    }))
    .await;
    let cron = get(&["cronjob", "web", "-n", namespace]).await;
    // They share a sequence over time: the slots begin anew with each of its cycles.
    for (number, expected) in [(1, (4, 1)), (2, (8, 2))] {
        let of = job(&format!("web-{number}"), Some(&cron), json!({"parallelism": 5, "completions": 5}));
        apply(&of).await;
        let pods = settled(namespace, expected.0 + expected.1).await;
        assert_eq!(shares(&pods), expected, "the Jobs of a CronJob");
    }
    kubectl(&["delete", "cronjob/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

/// A controller of an unknown kind.
async fn foreign(namespace: &str) {
    let open = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    apply(&json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "farms.farms.example.com"},
        "spec": {
            "group": "farms.example.com", "scope": "Namespaced", "names": {"kind": "Farm", "plural": "farms"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": open}}],
        },
    }))
    .await;
    let farm = json!({
        "apiVersion": "farms.example.com/v1", "kind": "Farm", "metadata": {"name": "web", "namespace": namespace},
        "spec": {"replicas": 10, "selector": {"matchLabels": {"app": "web"}}},
    });
    let farm = eventually("farms are served", PATIENCE, async || create(&farm, &[]).await.ok()).await;
    distributor(namespace, &json!({"apiVersion": "farms.example.com/v1", "kind": "Farm", "name": "web"}))
        .await;
    let mut pod = template();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["namespace"] = json!(namespace);
    pod["metadata"]["generateName"] = json!("web-");
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "farms.example.com/v1", "kind": "Farm", "name": "web", "uid": farm["metadata"]["uid"], "controller": true,
    }]);
    eventually("the distributor is known", Duration::from_secs(30), async || {
        let tried = create(&pod, &["--dry-run=server"]).await.unwrap();
        tried["spec"]["nodeSelector"]["type"].as_str().map(|_| ())
    })
    .await;
    let list = json!({"apiVersion": "v1", "kind": "List", "items": vec![pod; 10]});
    output("kubectl", &["create", "-f", "-"], &list.to_string()).await;
    assert_exact(&settled(namespace, 10).await, "a foreign controller's");
    kubectl(&["delete", "farm/web", "-n", namespace, "--cascade=foreground"]).await;
    settled(namespace, 0).await;
}

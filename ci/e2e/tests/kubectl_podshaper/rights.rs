//! A user with the role `edit` in one namespace: commands work, and name what the user may not see.

use e2e::cluster::{apply, kubectl};
use serde_json::json;

use crate::fixture::{deployment, editor, install, plugin, text};

#[tokio::test]
async fn missing_rights_of_a_user_are_named() {
    let release = install(&json!({})).await;
    let namespace = &*release.pods;
    let kubeconfig = editor(namespace).await;
    let kubeconfig = kubeconfig.path().to_str().unwrap();
    deployment(namespace, "web", 0).await;
    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "web", "namespace": namespace},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": {"name": "web"},
        },
    }))
    .await;

    let ran =
        plugin(&["distributor", "plan", "--live", "--kubeconfig", kubeconfig, "--replicas", "10"]).await;
    let out = text(&ran.stdout);
    let err = text(&ran.stderr);
    assert!(
        ran.status.success() && out.contains("PodDistributor web: 10 pods of Deployment web"),
        "{out}{err}"
    );
    assert!(out.contains('8') && out.contains("type=spot"), "{out}");
    for hidden in ["nodes", "namespaces", "persistentvolumes"] {
        assert!(err.contains(&format!("warning: you may not list {hidden}: ")), "{hidden}: {err}");
    }
    assert!(!err.contains("you may not list pods"), "{err}");

    let ran = plugin(&["arch", "report", "--live", "--kubeconfig", kubeconfig]).await;
    let out = text(&ran.stdout);
    let err = text(&ran.stderr);
    assert!(ran.status.success() && out.contains("Deployment/web"), "{out}{err}");
    assert!(err.contains("warning: you may not list nodes: "), "{err}");

    let ran = plugin(&["arch", "report", "--live", "--all-namespaces", "--kubeconfig", kubeconfig]).await;
    let err = text(&ran.stderr);
    assert!(!ran.status.success() && err.contains("nothing can be read from the cluster"), "{err}");
    assert!(err.contains("you may not list deployments"), "{err}");

    let ran = plugin(&["check", "--kubeconfig", kubeconfig]).await;
    let out = text(&ran.stdout);
    let err = text(&ran.stderr);
    assert!(ran.status.success(), "a check that needs a missing right does not fail: {out}{err}");
    assert!(out.contains("√ the API server is v1."), "{out}");
    for hidden in ["webhook configurations: not checked: ", "conditions of PodDistributors: not checked: "] {
        assert!(out.contains(&format!("- {hidden}")), "{hidden}: {out}");
    }
    assert!(out.contains("mutatingwebhookconfigurations"), "the right is named: {out}");
    kubectl(&["delete", "poddistributor,deployment", "web", "--namespace", namespace]).await;
}

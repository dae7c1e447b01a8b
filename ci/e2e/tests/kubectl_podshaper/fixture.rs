//! The plugin, an installation, and a user of one namespace.

use std::path::PathBuf;
use std::process::Output;

use e2e::cluster::{PATIENCE, apply, eventually, kubectl, run};
use e2e::release::Release;
use serde_json::{Value, json};

/// The release of all tests. It installs the definitions, and their roles with them.
const RELEASE: &str = "cli";

/// The folder of the plugin.
pub(crate) fn folder() -> PathBuf {
    let folder =
        std::env::var_os("PODSHAPER_PLUGIN").expect("PODSHAPER_PLUGIN; run the tests by ci/test cluster");
    PathBuf::from(folder)
}

/// Runs the plugin.
pub(crate) async fn plugin(arguments: &[&str]) -> Output {
    run(folder().join("kubectl-podshaper").to_str().unwrap(), arguments, "").await
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Installs `distributor`, or gives the installed release these values. It stays, because it owns the definitions.
pub(crate) async fn install(values: &Value) -> std::mem::ManuallyDrop<Release> {
    std::mem::ManuallyDrop::new(Release::install_webhook("distributor", RELEASE, values).await)
}

/// A Deployment of pods for fake nodes.
pub(crate) async fn deployment(namespace: &str, name: &str, replicas: u32) {
    apply(&json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {
                "terminationGracePeriodSeconds": 0,
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
                "containers": [{"name": "c", "image": "podshaper/pause:1"}],
            }},
        },
    }))
    .await;
}

/// The kubeconfig of a user with the role `edit` in one namespace, in a file.
pub(crate) async fn editor(namespace: &str) -> tempfile::NamedTempFile {
    apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "dev", "namespace": namespace}})).await;
    apply(&json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "dev", "namespace": namespace},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"},
        "subjects": [{"kind": "ServiceAccount", "name": "dev", "namespace": namespace}],
    }))
    .await;
    let token = kubectl(&["create", "token", "dev", "--namespace", namespace]).await;
    let config = kubectl(&["config", "view", "--raw", "--minify", "--flatten", "--output=json"]).await;
    let mut config: Value = serde_json::from_str(&config).unwrap();
    config["users"][0]["user"] = json!({"token": token.trim()});
    config["contexts"][0]["context"]["namespace"] = json!(namespace);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), config.to_string()).unwrap();
    // The role gets the rules of the chart's roles by aggregation.
    let account = format!("--as=system:serviceaccount:{namespace}:dev");
    eventually("the rules are aggregated", PATIENCE, async || {
        let may = [
            "auth",
            "can-i",
            "patch",
            "poddistributors.versprei.versprei.io",
            "--namespace",
            namespace,
            &account,
        ];
        run("kubectl", &may, "").await.status.success().then_some(())
    })
    .await;
    file
}

//! `check` finds each fault, and the commands of its hint cure it.

use std::path::Path;
use std::time::SystemTime;

use e2e::authority::Authority;
use e2e::cluster::{PATIENCE, apply, eventually, kubectl, run};
use e2e::release::{CHART, Release};
use serde_json::{Value, json};

use crate::fixture::{folder, install, plugin, text};

/// The chart in hints.
const PUBLISHED: &str = "oci://ghcr.io/podshaper/charts/podshaper";

/// What `check` prints, and whether no check failed.
async fn check() -> (bool, String) {
    let output = plugin(&["check"]).await;
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

/// Waits until `check` finds no fault.
async fn sound(what: &str) {
    eventually(&format!("check passes: {what}"), PATIENCE, async || {
        let (passes, lines) = check().await;
        if !passes {
            eprintln!("{lines}");
        }
        passes.then_some(())
    })
    .await;
}

/// Waits for the line of a failed check and runs the commands of its hint in `folder`. Then no check fails.
async fn cure(line: &str, folder: &Path) {
    let hint = eventually(line, PATIENCE, async || {
        let (passes, lines) = check().await;
        let mut lines = lines.lines().skip_while(|found| !(found.starts_with("× ") && found.contains(line)));
        lines.next().filter(|_| !passes)?;
        Some(
            lines
                .take_while(|hint| hint.starts_with("    "))
                .map(|hint| hint.trim().to_owned())
                .collect::<Vec<_>>(),
        )
    })
    .await;
    let is_command = |line: &&String| ["kubectl ", "helm "].iter().any(|program| line.starts_with(program));
    let commands: Vec<_> = hint.iter().filter(is_command).cloned().collect();
    assert!(!commands.is_empty(), "{hint:?}");
    eprintln!("{line}:\n  {}", commands.join("\n  "));
    let version = format!(" --version {}", env!("CARGO_PKG_VERSION"));
    let script = commands.join("\n").replace(&format!("{PUBLISHED}{version}"), CHART);
    let path = format!("{}:{}", crate::fixture::folder().display(), std::env::var("PATH").unwrap());
    let script = format!("set -euo pipefail\ncd {}\nexport PATH='{path}'\n{script}\n", folder.display());
    let ran = run("bash", &["-c", &script], "").await;
    assert!(ran.status.success(), "{script}\n{}", text(&ran.stderr));
    sound(line).await;
}

fn secret(release: &Release, authority: &Authority, certificate: &str, key: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "given", "namespace": release.name},
        "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": authority.pem()},
    })
}

fn values(bundle: &str) -> Value {
    json!({"tls": {"mode": "existingSecret", "certHold": "5s", "existingSecret": {"name": "given", "caBundle": bundle}}})
}

#[tokio::test]
async fn hint_of_each_fault_cures_it() {
    assert!(folder().join("kubectl-podshaper").exists(), "ci/build kubectl-podshaper");
    let authority = Authority::new();
    let foreign = Authority::new();
    let release = install(&json!({})).await;
    let host = format!("{}.{}.svc", release.fullname(), release.name);
    let (certificate, key) = authority.issue(&host);
    apply(&secret(&release, &authority, &certificate, &key)).await;
    release.upgrade(&values(authority.pem())).await;
    sound("a new installation").await;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();

    release.upgrade(&values(foreign.pem())).await;
    cure("is not of a CA in the caBundle", folder).await;

    let (expired, expired_key) = authority.issue_until(&host, SystemTime::UNIX_EPOCH);
    apply(&secret(&release, &authority, &expired, &expired_key)).await;
    let (renewed, renewed_key) = authority.issue(&host);
    std::fs::write(folder.join("tls.crt"), renewed).unwrap();
    std::fs::write(folder.join("tls.key"), renewed_key).unwrap();
    cure("the serving certificate of cli-distributor expired", folder).await;

    release.kubectl(&["scale", "deployment", &release.fullname(), "--replicas=0"]).await;
    cure("has no ready endpoint", folder).await;

    kubectl(&["delete", "customresourcedefinition", "placements.podshaper.dev"]).await;
    cure("needs the definition placements.podshaper.dev", folder).await;

    apply(&json!({
        "apiVersion": "versprei.versprei.io/v1beta1", "kind": "PodDistributor",
        "metadata": {"name": "clones", "namespace": release.pods},
        "spec": {
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 1}],
            "target": {"apiVersion": "apps.kruise.io/v1alpha1", "kind": "CloneSet", "name": "web"},
        },
    }))
    .await;
    cure("distributor may not read clonesets.apps.kruise.io", folder).await;
    kubectl(&["delete", "poddistributor", "clones", "--namespace", &release.pods]).await;

    apply(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "pods-alone", "namespace": release.name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": {}}]}]},
    }))
    .await;
    cure("NetworkPolicies cut the API server off", folder).await;
    release.kubectl(&["delete", "networkpolicy", "pods-alone"]).await;
}

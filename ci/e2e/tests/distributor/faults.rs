//! Faults during a burst: no pod is refused, and placed pods are in their groups.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use e2e::cluster::{PATIENCE, apply, eventually, get, kubectl, output};
use e2e::lag::Lag;
use e2e::release::Release;
use futures::future::join_all;
use serde_json::{Value, json};

use crate::distribution::{pods, settled, shares};
use crate::fixture::{
    REPOSITORY, distributor, install, nodes, rounds, spot_nodes, starting_deployment, status,
};

/// After a burst there are so many pods.
const PODS: usize = 100;

/// The fault.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// A replica is killed, and has no time to say goodbye.
    Killed,
    /// A replica is stopped until the burst is over, so its state is outdated.
    Stopped,
    /// All replicas are restarted, one after the other.
    Restarted,
    /// Somebody else writes the ledgers all the time.
    Conflicts,
    /// A quota lets two thirds of the pods through, until it is lifted.
    Quota,
    /// Another admission refuses one pod in two, at random.
    Denied,
    /// The API server is restarted.
    ApiServer,
    /// Every replica hears of pods five seconds late.
    Lag,
}

#[tokio::test]
async fn burst_with_killed_replicas_keeps_shares() {
    Fault::Killed.in_bursts().await;
}

#[tokio::test]
async fn burst_with_stopped_replica_keeps_shares() {
    Fault::Stopped.in_bursts().await;
}

#[tokio::test]
async fn burst_during_restart_keeps_shares() {
    Fault::Restarted.in_bursts().await;
}

#[tokio::test]
async fn burst_with_conflicting_writes_keeps_shares() {
    Fault::Conflicts.in_bursts().await;
}

#[tokio::test]
async fn burst_over_quota_keeps_shares() {
    Fault::Quota.in_bursts().await;
}

#[tokio::test]
async fn burst_with_rejected_pods_keeps_shares() {
    Fault::Denied.in_bursts().await;
}

#[tokio::test]
async fn burst_during_api_server_restart_keeps_shares() {
    Fault::ApiServer.in_bursts().await;
}

#[tokio::test]
async fn burst_with_late_watches_keeps_shares() {
    Fault::Lag.in_bursts().await;
}

impl Fault {
    /// It happens during a burst, several times. In the end five pods of a group are deleted, and come back to it.
    async fn in_bursts(self) {
        nodes().await;
        spot_nodes("uncordon").await;
        let (_lag, values) = self.way().await;
        let release = install(&format!("{self:?}").to_lowercase(), &values).await;
        let namespace = &*release.pods;
        distributor(namespace, &json!({"name": "web"})).await;
        // Replicas with delayed watches have received it.
        status(namespace, "the distributor is known", |status| !status.is_null()).await;
        for round in 0..rounds().min(10) {
            let deployment = format!("deployment/{}", release.fullname());
            if matches!(self, Self::Killed) && round > 0 {
                // A kubelet waits twice as long each time until it starts the same container again.
                release.restart().await;
            }
            release.kubectl(&["rollout", "status", &deployment, "--timeout=120s"]).await;
            starting_deployment(namespace).await;
            settled(namespace, 10).await;
            self.prepare(namespace).await;
            kubectl(&["scale", "-n", namespace, "deployment/web", &format!("--replicas={PODS}")]).await;
            self.happen(&release, round).await;
            self.settle(namespace).await;
            if matches!(self, Self::Lag) {
                lose_five(namespace).await;
            }
            assert_eq!(rejections(&release).await, 0, "no creation fails because of us");
            kubectl(&["delete", "deployment/web", "-n", namespace, "--cascade=foreground"]).await;
            settled(namespace, 0).await;
        }
    }

    /// The address of another way to the API server, and the chart values for it.
    async fn way(self) -> (Option<Lag>, Value) {
        if !matches!(self, Self::Lag) {
            return (None, json!({}));
        }
        let endpoints = get(&["endpoints", "kubernetes", "-n", "default"]).await;
        let address = endpoints["subsets"][0]["addresses"][0]["ip"].as_str().unwrap();
        let port = &endpoints["subsets"][0]["ports"][0]["port"];
        let kubeconfig = std::env::var("KUBECONFIG").unwrap();
        let pki = Path::new(&kubeconfig).parent().unwrap().with_file_name("pki");
        let lag = Lag::start(&pki, format!("{address}:{port}"), Duration::from_secs(5)).await;
        let env = json!([
            {"name": "KUBERNETES_SERVICE_HOST", "value": address},
            {"name": "KUBERNETES_SERVICE_PORT", "value": lag.port.to_string()},
        ]);
        (Some(lag), json!({"extraEnv": env}))
    }

    /// The objects that must exist before.
    async fn prepare(self, namespace: &str) {
        match self {
            Self::Quota => {
                apply(&json!({
                    "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few", "namespace": namespace},
                    "spec": {"hard": {"pods": (PODS * 2 / 3).to_string()}},
                }))
                .await;
                eventually("the quota counts", PATIENCE, async || {
                    let quota = get(&["resourcequota", "few", "-n", namespace]).await;
                    (quota["status"]["used"]["pods"] == "10").then_some(())
                })
                .await;
            }
            Self::Denied => {
                apply(&json!({
                    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
                    "metadata": {"name": "luck"},
                    "spec": {
                        "failurePolicy": "Fail",
                        "matchConstraints": {"resourceRules": [
                            {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
                        "validations": [{"expression": "!object.metadata.name.matches('[bcdfghjklm2-5]$')", "message": "no luck"}],
                    },
                }))
                .await;
                apply(&json!({
                    "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
                    "metadata": {"name": "luck"},
                    "spec": {
                        "policyName": "luck", "validationActions": ["Deny"],
                        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
                    },
                }))
                .await;
            }
            _ => {}
        }
    }

    async fn happen(self, release: &Release, round: usize) {
        let namespace = &*release.pods;
        match self {
            Self::Killed => {
                output("kill", &["-9", &a_process(release, round).await], "").await;
            }
            Self::Stopped => {
                let process = a_process(release, round).await;
                output("kill", &["-STOP", &process], "").await;
                eventually("all are created", PATIENCE, async || {
                    (pods(namespace).await.len() == PODS).then_some(())
                })
                .await;
                output("kill", &["-CONT", &process], "").await;
            }
            Self::Restarted => release.restart().await,
            Self::Conflicts => {
                join_all((0..4).map(async |writer| {
                    for round in 0..10 {
                        let note = format!("writer-{writer}={round}");
                        kubectl(&["annotate", "placements", "--all", "--overwrite", "-n", namespace, &note])
                            .await;
                    }
                }))
                .await;
            }
            Self::Quota => {
                refused(namespace).await;
                kubectl(&["delete", "resourcequota", "few", "-n", namespace]).await;
            }
            Self::Denied => {
                // About as many are refused.
                urged(namespace, PODS / 2).await;
                kubectl(&["delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "luck"])
                    .await;
                urged(namespace, PODS).await;
            }
            Self::ApiServer => {
                output(&format!("{REPOSITORY}/ci/cluster"), &["restart", "apiserver"], "").await;
            }
            Self::Lag => {
                for count in [PODS / 2, PODS] {
                    let replicas = format!("--replicas={count}");
                    kubectl(&["scale", "-n", namespace, "deployment/web", &replicas]).await;
                }
            }
        }
    }

    /// All pods are there in the end; of those that were placed each has a slot of its own, and they are where they belong.
    async fn settle(self, namespace: &str) {
        let pods = eventually(&format!("{PODS} pods after {self:?}"), PATIENCE * 3, async || {
            let pods = pods(namespace).await;
            let slots: BTreeSet<_> = pods.iter().filter_map(|pod| pod.slot).collect();
            let each_once = slots.len() == pods.iter().filter(|pod| pod.slot.is_some()).count();
            (pods.len() == PODS && pods.iter().all(|pod| pod.ready && !pod.gone) && each_once).then_some(pods)
        })
        .await;
        // While no replica answered in time, pods got in without a place: they are counted, and shown.
        let (placed, unplaced): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| pod.group.is_some());
        let (default, spot) = shares(placed.iter().copied());
        println!("{self:?}: {default}/{spot}, {} unplaced", unplaced.len());
        let answers = matches!(self, Self::Conflicts | Self::Quota | Self::Denied | Self::Lag);
        assert!(!answers || unplaced.is_empty(), "{self:?}: every replica answers, and places all");
        assert!((default as f64 - placed.len() as f64 * 0.8).abs() <= 1.0, "{self:?}: {default}/{spot}");
        status(namespace, "every pod is counted", |status| {
            status["unplaced"] == unplaced.len() && status["placed"] == placed.len()
        })
        .await;
    }
}

/// Has the controller create at least so many pods: who is refused again and again waits for minutes until it tries again, unless
/// something happens.
async fn urged(namespace: &str, count: usize) {
    let begun = Instant::now();
    eventually(&format!("{count} are created"), PATIENCE, async || {
        let again = format!("again={}", begun.elapsed().as_millis());
        kubectl(&["annotate", "replicasets", "--all", "--overwrite", "-n", namespace, &again]).await;
        (pods(namespace).await.len() >= count).then_some(())
    })
    .await;
}

/// Waits until the controller has tried and been refused; it tries again after.
async fn refused(namespace: &str) {
    eventually("a refusal", PATIENCE, async || {
        let deployment = get(&["deployment", "web", "-n", namespace]).await;
        let conditions = deployment["status"]["conditions"].as_array()?;
        let failed = |one: &&Value| one["type"] == "ReplicaFailure" && one["status"] == "True";
        conditions.iter().find(failed).map(|_| ())
    })
    .await;
}

/// One of the release's processes; in the cluster's namespaces they are in sight.
async fn a_process(release: &Release, number: usize) -> String {
    let host = format!("HOSTNAME={}-", release.fullname());
    let own = |process: &&str| {
        let environment = std::fs::read_to_string(format!("/proc/{process}/environ")).unwrap_or_default();
        environment.split('\0').any(|variable| variable.starts_with(&host))
    };
    let processes = output("pgrep", &["-x", "distributor"], "").await;
    let processes: Vec<&str> = processes.lines().filter(own).collect();
    assert_eq!(processes.len(), 3, "{processes:?}");
    processes[number % 3].to_owned()
}

/// Five pods of a group are deleted before a watch delivers that. Their successors return to the group.
async fn lose_five(namespace: &str) {
    let before = settled(namespace, PODS).await;
    let spot = get(&["pods", "-n", namespace]).await;
    let spot = spot["items"].as_array().unwrap().iter();
    let spot = spot.filter(|pod| pod["spec"]["nodeSelector"]["type"] == "spot").take(5);
    let names: Vec<&str> = spot.map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    kubectl(&[&["delete", "pods", "-n", namespace, "--force", "--grace-period=0"], &names[..]].concat())
        .await;
    let after = settled(namespace, PODS).await;
    assert_eq!(shares(&after), shares(&before), "five spot pods were deleted, and came back");
}

/// How many creations the API server has refused because of the webhook.
async fn rejections(release: &Release) -> usize {
    let configuration = get(&["mutatingwebhookconfiguration", &release.fullname()]).await;
    let webhook = format!("name=\"{}\"", configuration["webhooks"][0]["name"].as_str().unwrap());
    let metrics = kubectl(&["get", "--raw", "/metrics"]).await;
    let counted =
        metrics.lines().filter(|line| line.starts_with("apiserver_admission_webhook_rejection_count"));
    counted.filter(|line| line.contains(&webhook)).count()
}

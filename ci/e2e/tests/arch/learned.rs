//! `architecturesFrom: Cluster`, with nodes and NodePools that come and go.

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output};
use e2e::registry::{Access, Registry};
use serde_json::{Value, json};

use super::{ANNOTATION, REPOSITORY, Setting};

const NAME: &str = "arch-learned";
const ARCH_TAINT: &str = "kubernetes.io/arch=arm64:NoSchedule";

/// Nodes, NodePools and the definition of NodePools. They are deleted when this is dropped.
struct Objects;

impl Objects {
    /// A fake node with these taints.
    async fn node(arch: &str, taints: &[&str]) {
        let prefix = format!("{NAME}-{arch}");
        let label = format!("podshaper-test={NAME}");
        let mut arguments = vec!["nodes", "1", "--prefix", &prefix, "--arch", arch, "--label", &label];
        arguments.extend(taints.iter().flat_map(|taint| ["--taint", taint]));
        output(&format!("{REPOSITORY}/ci/cluster"), &arguments, "").await;
    }

    /// A node without a kubelet, which is never ready.
    async fn node_that_is_not_ready(arch: &str) {
        apply(&json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": format!("{NAME}-{arch}-1"), "labels": {"kubernetes.io/arch": arch, "kubernetes.io/os": "linux", "podshaper-test": NAME}},
            "spec": {"taints": [{"key": "kubernetes.io/arch", "value": arch, "effect": "NoSchedule"}]},
        }))
        .await;
        eventually("the node has the taint of its condition", PATIENCE, async || {
            let node = get(&["node", &format!("{NAME}-{arch}-1")]).await;
            node["spec"]["taints"].to_string().contains("node.kubernetes.io/").then_some(())
        })
        .await;
    }

    async fn delete_node(arch: &str) {
        kubectl(&["delete", "node", &format!("{NAME}-{arch}-1")]).await;
    }

    /// The definition of Karpenter's NodePools, as far as `arch` reads them.
    async fn define_node_pools() {
        let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        apply(&json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "nodepools.karpenter.sh"},
            "spec": {
                "group": "karpenter.sh", "scope": "Cluster", "names": {"kind": "NodePool", "plural": "nodepools"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
            },
        }))
        .await;
        kubectl(&["wait", "--for=condition=Established", "crd/nodepools.karpenter.sh"]).await;
    }

    /// A NodePool without nodes.
    async fn node_pool(arch: &str) {
        let taint = |key: &str, value: &str| json!({"key": key, "value": value, "effect": "NoSchedule"});
        let spec = json!({
            "requirements": [{"key": "kubernetes.io/arch", "operator": "In", "values": [arch]}],
            "taints": [taint("kubernetes.io/arch", arch), taint("dedicated", "ml")],
            "startupTaints": [taint("node.cilium.io/agent-not-ready", arch)],
        });
        apply(&json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": NAME}, "spec": {"template": {"spec": spec}}})).await;
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        for arguments in [
            &["delete", "node", "--selector=podshaper-test=arch-learned"][..],
            &["delete", "crd", "nodepools.karpenter.sh"],
        ] {
            let _ = std::process::Command::new("kubectl").args(arguments).output();
        }
    }
}

/// The tolerations that a pod has gained, as `KEY=VALUE:EFFECT`.
fn gained(pod: &Value) -> Vec<String> {
    let text = |toleration: &Value, key: &str| toleration[key].as_str().unwrap_or_default().to_owned();
    // The API server adds those for not-ready and unreachable.
    let own = |toleration: &&Value| !matches!(&*text(toleration, "effect"), "" | "NoExecute");
    let tolerations = pod["spec"]["tolerations"].as_array().unwrap().iter().filter(own);
    let line = |own: &Value| format!("{}={}:{}", text(own, "key"), text(own, "value"), text(own, "effect"));
    tolerations.map(line).collect()
}

/// The architectures that a pod requires.
fn required(pod: &Value) -> Value {
    let affinity = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    affinity["nodeSelectorTerms"][0]["matchExpressions"][0]["values"].clone()
}

/// A setting, and the images of its registry.
struct Cluster {
    setting: Setting,
    both: String,
    arm: String,
    mainframe: String,
}

impl Cluster {
    async fn admitted(&self, image: &str) -> Value {
        create(&self.setting.pod(&[image], json!({})), &["--dry-run=server"]).await.unwrap()
    }

    /// Checks that no pod is refused, and that pods for arm64 gain these tolerations and no others.
    async fn has(&self, what: &str, tolerations: &[&str]) {
        eventually(&format!("{what}: {tolerations:?} is tolerated"), PATIENCE, async || {
            let pod = self.admitted(&self.arm).await;
            (required(&pod) == json!(["arm64"]) && gained(&pod) == tolerations).then_some(())
        })
        .await;
        let both = self.admitted(&self.both).await;
        assert_eq!(
            (required(&both), gained(&both)),
            (json!(["amd64", "arm64"]), gained_by(tolerations)),
            "{what}"
        );
        let mainframe = self.admitted(&self.mainframe).await;
        assert_eq!((required(&mainframe), gained(&mainframe).len()), (Value::Null, 0), "{what}");
        assert!(mainframe["metadata"]["annotations"][ANNOTATION].is_null(), "{what}");
        let output = self.setting.create_output(&self.setting.pod(&[&self.mainframe], json!({}))).await;
        assert!(
            output.contains("no architecture that nodes of the cluster have runs all images"),
            "{output}"
        );
    }
}

fn gained_by(tolerations: &[&str]) -> Vec<String> {
    tolerations.iter().map(|&toleration| toleration.to_owned()).collect()
}

#[tokio::test]
async fn pods_tolerate_the_taint_of_their_architecture_only() {
    let registry = Registry::start(5473, Access::Basic).await;
    let both = registry.push("team/both:1", &["linux/amd64", "linux/arm64"], false).await;
    let arm = registry.push("team/arm:1", &["linux/arm64"], true).await;
    let mainframe = registry.push("team/mainframe:1", &["linux/s390x"], false).await;
    let _objects = Objects;
    Objects::node("amd64", &[]).await;
    Objects::define_node_pools().await;
    Objects::node_pool("arm64").await;
    let values = json!({"architectures": {}, "architecturesFrom": "Cluster"});
    let setting = Setting::install_without_nodes(NAME, &[&registry], values).await;
    let cluster = Cluster { setting, both, arm, mainframe };

    cluster.has("a NodePool at zero", &[ARCH_TAINT]).await;
    kubectl(&["delete", "nodepool", NAME]).await;
    Objects::node("arm64", &["node-role.kubernetes.io/control-plane=:NoSchedule"]).await;
    cluster.has("control planes of arm64 beside workers of amd64", &[]).await;
    Objects::node("arm64", &[ARCH_TAINT, "dedicated=ml:NoSchedule", "team=arm64:NoSchedule"]).await;
    cluster.has("a dedicated pool", &[ARCH_TAINT]).await;
    assert_eq!(cluster.setting.lands(&cluster.setting.pod(&[&cluster.both], json!({}))).await, "amd64");
    Objects::delete_node("arm64").await;
    Objects::node_that_is_not_ready("arm64").await;
    cluster.has("nodes that are not ready", &[ARCH_TAINT]).await;
    Objects::delete_node("arm64").await;
    cluster.has("no node any more", &[ARCH_TAINT]).await;
    let record = get(&["configmap", "--namespace", NAME, &format!("{NAME}-arch-nodes")]).await;
    let recorded: Value = serde_json::from_str(record["data"]["arm64"].as_str().unwrap()).unwrap();
    assert_eq!(
        recorded["taints"],
        json!([{"key": "kubernetes.io/arch", "value": "arm64", "effect": "NoSchedule"}])
    );
    Objects::node("arm64", &[ARCH_TAINT]).await;
    assert_eq!(cluster.setting.lands(&cluster.setting.pod(&[&cluster.arm], json!({}))).await, "arm64");

    event_and_outage(&cluster).await;
}

/// A controller's user sees a warning as an Event. While the webhook is down, a workload can still be written.
async fn event_and_outage(cluster: &Cluster) {
    let setting = &cluster.setting;
    let pods = &*cluster.setting.release.pods;
    let spec = setting.pod(&[&cluster.mainframe], json!({}))["spec"].clone();
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": pods},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}},
    });
    create(&deployment, &[]).await.unwrap();
    eventually("an Event about the ReplicaSet", PATIENCE, async || {
        let events =
            get(&["events", "--namespace", pods, "--field-selector=reason=ArchitectureUnknown"]).await;
        let about = |event: &Value| {
            event["involvedObject"]["kind"] == "ReplicaSet"
                && event["message"]
                    .as_str()
                    .is_some_and(|text| text.contains("no architecture that nodes of the cluster have"))
        };
        events["items"].as_array()?.iter().any(about).then_some(())
    })
    .await;

    let fullname = setting.release.fullname();
    let fails = json!([{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Fail"}]).to_string();
    kubectl(&["patch", "mutatingwebhookconfiguration", &fullname, "--type=json", "--patch", &fails]).await;
    kubectl(&["scale", "deployment", &fullname, "--namespace", NAME, "--replicas=0"]).await;
    let refused = eventually("a pod is refused without the webhook", PATIENCE, async || {
        create(&setting.pod(&[&cluster.both], json!({})), &["--dry-run=server"]).await.err()
    })
    .await;
    assert!(refused.contains("failed calling webhook"), "{refused}");
    kubectl(&["label", "deployment", "web", "--namespace", pods, "written=during-the-outage"]).await;
    kubectl(&["delete", "deployment", "web", "--namespace", pods, "--wait=false"]).await;
}

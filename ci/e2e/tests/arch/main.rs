//! `arch` in a cluster, installed by the chart, with real registries.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::needless_pass_by_value
)]

mod learned;

use std::time::Duration;

use e2e::cluster::{PATIENCE, apply, create, eventually, get, kubectl, output, run};
use e2e::registry::{Access, Registry};
use e2e::release::Release;
use serde_json::{Value, json};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const ANNOTATION: &str = "podshaper.dev/arch";

/// A node of each architecture; arm64's is tainted. They go with this.
struct Nodes(&'static str);

impl Nodes {
    async fn new(name: &'static str) -> Self {
        for arch in ["amd64", "arm64", "s390x"] {
            let prefix = format!("{name}-{arch}");
            let label = format!("podshaper-test={name}");
            let mut arguments = vec!["nodes", "1", "--prefix", &prefix, "--arch", arch, "--label", &label];
            if arch == "arm64" {
                arguments.extend(["--taint", "arch=arm64:NoSchedule"]);
            }
            output(&format!("{REPOSITORY}/ci/cluster"), &arguments, "").await;
        }
        Self(name)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        let selector = format!("--selector=podshaper-test={}", self.0);
        let _ = std::process::Command::new("kubectl").args(["delete", "node", &selector]).output();
    }
}

fn architectures() -> Value {
    json!({"amd64": {}, "arm64": {"taintsToTolerate": [{"key": "arch", "value": "arm64", "effect": "NoSchedule"}]}, "s390x": {}})
}

struct Setting {
    release: Release,
    values: Value,
    _nodes: Option<Nodes>,
}

impl Setting {
    /// With a node of each architecture.
    async fn install(name: &'static str, registries: &[&Registry], values: Value) -> Self {
        let nodes = Nodes::new(name).await;
        Self { _nodes: Some(nodes), ..Self::install_without_nodes(name, registries, values).await }
    }

    async fn install_without_nodes(name: &str, registries: &[&Registry], mut values: Value) -> Self {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"podshaper-test": name}}});
        apply(&namespace).await;
        apply(&Registry::secret(name, "registries", registries.first().copied())).await;
        let bundle: String = registries.iter().map(|registry| registry.ca.as_str()).collect();
        let base = json!({
            "architectures": architectures(), "dockerConfigSecretName": "registries", "pullSecrets": {"enabled": true, "acceptUnauthenticated": true},
            "registries": {"caBundle": bundle}, "log": {"level": "debug"},
        });
        for (key, value) in base.as_object().unwrap() {
            values.as_object_mut().unwrap().entry(key).or_insert_with(|| value.clone());
        }
        let release = Release::install_webhook("arch", name, &json!({"arch": values})).await;
        Self { release, values, _nodes: None }
    }

    /// The same release with other values.
    async fn upgrade(&mut self, values: Value) {
        overlay(&mut self.values, &values);
        self.release.upgrade(&json!({"arch": self.values})).await;
    }

    /// A pod of these images for the nodes of this test.
    fn pod(&self, images: &[&str], more: Value) -> Value {
        let containers: Vec<_> = images
            .iter()
            .enumerate()
            .map(|(n, image)| json!({"name": format!("c{n}"), "image": image, "imagePullPolicy": "IfNotPresent"}))
            .collect();
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"generateName": "pod-", "namespace": self.release.pods},
            "spec": {
                "terminationGracePeriodSeconds": 0, "containers": containers, "nodeSelector": {"podshaper-test": self.release.name},
                "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            },
        });
        overlay(&mut pod["spec"], &more);
        pod
    }

    /// Where a pod lands: the architecture of its node.
    async fn lands(&self, pod: &Value) -> String {
        self.landed(&create(pod, &[]).await.unwrap()).await
    }

    async fn landed(&self, created: &Value) -> String {
        let name = created["metadata"]["name"].as_str().unwrap();
        let node = eventually(&format!("{name} has a node: {created}"), PATIENCE, async || {
            let pod = get(&["pod", "--namespace", &self.release.pods, name]).await;
            pod["spec"]["nodeName"].as_str().map(str::to_owned)
        })
        .await;
        node.trim_start_matches(&format!("{}-", self.release.name)).trim_end_matches("-1").to_owned()
    }

    /// The output of `kubectl` for a pod that is created or refused.
    async fn create_output(&self, pod: &Value) -> String {
        let output = run("kubectl", &["create", "-f", "-"], &pod.to_string()).await;
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

fn overlay(base: &mut Value, over: &Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                overlay(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, over) => *base = over.clone(),
    }
}

fn required(terms: Value) -> Value {
    json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}})
}

fn arch_in(values: Value) -> Value {
    json!({"matchExpressions": [{"key": "kubernetes.io/arch", "operator": "In", "values": values}]})
}

#[tokio::test]
async fn pod_runs_on_architecture_of_all_images() {
    let mut registry = Registry::start(5443, Access::Basic).await;
    let amd = registry.push("team/amd:1", &["linux/amd64"], true).await;
    let arm = registry.push("team/arm:1", &["linux/arm64"], false).await;
    let mainframe = registry.push("team/mainframe:1", &["linux/s390x", "windows/amd64"], false).await;
    let two = registry.push("team/two:1", &["linux/arm64", "linux/s390x"], false).await;
    let setting = Setting::install("arch-lands", &[&registry], json!({})).await;
    let own_arch = json!({"nodeSelector": {"kubernetes.io/arch": "s390x"}});
    for (images, more, expected) in [
        (vec![&amd], json!({}), "amd64"),
        (vec![&arm], json!({}), "arm64"),
        (vec![&mainframe], json!({}), "s390x"),
        (vec![&two, &arm], json!({}), "arm64"),
        (vec![&two, &mainframe], json!({}), "s390x"),
        // Its author has chosen.
        (vec![&amd], own_arch, "s390x"),
        // One of the two terms is met by no node that runs the image.
        (
            vec![&arm],
            required(json!([arch_in(json!(["amd64", "arm64"])), arch_in(json!(["s390x"]))])),
            "arm64",
        ),
    ] {
        let images: Vec<_> = images.into_iter().map(String::as_str).collect();
        assert_eq!(setting.lands(&setting.pod(&images, more.clone())).await, expected, "{images:?} {more}");
    }

    let denied = setting.create_output(&setting.pod(&[&amd, &arm], json!({}))).await;
    assert!(denied.contains("no architecture runs all images") && denied.contains(&arm), "{denied}");

    let nothing = format!("{}/team/nothing:1", registry.host);
    let unknown = setting.pod(&[&amd, &nothing], json!({}));
    assert!(setting.create_output(&unknown).await.contains("isn't there"));
    let created = create(&unknown, &[]).await.unwrap();
    assert_eq!(created["metadata"]["annotations"][ANNOTATION], json!(format!("amd64; unknown: {nothing}")));
    assert_eq!(setting.landed(&created).await, "amd64");

    // The registry stops. Pods with known images are not affected, and the others are created unchanged.
    registry.kill().await;
    assert_eq!(setting.lands(&setting.pod(&[&arm], json!({}))).await, "arm64");
    let never_seen = format!("{}/team/new:1", registry.host);
    assert!(
        setting
            .create_output(&setting.pod(&[&never_seen], json!({})))
            .await
            .contains("doesn't answer as it should")
    );
    let helm = ["test", &setting.release.name, "--namespace", &setting.release.name];
    output("helm", &helm, "").await;
}

#[tokio::test]
async fn private_image_is_resolved_with_pull_secret() {
    let registry = Registry::start(5453, Access::Token).await;
    let arm = registry.push("private/arm:1", &["linux/arm64"], true).await;
    let setting = Setting::install("arch-secrets", &[&registry], json!({"dockerConfigSecretName": ""})).await;
    let pods = &setting.release.pods;
    apply(&Registry::secret(pods, "right", [&registry])).await;
    apply(&json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": "odd", "namespace": pods},
        "stringData": {".dockerconfigjson": "{\"auths\": {\"a\": {\"auth\": \"!\"}}}"},
    }))
    .await;
    let pod = |secrets: Value| setting.pod(&[&arm], json!({"imagePullSecrets": secrets}));
    let output = setting.create_output(&pod(json!([]))).await;
    assert!(output.contains("may not be read with the credentials at hand"), "{output}");
    let odd = setting.create_output(&pod(json!([{"name": "odd"}, {"name": "missing"}]))).await;
    assert!(odd.contains("Secret odd: it isn't a Docker configuration"), "{odd}");
    assert_eq!(setting.lands(&pod(json!([{"name": "odd"}, {"name": "right"}]))).await, "arm64");
    // An answer that required one pod's Secret is not available to a pod without it.
    let output = setting.create_output(&pod(json!([]))).await;
    assert!(output.contains("may not be read with the credentials at hand"), "{output}");

    // Workloads are seen before their pods are.
    let another = registry.push("private/another:1", &["linux/arm64"], false).await;
    let template = setting.pod(&[&another], json!({"imagePullSecrets": [{"name": "right"}]}));
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": pods},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]}},
    });
    create(&deployment, &[]).await.unwrap();
    eventually("three pods on arm64", PATIENCE, async || {
        let list = get(&["pods", "--namespace", pods, "--selector=app=web"]).await;
        let nodes: Vec<_> =
            list["items"].as_array()?.iter().filter_map(|pod| pod["spec"]["nodeName"].as_str()).collect();
        (nodes.len() == 3 && nodes.iter().all(|node| node.contains("arm64"))).then_some(())
    })
    .await;
    kubectl(&["delete", "deployment", "web", "--namespace", pods]).await;
}

#[tokio::test]
async fn pod_of_missing_image_is_gated_until_image_exists() {
    let registry = Registry::start(5463, Access::Basic).await;
    let amd = registry.push("team/amd:1", &["linux/amd64", "linux/arm64"], false).await;
    let late = format!("{}/team/late:1", registry.host);
    let values = json!({"onUnknown": "gate", "gateMaxAge": "40s"});
    let mut setting = Setting::install("arch-gate", &[&registry], values).await;
    let zones = required(json!([
        {"matchExpressions": [{"key": "podshaper-test", "operator": "Exists"}]},
        {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
    ]));
    let waiting = create(&setting.pod(&[&amd, &late], zones), &[]).await.unwrap();
    assert_eq!(waiting["spec"]["schedulingGates"], json!([{"name": "podshaper.dev/arch"}]));
    let given_up = create(&setting.pod(&[&amd, &format!("{}/team/never:1", registry.host)], json!({})), &[])
        .await
        .unwrap();
    registry.push("team/late:1", &["linux/arm64"], true).await;
    assert_eq!(setting.landed(&waiting).await, "arm64");
    let name = waiting["metadata"]["name"].as_str().unwrap();
    let lifted = get(&["pod", "--namespace", &setting.release.pods, name]).await;
    assert_eq!(lifted["metadata"]["annotations"][ANNOTATION], "arm64");
    assert!(lifted["metadata"]["labels"]["podshaper.dev/arch-gated"].is_null());

    // The pod does not wait forever. It runs on amd64, because a toleration requires an answer for every image.
    let name = given_up["metadata"]["name"].as_str().unwrap();
    let node = eventually("the longest wait is over", Duration::from_mins(2), async || {
        let pod = get(&["pod", "--namespace", &setting.release.pods, name]).await;
        pod["spec"]["nodeName"].as_str().map(str::to_owned)
    })
    .await;
    assert!(node.contains("amd64"), "{node}");

    // liftGated removes the gate, too.
    setting.upgrade(json!({"gateMaxAge": "1h"})).await;
    let never = format!("{}/team/never:2", registry.host);
    let left = create(&setting.pod(&[&amd, &never], json!({})), &[]).await.unwrap();
    assert_eq!(left["spec"]["schedulingGates"], json!([{"name": "podshaper.dev/arch"}]));
    setting.upgrade(json!({"onUnknown": "skip", "liftGated": true})).await;
    assert_eq!(setting.landed(&left).await, "amd64");
}

//! `arch report`: the same decision as the webhook's, about workloads in files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::process::Output;

use serde_json::{Value, json};
use support::registry::{Registry, config, digest, index, manifest};
use support::server::{BINARY, file, flag};

async fn registry() -> Registry {
    let amd = config("linux", "amd64");
    let chart = json!({"schemaVersion": 2, "layers": [], "config": {"mediaType": "x/y", "digest": digest(b"{}"), "size": 2}});
    let blob = format!("a/blobs/{}", digest(&amd));
    Registry::of(vec![
        ("a/manifests/multi", index(&["linux/amd64", "linux/arm64"])),
        ("a/manifests/windows", index(&["windows/amd64"])),
        ("a/manifests/amd", manifest(&amd)),
        ("a/manifests/chart", chart.to_string().into_bytes()),
        (&blob, amd.clone()),
    ])
    .await
}

/// Runs the command on these objects.
async fn report(settings: &Value, objects: &[Value], arguments: &[&str]) -> Output {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let settings = file(&settings.to_string());
    let list = file(&list);
    let settings = flag("config", settings.path());
    let list = flag("filename", list.path());
    let mut command = tokio::process::Command::new(BINARY);
    command.arg("report").args([settings, list]).args(arguments);
    command.output().await.unwrap()
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn deployment(name: &str, spec: &Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "d"}, "spec": {"template": {"spec": spec}}})
}

#[tokio::test]
async fn workload_is_reported_as_the_webhook_decides() {
    let registry = registry().await;
    let image = |tag: &str| format!("{}/a:{tag}", registry.host());
    let one = |tag: &str| json!([{"name": "c", "image": image(tag)}]);
    let objects = [
        deployment(
            "iis",
            &json!({"nodeSelector": {"kubernetes.io/os": "windows"}, "containers": one("windows")}),
        ),
        deployment(
            "iis-by-pool",
            &json!({"nodeSelector": {"agentpool": "winnp"}, "containers": one("windows")}),
        ),
        deployment(
            "pinned",
            &json!({"nodeSelector": {"kubernetes.io/arch": "amd64"}, "containers": one("multi")}),
        ),
        deployment("chart", &json!({"containers": one("chart")})),
        deployment("amd", &json!({"containers": one("amd")})),
        deployment(
            "volume",
            &json!({"containers": one("multi"), "volumes": [{"name": "m", "image": {"reference": image("amd")}}]}),
        ),
        deployment(
            "never",
            &json!({"containers": [{"name": "c", "image": image("amd"), "imagePullPolicy": "Never"}]}),
        ),
        deployment("stated", &json!({"containers": one("legacy")})),
    ];
    let pattern = format!("{}/a:legacy", registry.host());
    let settings = json!({"registries": {"plainHttp": [registry.host()]}, "images": [{"match": pattern, "architectures": ["arm64"]}]});
    let output = report(&settings, &objects, &[]).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        lines(&output),
        [
            "NAMESPACE WORKLOAD ARM64 WHY".to_owned(),
            format!("d Deployment/amd blocked {} runs on amd64", image("amd")),
            "d Deployment/iis not-applicable runs on windows".to_owned(),
            "d Deployment/iis-by-pool not-applicable runs on windows".to_owned(),
            "d Deployment/pinned pinned its node selector or affinity excludes the architecture".to_owned(),
            "d Deployment/stated ready".to_owned(),
            "d Deployment/volume ready".to_owned(),
            format!("d Deployment/chart unknown {} is an artifact without an architecture", image("chart")),
            format!("d Deployment/never unknown {} has the pull policy Never", image("amd")),
            String::new(),
            "8 workloads: 2 ready for arm64, 1 blocked, 1 pinned, 2 unknown, 2 not applicable".to_owned(),
            String::new(),
            "To rebuild for arm64:".to_owned(),
            format!("{} (1 workload)", image("amd")),
        ]
    );
    let failed = report(&settings, &objects, &["--exit-code"]).await;
    assert_eq!(failed.status.code(), Some(1));
    let error = String::from_utf8(failed.stderr).unwrap();
    assert!(error.contains("4 of 8 workloads not ready for arm64"), "{error}");
    let ready = report(&settings, &objects[5..6], &["--exit-code"]).await;
    assert!(ready.status.success(), "{ready:?}");
    assert!(lines(&ready)[3].starts_with("1 workload: 1 ready"), "{ready:?}");
    let unknown = report(&settings, &objects, &["--for", "amd46"]).await;
    assert_eq!(unknown.status.code(), Some(2));
    let json = report(&settings, &objects[2..3], &["--output", "json"]).await;
    let json: Value = serde_json::from_str(str::from_utf8(&json.stdout).unwrap()).unwrap();
    assert_eq!(json, json!([{"namespace": "d", "workload": "Deployment/pinned", "result": "pinned"}]));
}

#[tokio::test]
async fn pod_on_a_node_that_its_image_does_not_support_is_listed() {
    let registry = registry().await;
    let node = |name: &str, architecture: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"kubernetes.io/arch": architecture}}});
    let pod = |name: &str, node: &str, tag: &str| {
        let image = format!("{}/a:{tag}", registry.host());
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "n"},
            "spec": {"nodeName": node, "containers": [{"name": "c", "image": image}]}})
    };
    let objects = [
        node("amd", "amd64"),
        node("arm", "arm64"),
        pod("right", "amd", "amd"),
        pod("both", "arm", "multi"),
        pod("wrong", "arm", "amd"),
    ];
    let settings = json!({"registries": {"plainHttp": [registry.host()]}});
    let output = report(&settings, &objects, &["--for", "amd64", "--exit-code"]).await;
    assert_eq!(output.status.code(), Some(1));
    let lines = lines(&output);
    let place = lines.iter().position(|line| line == "On nodes where an image does not run:").unwrap();
    let expected = format!("n wrong arm arm64 {}/a:amd runs on amd64", registry.host());
    assert_eq!(lines[place + 1..], ["NAMESPACE POD NODE ARCH WHY".to_owned(), expected]);
}

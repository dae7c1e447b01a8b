//! Properties of the decision about pods with every field: the samples in k8s.io/api's testdata of each Kubernetes release.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::path::Path;

use podshaper_core::admission::Verdict;
use serde_json::{Value, json};
use support::{
    VM, containers_mut, decide, decoded_by_api_server, limit_ranged, pass, patched, untouched, webhook,
    without_limit_ranger,
};

/// Every sample below `PODSHAPER_POD_SAMPLES`, with its path.
fn samples() -> Vec<(String, Value)> {
    let folder = std::env::var("PODSHAPER_POD_SAMPLES")
        .expect("PODSHAPER_POD_SAMPLES must name a folder of pods in JSON");
    let mut samples = Vec::new();
    collect(Path::new(&folder), &mut samples);
    assert!(!samples.is_empty(), "no *.json below {folder}");
    samples
}

fn collect(folder: &Path, samples: &mut Vec<(String, Value)>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, samples);
        } else if path.extension().is_some_and(|extension| extension == "json") {
            let pod: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            if pod["kind"] == "Pod" {
                samples.push((path.display().to_string(), pod));
            }
        }
    }
}

/// The samples have every field, but with names that Kubernetes refuses.
fn with_valid_resources(mut pod: Value) -> Value {
    for container in containers_mut(&mut pod) {
        container
            .insert("resources".into(), json!({"requests": {"cpu": "1"}, "claims": [{"name": "claim"}]}));
    }
    pod["spec"]["resourceClaims"] = json!([{"name": "claim", "resourceClaimName": "object"}]);
    pod["spec"]["resources"] = json!({"requests": {"cpu": "100"}});
    pod["spec"]["overhead"] = json!({"cpu": "1"});
    pod["spec"]["os"] = json!({"name": "linux"});
    pod
}

#[test]
fn sample_pods_have_all_properties() {
    for (path, sample) in samples() {
        let class = sample["spec"]["runtimeClassName"]
            .as_str()
            .unwrap_or_else(|| panic!("{path} has no class"))
            .to_owned();
        let resources = json!({"requests": {"cpu": "1500m", "memory": "1Gi"}, "limits": {"cpu": "2"}});
        let sample = with_valid_resources(sample);
        let mut with_resources = sample.clone();
        with_resources["spec"]["containers"][0]["resources"] = resources;
        for settings in [
            json!({}),
            json!({"sizing": "effective"}),
            json!({"keepResources": ["ephemeral-storage", "claims"]}),
        ] {
            let mut settings = settings;
            settings["runtimeClasses"] = json!({&class: {}});
            let webhook = webhook(&settings);
            for pod in [&sample, &with_resources] {
                let pod = decoded_by_api_server(pod.clone());
                let decision = decide(&webhook, &pod);
                assert_eq!(decision.verdict, Verdict::Admit, "{path}");
                let first = patched(&pod, &decision);
                let resources = &first["spec"]["containers"][0]["resources"];
                assert_eq!(resources["limits"], json!({VM: "1"}), "{path}: {:?}", decision.warnings);
                assert_eq!(untouched(first.clone()), untouched(pod), "{path}");
                let first = decoded_by_api_server(first);
                assert!(decide(&webhook, &first).patch.is_empty(), "{path}");
                let filled =
                    limit_ranged(first.clone(), &json!({"cpu": "7", "memory": "9Gi"}), &json!({"cpu": "8"}));
                let second = decoded_by_api_server(pass(&webhook, &filled).unwrap());
                assert_eq!(without_limit_ranger(second), without_limit_ranger(first), "{path}");
            }
        }
    }
}

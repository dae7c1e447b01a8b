//! The API server applies patches as another implementation does: the resulting pods are equal.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::time::Instant;

use e2e::pods::peer_pods;
use e2e::release::Release;
use kube::Client;
use peerpods_decision::PeerPods;
use peerpods_decision::config::Config;
use peerpods_decision::original_requests::ANNOTATION as ORIGINAL_REQUESTS;
use podshaper_core::admission::{Request, answer};
use serde_json::{Value, json};

/// The API server admits a few hundred pods per second here.
fn count() -> usize {
    std::env::var("PROPTEST_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(256)
}

#[tokio::test]
async fn api_server_applies_patches_of_generated_pods() {
    let release = Release::install("patches", &json!({})).await;
    let webhook = PeerPods::new(Config::default(), ["kata-remote"], "kata.peerpods.io/vm").unwrap();
    let client = Client::try_default().await.unwrap();
    let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", release.pods);
    for pod in peer_pods(&release.pods, count()) {
        let request = http::Request::post(&path)
            .header("content-type", "application/json")
            .body(pod.to_string().into_bytes());
        let created: Value = client.request(request.unwrap()).await.unwrap_or_else(|e| panic!("{e}\n{pod}"));
        let patched = patched(&webhook, &pod).await;
        for (name, value) in patched["metadata"]["annotations"].as_object().unwrap() {
            // The record keeps quantities as spelled, and the API server respells them.
            if name == ORIGINAL_REQUESTS {
                continue;
            }
            assert_eq!(&created["metadata"]["annotations"][name], value, "{name}\n{pod}\n{created}");
        }
        for list in ["containers", "initContainers"] {
            for (expected, actual) in patched["spec"][list]
                .as_array()
                .unwrap()
                .iter()
                .zip(created["spec"][list].as_array().into_iter().flatten())
            {
                let expected = expected.get("resources").cloned().unwrap_or(json!({}));
                assert_eq!(actual["resources"], expected, "{list} {}\n{pod}\n{created}", actual["name"]);
            }
        }
    }
}

/// `pod` with the patch of the decision, applied by the json-patch crate.
async fn patched(webhook: &PeerPods, pod: &Value) -> Value {
    let review = Request::create("v1", "Pod", "default", pod).to_review().unwrap();
    let answer = answer(webhook, review.as_bytes(), Instant::now()).await.unwrap();
    let patch: json_patch::Patch = serde_json::from_value(answer.response().unwrap().patch.into()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

//! Every patch applies: the API server makes of generated pods what the decision says by itself.
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

/// Pods per second that the API server admits here are a few hundred.
fn count() -> usize {
    std::env::var("PROPTEST_CASES").ok().and_then(|s| s.parse().ok()).unwrap_or(256)
}

#[tokio::test]
async fn the_api_server_makes_of_generated_pods_what_the_decision_says() {
    let release = Release::install("patches", &json!({})).await;
    let webhook = PeerPods::new(Config::default(), ["kata-remote"], "kata.peerpods.io/vm").unwrap();
    let client = Client::try_default().await.unwrap();
    let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", release.pods);
    for pod in peer_pods(&release.pods, count()) {
        let request = http::Request::post(&path)
            .header("content-type", "application/json")
            .body(pod.to_string().into_bytes());
        let created: Value = client.request(request.unwrap()).await.unwrap_or_else(|e| panic!("{e}\n{pod}"));
        let decided = decided(&webhook, &pod).await;
        for (name, value) in decided["metadata"]["annotations"].as_object().unwrap() {
            // It remembers quantities as it gets them, and from the API server they come in their canonical form.
            if name == ORIGINAL_REQUESTS {
                continue;
            }
            assert_eq!(&created["metadata"]["annotations"][name], value, "{name}\n{pod}\n{created}");
        }
        for list in ["containers", "initContainers"] {
            for (ours, theirs) in decided["spec"][list]
                .as_array()
                .unwrap()
                .iter()
                .zip(created["spec"][list].as_array().into_iter().flatten())
            {
                let ours = ours.get("resources").cloned().unwrap_or(json!({}));
                assert_eq!(theirs["resources"], ours, "{list} {}\n{pod}\n{created}", theirs["name"]);
            }
        }
    }
}

/// The pod as the decision leaves it, patched by another implementation than the API server's.
async fn decided(webhook: &PeerPods, pod: &Value) -> Value {
    let review = Request::create("v1", "Pod", "default", pod).to_review().unwrap();
    let answer = answer(webhook, review.as_bytes(), Instant::now()).await.unwrap();
    let patch: json_patch::Patch = serde_json::from_value(answer.response().unwrap().patch.into()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

//! Peer pods. A quota on CPU and memory, and a LimitRange with a minimum, need placeholders: see docs/peerpods.md.

use e2e::release::Release;
use kube::Client;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use super::namespaces::Namespaces;
use super::peerpods_support::generated;
use super::verdicts::{Verdicts, restricted};

/// Of this many pods, one breaks `PodSecurity`'s level.
const UNRESTRICTED: usize = 10;

#[tokio::test]
async fn peer_pod_admitted_without_webhook_is_admitted_with_it() {
    let placeholders = json!({
        "cpu": {"request": "10m", "limit": "100m"}, "memory": {"request": "1Mi", "limit": "10Mi"},
    });
    let values = json!({"peerpods": {"config": {"placeholders": placeholders}}});
    let release = Release::install("admission-peerpods", &values).await;
    let bounded = Namespaces::create("admission-peerpods-bounded", &release.pods).await;
    bounded
        .limit(
            "bounds",
            &json!({"limits": [
                {
                    "type": "Container",
                    "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "200m", "memory": "100Mi"},
                    "min": {"cpu": "10m", "memory": "1Mi"}, "max": {"cpu": "4", "memory": "8Gi"},
                    "maxLimitRequestRatio": {"cpu": "20"},
                },
                {"type": "Pod", "max": {"cpu": "6", "memory": "64Gi"}},
            ]}),
        )
        .await
        .unwrap();
    bounded.demand(&["requests.cpu", "requests.memory", "limits.cpu", "limits.memory", "pods"]).await;
    let free = Namespaces::create("admission-peerpods-free", &release.pods).await;

    let mut runner = TestRunner::deterministic();
    let strategy = generated::pods();
    let pods = (0..super::pods()).map(|index| {
        let namespaces = if index % 2 == 0 { &bounded } else { &free };
        (namespaces, pod(index, strategy.new_tree(&mut runner).unwrap().current()))
    });
    let verdicts = Verdicts::of(&Client::try_default().await.unwrap(), pods).await;
    verdicts.assert_none_refused_by_webhook();
    verdicts.assert_same_reasons();
}

fn pod(index: usize, mut pod: Value) -> Value {
    pod["metadata"] = json!({"name": "p"});
    if index.is_multiple_of(UNRESTRICTED) { pod } else { restricted(pod) }
}

//! The groups of the pods of a workload, and assertions about their distribution.

use std::collections::{BTreeMap, BTreeSet};

use e2e::cluster::{PATIENCE, eventually, get, kubectl};
use serde_json::Value;

pub(crate) const GROUP: &str = "placement.podshaper.dev/group";
pub(crate) const SLOT: &str = "placement.podshaper.dev/slot";
pub(crate) const TOKEN: &str = "placement.podshaper.dev/token";

/// A pod as far as placement is concerned.
#[derive(Debug)]
pub(crate) struct Pod {
    pub(crate) owner: String,
    pub(crate) group: Option<String>,
    pub(crate) slot: Option<u32>,
    pub(crate) gone: bool,
    pub(crate) ready: bool,
}

pub(crate) async fn pods(namespace: &str) -> Vec<Pod> {
    let list = kubectl(&["get", "--raw", &format!("/api/v1/namespaces/{namespace}/pods")]).await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let read = |pod: &Value| {
        let annotation = |key: &str| pod["metadata"]["annotations"][key].as_str().map(str::to_owned);
        let group = pod["spec"]["nodeSelector"]["type"].as_str().map(str::to_owned);
        let marked = annotation(GROUP).map(|name| name.trim_start_matches("type=").to_owned());
        assert_eq!(group, marked, "what is marked is what is selected: {pod:#}");
        let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
        let phase = pod["status"]["phase"].as_str().unwrap_or_default();
        Pod {
            owner: pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default().to_owned(),
            group,
            slot: annotation(SLOT).map(|slot| slot.parse().unwrap()),
            gone: !pod["metadata"]["deletionTimestamp"].is_null() || phase == "Failed",
            ready: phase == "Succeeded"
                || conditions.into_iter().any(|one| one["type"] == "Ready" && one["status"] == "True"),
        }
    };
    list["items"].as_array().unwrap().iter().map(read).collect()
}

/// How many pods are in the groups default and spot.
pub(crate) fn shares<'p>(pods: impl IntoIterator<Item = &'p Pod>) -> (usize, usize) {
    pods.into_iter().fold((0, 0), |(default, spot), pod| match pod.group.as_deref() {
        Some("default") => (default + 1, spot),
        Some("spot") => (default, spot + 1),
        other => panic!("a pod in no group, {other:?}: {pod:?}"),
    })
}

/// The pods of each group at 80/20.
fn exact(pods: usize) -> (usize, usize) {
    let default = (pods * 8).div_ceil(10);
    (default, pods - default)
}

/// Waits until there are so many pods, all of them ready, and nothing else.
pub(crate) async fn settled(namespace: &str, count: usize) -> Vec<Pod> {
    eventually(&format!("{count} pods"), PATIENCE * 2, async || {
        let pods = pods(namespace).await;
        (pods.len() == count && pods.iter().all(|pod| pod.ready && !pod.gone)).then_some(pods)
    })
    .await
}

pub(crate) async fn scale(namespace: &str, kind: &str, count: usize) -> Vec<Pod> {
    let workload = format!("{kind}/web");
    kubectl(&["scale", "-n", namespace, &workload, &format!("--replicas={count}")]).await;
    // A watch, because repeated lists of hundreds of pods slow their creation. The status omits a zero.
    if count > 0 {
        let there = format!("--for=jsonpath={{.status.replicas}}={count}");
        kubectl(&["wait", "-n", namespace, &workload, &there, "--timeout=180s"]).await;
    }
    settled(namespace, count).await
}

pub(crate) fn assert_exact(pods: &[Pod], what: &str) {
    assert_eq!(shares(pods), exact(pods.len()), "{what}");
    let slots: BTreeSet<u32> = pods.iter().filter_map(|pod| pod.slot).collect();
    assert_eq!(slots.len(), pods.len(), "each slot once: {what}");
}

/// Less than a pod off the exact share.
pub(crate) fn assert_near((default, spot): (usize, usize), what: &str) {
    let count = default + spot;
    let off = default as f64 - count as f64 * 0.8;
    assert!(off.abs() < 1.0, "{what}: {default}/{spot} of {count}");
}

/// Number of reservations for unobserved pods, by owner.
pub(crate) async fn reserved(namespace: &str) -> BTreeMap<String, usize> {
    let placements = get(&["placements", "-n", namespace]).await;
    let read = |placement: &Value| {
        let owner = placement["metadata"]["ownerReferences"][0]["name"].as_str().unwrap().to_owned();
        (owner, placement["spec"]["reservations"].as_str().map_or(0, |text| text.lines().count()))
    };
    placements["items"].as_array().unwrap().iter().map(read).collect()
}

/// Nothing is reserved any more.
pub(crate) async fn nothing_reserved(namespace: &str) {
    eventually("no reservations", PATIENCE, async || {
        reserved(namespace).await.values().all(|count| *count == 0).then_some(())
    })
    .await;
}

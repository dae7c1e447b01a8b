//! The record of the last nodes of each architecture, in a ConfigMap: an architecture is known for 30 days after its last node, and a
//! process seldom runs that long.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper_core::pod;
use podshaper_kube::request::{MediaType, get, send};
use serde::Deserialize;
use serde_json::{Value, json};

use arch_decision::learned::{LastNodes, NodeHistory};
use arch_decision::platform::KUBERNETES_ARCHITECTURES;
use arch_decision::table::Taint;

/// The age at which the record of an architecture with nodes is written again.
const REFRESH: Duration = Duration::from_hours(24);
/// The largest number of taints of an architecture in the record.
const MAX_TAINTS: usize = 64;

/// The ConfigMap.
pub(super) struct NodeRecord {
    client: Client,
    path: String,
}

/// `v1.ConfigMap`.
#[derive(Deserialize)]
struct ConfigMap {
    data: Option<BTreeMap<String, String>>,
}

/// The value of a key.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    last_node: String,
    #[serde(default)]
    taints: Vec<pod::Taint>,
}

impl NodeRecord {
    /// The ConfigMap with this name in the namespace of the pod.
    pub(super) fn new(client: Client, name: &str) -> Self {
        let path = format!("/api/v1/namespaces/{}/configmaps/{name}", client.default_namespace());
        Self { client, path }
    }

    /// Reads the record. Rights: get the ConfigMap.
    pub(super) async fn read(&self) -> kube::Result<NodeHistory> {
        let object: Option<ConfigMap> = get(&self.client, &self.path).await?;
        Ok(parse(object.and_then(|object| object.data).unwrap_or_default()))
    }

    /// Writes the changes between `recorded` and `history`. Replicas write the same. Rights: patch the ConfigMap.
    pub(super) async fn write(&self, recorded: &NodeHistory, history: &NodeHistory) -> kube::Result<bool> {
        let changes = changes(recorded, history);
        if changes.is_empty() {
            return Ok(false);
        }
        let patch = json!({"data": changes});
        send(&self.client, "PATCH", &self.path, MediaType::MergePatch, &patch).await.map(|_| true)
    }
}

/// Parses the data. Entries of another shape, which somebody has edited, are left out.
fn parse(data: BTreeMap<String, String>) -> NodeHistory {
    let entry = |(name, text): (String, String)| {
        if !KUBERNETES_ARCHITECTURES.contains(&&*name) {
            return None;
        }
        let Entry { last_node, taints } = serde_json::from_str(&text).ok()?;
        let time: Timestamp = last_node.parse().ok()?;
        let is_own = |taint: &pod::Taint| taint.value == name;
        let taints = taints.into_iter().filter(is_own).take(MAX_TAINTS);
        let taints = taints.map(|pod::Taint { key, value, effect }| Taint { key, value, effect });
        Some((name.as_str().into(), LastNodes { time: time.into(), taints: taints.collect() }))
    };
    data.into_iter().filter_map(entry).collect()
}

/// The data of a merge patch: null for an architecture that is forgotten.
fn changes(recorded: &NodeHistory, history: &NodeHistory) -> serde_json::Map<String, Value> {
    let is_old =
        |before: SystemTime, now: SystemTime| now.duration_since(before).is_ok_and(|age| age >= REFRESH);
    let changed = history.iter().filter(|(name, last)| {
        recorded
            .get(*name)
            .is_none_or(|before| before.taints != last.taints || is_old(before.time, last.time))
    });
    let forgotten = recorded.keys().filter(|name| !history.contains_key(*name));
    let written = changed.map(|(name, last)| (name.to_string(), Value::String(entry(last))));
    written.chain(forgotten.map(|name| (name.to_string(), Value::Null))).collect()
}

fn entry(last: &LastNodes) -> String {
    let taints: Vec<_> = last
        .taints
        .iter()
        .map(|Taint { key, value, effect }| json!({"key": key, "value": value, "effect": effect}))
        .collect();
    let time = Timestamp::try_from(last.time).unwrap_or_default();
    json!({"lastNode": format!("{time:.0}"), "taints": taints}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(names: &[&str], seconds: u64) -> NodeHistory {
        let last = |name: &str| LastNodes {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
            taints: [Taint {
                key: "arch".to_owned(),
                value: name.to_owned(),
                effect: "NoSchedule".to_owned(),
            }]
            .into(),
        };
        names.iter().map(|name| ((*name).into(), last(name))).collect()
    }

    fn data(changes: serde_json::Map<String, Value>) -> BTreeMap<String, String> {
        changes.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect()
    }

    #[test]
    fn record_is_read_as_it_was_written() {
        let all = history(&["arm64", "amd64"], 1_800_000_000);
        let written = data(changes(&NodeHistory::new(), &all));
        assert_eq!(
            written["arm64"],
            r#"{"lastNode":"2027-01-15T08:00:00Z","taints":[{"key":"arch","value":"arm64","effect":"NoSchedule"}]}"#
        );
        assert_eq!(parse(written), all);
    }

    #[test]
    fn record_is_written_once_a_day_and_when_taints_change() {
        let first = history(&["arm64"], 1_000_000);
        let later = history(&["arm64"], 1_000_000 + 86_399);
        assert_eq!(changes(&first, &later).len(), 0);
        assert_eq!(changes(&first, &history(&["arm64"], 1_000_000 + 86_400)).len(), 1);
        let mut untainted = first.clone();
        untainted.get_mut("arm64").unwrap().taints.clear();
        assert_eq!(changes(&first, &untainted).len(), 1);
        assert_eq!(changes(&first, &NodeHistory::new())["arm64"], Value::Null);
    }

    #[test]
    fn edited_entries_are_left_out() {
        let entry = |taints: &str| format!(r#"{{"lastNode": "2027-01-15T08:00:00Z", "taints": {taints}}}"#);
        let foreign = entry(r#"[{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]"#);
        let data = [
            ("arm64", "{}".to_owned()),
            ("s390x", "no JSON".to_owned()),
            ("wasm", entry("[]")),
            ("ppc64le", r#"{"lastNode": "yesterday"}"#.to_owned()),
            ("amd64", foreign),
        ];
        let parsed = parse(data.map(|(key, value)| (key.to_owned(), value)).into());
        assert_eq!(parsed.len(), 1);
        assert!(parsed["amd64"].taints.is_empty(), "the value is no architecture");
    }
}

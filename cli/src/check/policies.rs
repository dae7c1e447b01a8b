//! The conditions of the objects that configure webhooks.

use serde_json::Value;

use super::finding::Finding;
use super::snapshot::{Read, Snapshot};

/// Each object that has a condition other than expected, or one line for all that have none.
pub(super) fn check(cluster: &Snapshot) -> Vec<Finding> {
    let mut findings = of_kind("PodDistributor", &cluster.distributors);
    findings.extend(of_kind("FlexDaemonsetTemplate", &cluster.templates));
    findings
}

fn of_kind(kind: &str, objects: &Read<Vec<Value>>) -> Vec<Finding> {
    let objects = match objects {
        Read::Hidden(reason) => return vec![Finding::skipped(&format!("conditions of {kind}s"), reason)],
        Read::Found(objects) if objects.is_empty() => return Vec::new(),
        Read::Found(objects) => objects,
    };
    let findings: Vec<_> = objects.iter().filter_map(|object| not_ready(kind, object)).collect();
    if findings.is_empty() {
        return vec![Finding::passed(format!("all {} {kind}s are ready", objects.len()))];
    }
    findings
}

/// A warning with the message of the condition `Ready`, unless it is `True`.
fn not_ready(kind: &str, object: &Value) -> Option<Finding> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let name = text("/metadata/name").unwrap_or_default();
    let name = text("/metadata/namespace")
        .map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"));
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    let ready = conditions.and_then(|all| {
        all.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some("Ready"))
    });
    let Some(ready) = ready else {
        let hint = "The leader of the webhook writes it within seconds. Is the webhook running?";
        return Some(Finding::warning(format!("{kind} {name} has no condition Ready"), hint));
    };
    let field = |field: &str| ready.get(field).and_then(Value::as_str).unwrap_or_default();
    let message = format!("{kind} {name} is not ready: {}", field("reason"));
    (field("status") != "True").then(|| Finding::warning(message, field("message")))
}

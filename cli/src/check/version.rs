//! The version of the API server.

use serde_json::Value;

use super::finding::Finding;

/// The oldest supported minor version: `matchConditions` and `ValidatingAdmissionPolicy` are stable since 1.30.
const OLDEST_MINOR: u32 = 30;

pub(super) fn check(version: &Value) -> Finding {
    let text = version.get("gitVersion").and_then(Value::as_str).unwrap_or("of an unknown version");
    // Some providers append a plus sign.
    let minor = version.get("minor").and_then(Value::as_str).unwrap_or_default().trim_end_matches('+');
    let major = version.get("major").and_then(Value::as_str).unwrap_or_default();
    match (major, minor.parse::<u32>()) {
        ("1", Ok(minor)) if minor < OLDEST_MINOR => Finding::failed(
            format!("the API server is {text}"),
            format!("Podshaper needs Kubernetes 1.{OLDEST_MINOR} or later. Upgrade the cluster."),
        ),
        (_, Ok(_)) => Finding::passed(format!("the API server is {text}")),
        _ => Finding::warning(
            format!("the API server is {text}"),
            format!("Podshaper needs Kubernetes 1.{OLDEST_MINOR} or later."),
        ),
    }
}

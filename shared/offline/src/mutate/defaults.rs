//! Defaults that the API server fills in before it calls a webhook, as far as they follow from the manifest.

use serde_json::{Map, Value, json};

/// The operations that add a request for each resource of a container that has a limit and no request (`SetDefaults_Pod` of
/// k8s.io/kubernetes/pkg/apis/core/v1).
pub(super) fn requests_from_limits(pod: &Value) -> Vec<Value> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| {
        let containers = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        containers.into_iter().flatten().enumerate().map(move |(index, container)| (list, index, container))
    });
    let operations = containers.filter_map(|(list, index, container)| {
        let resources = container.get("resources")?;
        let limits = resources.get("limits")?.as_object()?;
        let mut requests = match resources.get("requests") {
            None | Some(Value::Null) => Map::new(),
            Some(requests) => requests.as_object()?.clone(),
        };
        let given = requests.len();
        for (resource, limit) in limits {
            requests.entry(resource).or_insert_with(|| limit.clone());
        }
        let path = format!("/spec/{list}/{index}/resources/requests");
        (requests.len() > given).then(|| json!({"op": "add", "path": path, "value": requests}))
    });
    operations.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(container: &str) -> String {
        let pod: Value =
            serde_json::from_str(&format!(r#"{{"spec":{{"initContainers":[{container}]}}}}"#)).unwrap();
        Value::from(requests_from_limits(&pod)).to_string()
    }

    #[test]
    fn absent_request_equals_limit() {
        for whole in [
            "null",
            "[]",
            r#"{"resources":null}"#,
            r#"{"resources":{"limits":[]}}"#,
            r#"{"resources":{"limits":{"cpu":"1"},"requests":"x"}}"#,
            r#"{"resources":{"limits":{"cpu":"1"},"requests":{"cpu":"0"}}}"#,
            r#"{"resources":{"limits":{},"requests":{"cpu":"1"}}}"#,
        ] {
            assert_eq!(operations(whole), "[]", "{whole}");
        }
        for (resources, requests) in [
            (r#"{"limits":{"cpu":1,"memory":"1Gi"}}"#, r#"{"cpu":1,"memory":"1Gi"}"#),
            (r#"{"limits":{"cpu":"2","x/y":"1"},"requests":{"cpu":"1"}}"#, r#"{"cpu":"1","x/y":"1"}"#),
            (r#"{"limits":{"cpu":"2"},"requests":null}"#, r#"{"cpu":"2"}"#),
        ] {
            let path = "/spec/initContainers/0/resources/requests";
            assert_eq!(
                operations(&format!(r#"{{"resources":{resources}}}"#)),
                format!(r#"[{{"op":"add","path":"{path}","value":{requests}}}]"#)
            );
        }
    }
}

//! What the API server fills in before it calls a webhook, as far as a manifest alone tells.

use serde_json::{Map, Value, json};

/// The operations on `pod` that give its containers the requests that they don't say but limit (`SetDefaults_Pod` of
/// k8s.io/kubernetes/pkg/apis/core/v1).
pub(super) fn requests_from_limits(pod: &Map<String, Value>) -> Vec<Value> {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| {
        let containers = pod.get("spec").and_then(|spec| spec.get(list)).and_then(Value::as_array);
        containers.into_iter().flatten().enumerate().map(move |(index, container)| (list, index, container))
    });
    let filled = containers.filter_map(|(list, index, container)| {
        let resources = container.get("resources")?;
        let limits = resources.get("limits")?.as_object()?;
        let mut requests = match resources.get("requests") {
            None | Some(Value::Null) => Map::new(),
            Some(requests) => requests.as_object()?.clone(),
        };
        let said = requests.len();
        for (resource, limit) in limits {
            requests.entry(resource).or_insert_with(|| limit.clone());
        }
        let path = format!("/spec/{list}/{index}/resources/requests");
        (requests.len() > said).then(|| json!({"op": "add", "path": path, "value": requests}))
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operations(container: &str) -> String {
        let pod: Value =
            serde_json::from_str(&format!(r#"{{"spec":{{"initContainers":[{container}]}}}}"#)).unwrap();
        Value::from(requests_from_limits(pod.as_object().unwrap())).to_string()
    }

    #[test]
    fn only_what_is_not_said_comes_from_the_limits() {
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

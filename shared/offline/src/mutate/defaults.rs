//! Defaults that the API server fills in before it calls a webhook, as far as they follow from the manifest.

use podshaper_core::pod::{ContainerRole, aggregate};
use podshaper_core::quantity::Quantity;
use serde_json::{Map, Value, json};

const LISTS: [&str; 2] = ["containers", "initContainers"];

/// The operations that add a request for each resource with a limit and no request, of containers and of the pod (`SetDefaults_Pod` of
/// k8s.io/kubernetes/pkg/apis/core/v1).
pub(super) fn requests_from_limits(pod: &Value) -> Vec<Value> {
    let containers = LISTS.into_iter().flat_map(|list| {
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
    operations.chain(pod_requests(pod)).collect()
}

/// The operation that adds requests to `spec.resources` with limits (`defaultPodRequests`): the total of the containers, else
/// the limit.
fn pod_requests(pod: &Value) -> Option<Value> {
    let spec = pod.get("spec")?;
    let resources = spec.get("resources")?;
    let limits = resources.get("limits")?.as_object().filter(|limits| !limits.is_empty())?;
    let mut requests = match resources.get("requests") {
        None | Some(Value::Null) => Map::new(),
        Some(requests) => requests.as_object()?.clone(),
    };
    let given = requests.len();
    for resource in ["cpu", "memory"] {
        if !requests.contains_key(resource)
            && let Some(total) = container_total(spec, resource)
        {
            requests.insert(resource.to_owned(), json!(total.to_string()));
        }
    }
    for (resource, limit) in limits {
        requests.entry(resource).or_insert_with(|| limit.clone());
    }
    (requests.len() > given)
        .then(|| json!({"op": "add", "path": "/spec/resources/requests", "value": requests}))
}

/// The total request of the containers (`AggregateContainerRequests`); `None` if none requests the resource, or an amount is not
/// a quantity.
fn container_total(spec: &Value, resource: &str) -> Option<Quantity> {
    let mut amounts = Vec::new();
    for list in LISTS {
        for container in spec.get(list).and_then(Value::as_array).into_iter().flatten() {
            let of = |field: &str| container.get("resources")?.get(field)?.get(resource);
            let Some(amount) = of("requests").or_else(|| of("limits")) else { continue };
            let is_sidecar = container.get("restartPolicy").is_some_and(|policy| policy == "Always");
            let role = match list {
                "containers" => ContainerRole::App,
                _ if is_sidecar => ContainerRole::Sidecar,
                _ => ContainerRole::Init,
            };
            amounts.push((role, Quantity::from_json(&amount.to_string()).ok()?));
        }
    }
    if amounts.is_empty() {
        return None;
    }
    aggregate(amounts.into_iter().map(Ok), |a, b| a.checked_add(&b).ok_or(())).ok()
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
    fn absent_request_of_pod_is_total_or_limit() {
        let pod = |resources: &str| {
            let pod = format!(
                r#"{{"spec":{{"containers":[{{"resources":{{"requests":{{"cpu":"1"}}}}}},{{"resources":{{"requests":{{"cpu":"500m"}}}}}}],
                "resources":{resources}}}}}"#
            );
            let pod: Value = serde_json::from_str(&pod).unwrap();
            requests_from_limits(&pod).pop().map_or(Value::Null, |operation| operation["value"].clone())
        };
        assert_eq!(pod(r#"{"limits":{"cpu":"4","memory":"8Gi"}}"#), json!({"cpu": "1500m", "memory": "8Gi"}));
        assert_eq!(
            pod(r#"{"limits":{"memory":"8Gi"},"requests":{"memory":"1Gi"}}"#),
            json!({"memory": "1Gi", "cpu": "1500m"})
        );
        assert_eq!(pod(r#"{"requests":{"cpu":"4"}}"#), Value::Null);
        assert_eq!(pod(r#"{"limits":{}}"#), Value::Null);
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

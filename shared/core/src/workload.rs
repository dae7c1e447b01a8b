//! The pod template of a workload.

use serde_json::Value;

use crate::patch::Pointer;

/// Finds the pod template of an object by its shape, so that kinds that are not built in have one too.
///
/// It is `/spec/template` in a Deployment, a StatefulSet, a DaemonSet, a ReplicaSet, a Job and most other kinds, such as Argo's Rollout or
/// Knative's Service; `/spec/jobTemplate/spec/template` in a CronJob; `/template` in a `PodTemplate`. A Pod has none.
pub fn pod_template(object: &Value) -> Option<Pointer> {
    let mut current = object;
    let mut pointer = Pointer::root();
    loop {
        let (step, next) = ["template", "jobTemplate", "spec"]
            .into_iter()
            .find_map(|step| current.get(step).filter(|next| next.is_object()).map(|next| (step, next)))?;
        current = next;
        pointer = pointer.key(step);
        if step == "template" && current.pointer("/spec/containers").is_some_and(Value::is_array) {
            return Some(pointer);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn workload_has_pod_template() {
        let template = json!({"spec": {"containers": []}});
        for (workload, pointer) in [
            (json!({"kind": "Deployment", "spec": {"replicas": 2, "template": template}}), "/spec/template"),
            (
                json!({"kind": "ReplicationController", "spec": {"selector": {}, "template": template}}),
                "/spec/template",
            ),
            (json!({"kind": "Rollout", "spec": {"strategy": {}, "template": template}}), "/spec/template"),
            (json!({"kind": "PodTemplate", "template": template}), "/template"),
            (
                json!({"kind": "CronJob", "spec": {"jobTemplate": {"metadata": {}, "spec": {"template": template}}}}),
                "/spec/jobTemplate/spec/template",
            ),
            (
                json!({"kind": "AdvancedCronJob", "spec": {"template": {"jobTemplate": {"spec": {"template": template}}}}}),
                "/spec/template/jobTemplate/spec/template",
            ),
        ] {
            let found = pod_template(&workload).unwrap();
            assert_eq!(found.as_str(), pointer, "{workload}");
            assert_eq!(workload.pointer(pointer), Some(&template));
        }
    }

    #[test]
    fn other_object_has_none() {
        for object in [
            json!(null),
            json!([]),
            json!("template"),
            json!({"kind": "Pod", "spec": {"containers": []}}),
            json!({"kind": "ConfigMap", "data": {"template": {"spec": {"containers": []}}}}),
            json!({"kind": "Certificate", "spec": {"template": {"metadata": {}}}}),
            json!({"kind": "Odd", "spec": {"template": {"spec": {"containers": "none"}}}}),
            json!({"kind": "Odd", "spec": {"template": "{{ .Values }}"}}),
        ] {
            assert_eq!(pod_template(&object), None, "{object}");
        }
    }
}

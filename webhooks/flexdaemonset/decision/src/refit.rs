//! How a running pod differs from the size that it should have, and how it can get that size.
//!
//! The kubelet resizes cpu and memory of containers and sidecars in place (`pods/resize`). It can't remove a request or
//! limit, change the pod's QoS class, or resize ephemeral-storage (`ValidatePodResize` of
//! k8s.io/kubernetes/pkg/apis/core/validation). Those changes need a new pod. Init containers have ended and
//! aren't resized.

use podshaper_core::pod::{ContainerList, ContainerRole, ResourceTarget};
use serde_json::{Map, Value, json};

use crate::resource::{PerResource, RequestAndLimit, SizedResource};
use crate::sizing::{PodLevel, SizedContainer, Sizing};

/// How a pod differs from its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The differences beyond the hysteresis, in one line.
    pub summary: String,
    /// How the pod can get its size.
    pub remedy: Remedy,
}

/// How a pod can get its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// By this strategic merge patch of its `resize` subresource.
    Resize(Value),
    /// By a new pod alone, for this reason.
    Recreate(&'static str),
}

/// How a pod differs from `sizing`, if a request or limit does by more than `hysteresis` percent.
///
/// In a pod that `was_sized` before, a resource that the template no longer sizes returns to its original request.
/// `qos` is the pod's `status.qosClass`.
pub fn compare(sizing: &Sizing<'_>, was_sized: bool, qos: &str, hysteresis: u8) -> Option<Difference> {
    let mut changes = Changes::default();
    let mut after = Vec::new();
    for container in &sizing.containers {
        let target = PerResource::from_fn(|resource| match *container.sized.get(resource) {
            _ if container.role == ContainerRole::Init => *container.current.get(resource),
            Some(sized) => sized,
            None if was_sized => *container.original.get(resource),
            None => *container.current.get(resource),
        });
        changes.add(container, &target, hysteresis);
        after.extend([*target.get(SizedResource::Cpu), *target.get(SizedResource::Memory)]);
    }
    changes.add_pod_level(&sizing.pod, was_sized, hysteresis);
    if changes.summary.is_empty() {
        return None;
    }
    let summary = changes.summary.join(", ");
    let has_pod_level = sizing.pod.current != PerResource::default();
    let changes_qos = !qos.is_empty() && qos_class(&after) != qos;
    let recreate = if has_pod_level {
        Some("a pod with spec.resources isn't resized in place")
    } else {
        changes.recreate.or(changes_qos.then_some("the pod's QoS class would change"))
    };
    let remedy = recreate.map_or_else(|| Remedy::Resize(changes.into_patch()), Remedy::Recreate);
    Some(Difference { summary, remedy })
}

/// The changes of all containers.
#[derive(Default)]
struct Changes {
    summary: Vec<String>,
    recreate: Option<&'static str>,
    containers: Vec<Value>,
    init_containers: Vec<Value>,
}

impl Changes {
    fn add(&mut self, container: &SizedContainer<'_>, target: &PerResource<RequestAndLimit>, hysteresis: u8) {
        let name = &*container.container.name;
        let mut requests = Map::new();
        let mut limits = Map::new();
        for resource in SizedResource::ALL {
            let current = *container.current.get(resource);
            let target = *target.get(resource);
            let differs = differs(current, target, hysteresis);
            if differs {
                self.summary.push(summary(name, resource, current, target));
            }
            if resource == SizedResource::Storage {
                if differs {
                    self.recreate = Some("ephemeral-storage can't be resized in place");
                }
                continue;
            }
            for (list, current, target) in
                [(&mut requests, current.request, target.request), (&mut limits, current.limit, target.limit)]
            {
                match target {
                    Some(target) if current != Some(target) => {
                        list.insert(resource.name().to_owned(), resource.format(target).into());
                    }
                    None if current.is_some() => {
                        self.recreate = Some("a request or limit can't be removed in place");
                    }
                    _ => {}
                }
            }
        }
        if !requests.is_empty() || !limits.is_empty() {
            let list = match container.place {
                ResourceTarget::Container(ContainerList::InitContainers, _) => &mut self.init_containers,
                _ => &mut self.containers,
            };
            list.push(json!({"name": name, "resources": {"requests": requests, "limits": limits}}));
        }
    }

    fn add_pod_level(&mut self, pod: &PodLevel, was_sized: bool, hysteresis: u8) {
        for resource in SizedResource::ALL {
            let current = *pod.current.get(resource);
            let target = match *pod.sized.get(resource) {
                Some(sized) => sized,
                None if was_sized => *pod.original.get(resource),
                None => current,
            };
            if differs(current, target, hysteresis) {
                self.summary.push(summary("the pod", resource, current, target));
            }
        }
    }

    fn into_patch(self) -> Value {
        let mut spec = Map::new();
        for (list, patches) in [("containers", self.containers), ("initContainers", self.init_containers)] {
            if !patches.is_empty() {
                spec.insert(list.to_owned(), patches.into());
            }
        }
        json!({"spec": spec})
    }
}

/// Whether the request or the limit changes by more than `hysteresis` percent.
fn differs(current: RequestAndLimit, target: RequestAndLimit, hysteresis: u8) -> bool {
    let exceeds = |current: Option<i64>, target: Option<i64>| match (current, target) {
        (Some(current), Some(target)) => {
            let change = (i128::from(target) - i128::from(current)).abs() * 100;
            change > i128::from(current) * i128::from(hysteresis)
        }
        (current, target) => current != target,
    };
    exceeds(current.request, target.request) || exceeds(current.limit, target.limit)
}

fn summary(
    container: &str,
    resource: SizedResource,
    current: RequestAndLimit,
    target: RequestAndLimit,
) -> String {
    let format =
        |amount: Option<i64>| amount.map_or_else(|| "none".to_owned(), |amount| resource.format(amount));
    let name = resource.name();
    let before = format(current.request);
    let after = format(target.request);
    if before == after {
        format!("{container}: limit of {name} {} → {}", format(current.limit), format(target.limit))
    } else {
        format!("{container}: {name} {before} → {after}")
    }
}

/// `GetPodQOS` of k8s.io/kubernetes/pkg/apis/core/v1/helper/qos, from cpu and memory of all containers.
fn qos_class(cpu_and_memory: &[RequestAndLimit]) -> &'static str {
    let is_set = |amount: Option<i64>| amount.is_some_and(|amount| amount > 0);
    if cpu_and_memory.iter().all(|one| !is_set(one.request) && !is_set(one.limit)) {
        "BestEffort"
    } else if cpu_and_memory.iter().all(|one| is_set(one.limit) && one.request == one.limit) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use podshaper_core::object::FromObject;
    use podshaper_core::pod::Pod;

    use super::*;
    use crate::namespace_limits::NamespaceLimits;
    use crate::node::Node;
    use crate::original_requests::OriginalRequests;
    use crate::rules::Template;
    use crate::sizing::size;

    /// The difference of a pod with this container, which was sized before and has these original requests.
    fn difference(spec: &Value, resources: &Value, original: &Value, qos: &str) -> Option<Difference> {
        let template = Template::from_spec(spec).unwrap();
        let node = json!({"metadata": {}, "status": {"allocatable": {"cpu": "1000", "memory": "1000"}}});
        let node = Node::from_object(serde_json::from_value(node).unwrap()).unwrap();
        let pod = json!({"spec": {
            "containers": [{"name": "a", "resources": resources}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "7"}, "limits": {"cpu": "7", "memory": "7"}}}],
        }});
        let pod = pod.to_string();
        let original = json!({"containers": {"a": original}}).to_string();
        let pod: Pod<'_> = serde_json::from_str(&pod).unwrap();
        let original: OriginalRequests<'_> = serde_json::from_str(&original).unwrap();
        let sizing = size(&template, &node, &NamespaceLimits::default(), &pod, Some(&original)).unwrap();
        compare(&sizing, true, qos, 5)
    }

    fn both(cpu: &str, memory: &str) -> Value {
        let list = json!({"cpu": cpu, "memory": memory});
        json!({"requests": list, "limits": list})
    }

    #[test]
    fn cpu_and_memory_are_resized_in_place() {
        let spec = json!({"cpuPercentage": 10, "memoryPercentage": 10});
        assert_eq!(difference(&spec, &both("100", "100"), &json!({}), "Guaranteed"), None);
        assert_eq!(
            difference(&spec, &both("96", "104"), &json!({}), "Guaranteed"),
            None,
            "within five percent"
        );
        let twenty_one = json!({"cpuPercentage": 21});
        assert_eq!(
            difference(&twenty_one, &both("200", "1"), &both("200", "1"), "Guaranteed"),
            None,
            "just five"
        );
        let resized = difference(&spec, &both("95", "104"), &json!({}), "Guaranteed").unwrap();
        assert_eq!(resized.summary, "a: cpu 95 → 100");
        let all = json!({"cpu": "100", "memory": "100"});
        let patch =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": all, "limits": all}}]}});
        assert_eq!(
            resized.remedy,
            Remedy::Resize(patch),
            "memory is within the hysteresis, but is resized with cpu"
        );
    }

    #[test]
    fn change_that_needs_new_pod_has_reason() {
        let spec = json!({"cpuPercentage": 10, "memoryPercentage": 10});
        let recreate = |spec: &Value, resources: &Value, original: &Value, qos: &str| match difference(
            spec, resources, original, qos,
        ) {
            Some(Difference { remedy: Remedy::Recreate(reason), .. }) => reason,
            other => panic!("{other:?}"),
        };
        let burstable = json!({"requests": {"cpu": "10", "memory": "10"}});
        assert!(recreate(&spec, &burstable, &json!({}), "Burstable").contains("QoS"));
        let storage = json!({"minStorage": "1Gi"});
        assert!(
            recreate(&storage, &both("1", "1"), &both("1", "1"), "Guaranteed").contains("ephemeral-storage")
        );
        let memory_alone = json!({"memoryPercentage": 10});
        let original = json!({"requests": {"memory": "1"}});
        assert!(
            recreate(&memory_alone, &both("100", "100"), &original, "Guaranteed").contains("removed"),
            "cpu is no longer sized"
        );
    }

    #[test]
    fn resource_no_longer_sized_returns_to_original() {
        let difference =
            difference(&json!({"memoryPercentage": 10}), &both("200", "100"), &both("5", "1"), "Guaranteed")
                .unwrap();
        assert_eq!(difference.summary, "a: cpu 200 → 5");
        assert!(matches!(difference.remedy, Remedy::Resize(_)));
    }
}

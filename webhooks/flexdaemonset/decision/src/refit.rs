//! A running pod and the size that it should have by now: what differs, and what can be done about it.
//!
//! The kubelet resizes cpu and memory of containers and sidecars in place (`pods/resize`). It can't take a request or a
//! limit away, nor change the pod's QoS class, nor ephemeral-storage (`ValidatePodResize` of
//! k8s.io/kubernetes/pkg/apis/core/validation): that needs a new pod. Init containers have run: they don't count.

use podshaper_core::pod::{ContainerList, ContainerRole, ResourceTarget};
use serde_json::{Map, Value, json};

use crate::resource::Resource;
use crate::sizing::{Ask, Member, Sizing};

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The differences that count, for people.
    pub words: String,
    /// What can be done.
    pub remedy: Remedy,
}

/// How a pod gets its size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// By this strategic merge patch of its `resize` subresource.
    Resize(Value),
    /// Only by being created anew, with the reason.
    Recreate(&'static str),
}

/// What differs between what a pod has and `sizing`, if that is more than `hysteresis` percent of any figure.
///
/// `restored` says that the pod was sized before: then what the template sizes no longer goes back to what the
/// container's author asked for. `qos` is the pod's QoS class.
pub fn compare(sizing: &Sizing<'_>, restored: bool, qos: &str, hysteresis: u8) -> Option<Difference> {
    let mut words = Vec::new();
    let mut recreate = None;
    let mut patches = [Vec::new(), Vec::new()];
    let mut after = Vec::new();
    for (member, size) in sizing.members.iter().filter(|(member, _)| member.role != ContainerRole::Init) {
        let (mut requests, mut limits) = (Map::new(), Map::new());
        let mut asks = [Ask::default(); 2];
        for resource in Resource::ALL {
            let has = *member.has.get(resource);
            let own = *member.own.get(resource);
            let wanted = size.get(resource).unwrap_or(if restored { own } else { has });
            if let (Resource::Cpu, [cpu, _]) | (Resource::Memory, [_, cpu]) = (resource, &mut asks) {
                *cpu = wanted;
            }
            if differs(has, wanted, hysteresis) {
                words.push(in_words(member, resource, has, wanted));
                if resource == Resource::Storage {
                    recreate = Some("ephemeral-storage can't be resized in place");
                }
            }
            if resource == Resource::Storage {
                continue;
            }
            for (list, has, wanted) in
                [(&mut requests, has.request, wanted.request), (&mut limits, has.limit, wanted.limit)]
            {
                match (has, wanted) {
                    (Some(_), None) => recreate = Some("a request or limit can't be taken away in place"),
                    (has, Some(wanted)) if has != Some(wanted) => {
                        list.insert(resource.name().to_owned(), resource.write(wanted).into());
                    }
                    _ => {}
                }
            }
        }
        after.push(asks);
        if !requests.is_empty() || !limits.is_empty() {
            let [containers, inits] = &mut patches;
            let list = match member.holder {
                ResourceTarget::Container(ContainerList::InitContainers, _) => inits,
                _ => containers,
            };
            list.push(json!({"name": member.name, "resources": {"requests": requests, "limits": limits}}));
        }
    }
    if words.is_empty() {
        return None;
    }
    if Resource::ALL.iter().any(|resource| sizing.pod.get(*resource).is_some()) {
        recreate = Some("a pod with resources of its own as a whole isn't resized in place");
    }
    // Init containers count for the class, and don't change.
    let inits = sizing.members.iter().filter(|(member, _)| member.role == ContainerRole::Init);
    after
        .extend(inits.map(|(member, _)| [*member.has.get(Resource::Cpu), *member.has.get(Resource::Memory)]));
    if !qos.is_empty() && class(&after) != qos {
        recreate = recreate.or(Some("the pod's QoS class would change"));
    }
    let [containers, inits] = patches;
    let remedy = if let Some(reason) = recreate {
        Remedy::Recreate(reason)
    } else {
        let mut spec = Map::new();
        for (list, patches) in [("containers", containers), ("initContainers", inits)] {
            if !patches.is_empty() {
                spec.insert(list.to_owned(), patches.into());
            }
        }
        Remedy::Resize(json!({"spec": spec}))
    };
    Some(Difference { words: words.join(", "), remedy })
}

/// Whether the change is worth the trouble.
fn differs(has: Ask, wanted: Ask, hysteresis: u8) -> bool {
    let far = |has: Option<i64>, wanted: Option<i64>| match (has, wanted) {
        (Some(has), Some(wanted)) => {
            let change = (i128::from(wanted) - i128::from(has)).abs() * 100;
            change > i128::from(has) * i128::from(hysteresis)
        }
        (has, wanted) => has != wanted,
    };
    far(has.request, wanted.request) || far(has.limit, wanted.limit)
}

fn in_words(member: &Member<'_>, resource: Resource, has: Ask, wanted: Ask) -> String {
    let write =
        |amount: Option<i64>| amount.map_or_else(|| "none".to_owned(), |amount| resource.write(amount));
    let name = resource.name();
    let (before, after) = (write(has.request), write(wanted.request));
    if before == after {
        format!("{}: limit of {name} {} → {}", member.name, write(has.limit), write(wanted.limit))
    } else {
        format!("{}: {name} {before} → {after}", member.name)
    }
}

/// `GetPodQOS` of k8s.io/kubernetes/pkg/apis/core/v1/helper/qos, from the cpu and memory of all containers.
fn class(asks: &[[Ask; 2]]) -> &'static str {
    let said = |amount: Option<i64>| amount.is_some_and(|amount| amount > 0);
    if asks.iter().flatten().all(|ask| !said(ask.request) && !said(ask.limit)) {
        "BestEffort"
    } else if asks.iter().flatten().all(|ask| said(ask.limit) && ask.request == ask.limit) {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use podshaper_core::pod::Pod;

    use super::*;
    use crate::memory::Memory;
    use crate::node::Node;
    use crate::range::Range;
    use crate::rules::Template;
    use crate::sizing::size;

    /// The difference of a pod with this container, sized before as `own`.
    fn difference(spec: &Value, resources: &Value, own: &Value, qos: &str) -> Option<Difference> {
        let template = Template::from_spec(spec).unwrap();
        let node = Node::new([], |name| (name != "ephemeral-storage").then_some("1000"));
        let pod = json!({"spec": {
            "containers": [{"name": "a", "resources": resources}],
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "7"}, "limits": {"cpu": "7", "memory": "7"}}}],
        }});
        let (pod, memory) = (pod.to_string(), json!({"containers": {"a": own}}).to_string());
        let pod: Pod<'_> = serde_json::from_str(&pod).unwrap();
        let memory: Memory<'_> = serde_json::from_str(&memory).unwrap();
        let sizing = size(&template, &node, &Range::default(), &pod, Some(&memory)).unwrap();
        compare(&sizing, true, qos, 5)
    }

    fn both(cpu: &str, memory: &str) -> Value {
        let list = json!({"cpu": cpu, "memory": memory});
        json!({"requests": list, "limits": list})
    }

    #[test]
    fn what_can_be_resized_is() {
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
        assert_eq!(resized.words, "a: cpu 95 → 100");
        let all = json!({"cpu": "100", "memory": "100"});
        let patch =
            json!({"spec": {"containers": [{"name": "a", "resources": {"requests": all, "limits": all}}]}});
        assert_eq!(resized.remedy, Remedy::Resize(patch), "what is close follows with the rest");
    }

    #[test]
    fn what_needs_a_new_pod_says_why() {
        let spec = json!({"cpuPercentage": 10, "memoryPercentage": 10});
        let recreate = |spec: &Value, resources: &Value, own: &Value, qos: &str| match difference(
            spec, resources, own, qos,
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
        let cpu_alone = json!({"memoryPercentage": 10});
        let own = json!({"requests": {"memory": "1"}});
        assert!(
            recreate(&cpu_alone, &both("100", "100"), &own, "Guaranteed").contains("taken away"),
            "no longer sized"
        );
    }

    #[test]
    fn what_is_no_longer_sized_goes_back() {
        let back =
            difference(&json!({"memoryPercentage": 10}), &both("200", "100"), &both("5", "1"), "Guaranteed")
                .unwrap();
        assert_eq!(back.words, "a: cpu 200 → 5");
        assert!(matches!(back.remedy, Remedy::Resize(_)));
    }
}

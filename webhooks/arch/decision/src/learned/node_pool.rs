//! NodePools of Karpenter (<https://karpenter.sh/docs/concepts/nodepools/>), as far as their architectures are concerned.

use std::collections::{BTreeMap, BTreeSet};

use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::Taint as NodeTaint;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::taints_of;
use crate::platform::KUBERNETES_ARCHITECTURES;
use crate::table::{ARCH_LABEL, Taint};

/// The label of the operating system.
const OS_LABEL: &str = "kubernetes.io/os";

/// The nodes that a NodePool may have, whether or not there are any.
#[derive(Debug, PartialEq, Eq)]
pub struct NodePool {
    /// The names of the architectures that its requirements list.
    pub architectures: BTreeSet<&'static str>,
    /// Its `taints` with the name of one of these architectures as value.
    pub taints: BTreeSet<Taint>,
    /// Its `startupTaints` with the name of an architecture as value. They are removed when a node is ready.
    pub startup_taints: BTreeSet<Taint>,
}

/// `NodePoolSpec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct NodePoolSpec {
    template: NodeClaimTemplate,
}

/// `NodeClaimTemplate`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeClaimTemplate {
    metadata: NodeClaimTemplateMetadata,
    spec: NodeClaimTemplateSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeClaimTemplateMetadata {
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct NodeClaimTemplateSpec {
    requirements: Option<Vec<NodeClaimRequirement>>,
    taints: Option<Vec<NodeTaint>>,
    startup_taints: Option<Vec<NodeTaint>>,
}

/// `NodeSelectorRequirementWithMinValues`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NodeClaimRequirement {
    key: String,
    operator: String,
    values: Option<Vec<String>>,
}

impl NodeClaimTemplate {
    /// Whether a node may have this value of a label. A pool that does not name the label may have any.
    fn allows(&self, key: &str, value: &str) -> bool {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(key));
        label.is_none_or(|label| label == value)
            && self.requirements(key).all(|own| {
                let is_listed = own.values.iter().flatten().any(|listed| listed == value);
                match &*own.operator {
                    "In" => is_listed,
                    "NotIn" => !is_listed,
                    operator => operator != "DoesNotExist",
                }
            })
    }

    /// Whether it names values of a label, so that it has no others.
    fn lists(&self, key: &str) -> bool {
        self.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(key))
            || self.requirements(key).any(|own| own.operator == "In")
    }

    fn requirements(&self, key: &str) -> impl Iterator<Item = &NodeClaimRequirement> {
        self.spec.requirements.iter().flatten().filter(move |own| own.key == key)
    }
}

impl FromObject for NodePool {
    type Spec = NodePoolSpec;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "nodepools";
    const API: &'static str = "/apis/karpenter.sh/v1";

    fn from_object(object: Object<NodePoolSpec, IgnoredAny>) -> Option<Self> {
        let template = object.spec.unwrap_or_default().template;
        if !template.lists(ARCH_LABEL) || !template.allows(OS_LABEL, "linux") {
            return None;
        }
        let known = KUBERNETES_ARCHITECTURES.into_iter();
        let architectures: BTreeSet<_> = known.filter(|name| template.allows(ARCH_LABEL, name)).collect();
        let NodeClaimTemplateSpec { taints, startup_taints, .. } = template.spec;
        let of = |names: &BTreeSet<&'static str>, taints: Option<Vec<NodeTaint>>| {
            let taints = taints.unwrap_or_default();
            names.iter().flat_map(|name| taints_of(name, taints.clone())).collect()
        };
        Some(Self {
            taints: of(&architectures, taints),
            startup_taints: of(&KUBERNETES_ARCHITECTURES.into(), startup_taints),
            architectures,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pool(requirements: &Value, labels: &Value) -> Option<String> {
        let taint = |key: &str, value: &str| json!({"key": key, "value": value, "effect": "NoSchedule"});
        let template = json!({"metadata": {"labels": labels}, "spec": {
            "requirements": requirements, "expireAfter": "720h",
            "taints": [taint("arch", "arm64"), taint("arch", "s390x"), taint("team", "ml")],
            "startupTaints": [taint("boot", "arm64"), taint("boot", "true")],
        }});
        let object = json!({"metadata": {"name": "pool"}, "spec": {"template": template, "weight": 3}});
        let pool = NodePool::from_object(serde_json::from_value(object).unwrap())?;
        assert_eq!(pool.startup_taints.len(), 1, "{pool:?}");
        let names: Vec<_> = pool.architectures.into_iter().collect();
        Some(format!("{} {}", names.join(","), pool.taints.len()))
    }

    #[test]
    fn architectures_are_those_that_a_pool_lists() {
        let arch = |operator: &str, values: Value| json!({"key": ARCH_LABEL, "operator": operator, "values": values});
        let windows = json!({"key": OS_LABEL, "operator": "In", "values": ["windows"]});
        for (requirements, labels, expected) in [
            (json!([arch("In", json!(["arm64"]))]), json!(null), Some("arm64 1")),
            (json!([arch("In", json!(["amd64", "arm64"]))]), json!({}), Some("amd64,arm64 1")),
            (
                json!([arch("In", json!(["amd64", "arm64"])), arch("NotIn", json!(["arm64"]))]),
                json!({}),
                Some("amd64 0"),
            ),
            (json!(null), json!({ARCH_LABEL: "arm64"}), Some("arm64 1")),
            (json!([arch("In", json!(["wasm"]))]), json!({}), Some(" 0")),
            (json!([arch("NotIn", json!(["arm64"]))]), json!({}), None),
            (json!([arch("Exists", json!([]))]), json!({}), None),
            (json!([]), json!({}), None),
            (json!([arch("In", json!(["amd64"])), windows]), json!({}), None),
        ] {
            assert_eq!(pool(&requirements, &labels).as_deref(), expected, "{requirements}");
        }
    }
}

//! The annotations of a namespace by which admission plugins restrict its pods.
//!
//! `PodNodeSelector` and `PodTolerationRestriction` of Kubernetes, and the project node selector of OpenShift, check pods before and after
//! mutating webhooks. They refuse a pod with the node selector or the tolerations of a group that the annotations forbid.

use serde::Deserialize;
use serde::de::IgnoredAny;

use podshaper_core::object::{FromObject, Object};
use podshaper_core::pod::alternatives;

use super::policy::{Group, GroupSet, Policy};

/// `PodNodeSelector`: pods get these labels in their node selector.
const NODE_SELECTOR: &str = "scheduler.alpha.kubernetes.io/node-selector";
/// OpenShift: the same.
const OPENSHIFT_NODE_SELECTOR: &str = "openshift.io/node-selector";
/// `PodTolerationRestriction`: pods may have these tolerations only.
const TOLERATIONS_WHITELIST: &str = "scheduler.alpha.kubernetes.io/tolerationsWhitelist";

/// Bytes of the longest annotation that is kept. Whoever may create namespaces can write longer ones.
const MAX_ANNOTATION: usize = 4 << 10;

/// The requirements of a namespace on its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRestrictions {
    node_selectors: Vec<NamespaceNodeSelector>,
    /// `None`: any toleration is allowed. An error: the plugin refuses all pods with tolerations, or the annotation is too long to be kept.
    tolerations: Option<Result<Vec<NamespaceToleration>, UnreadableAnnotation>>,
}

/// An annotation that cannot be parsed, or is longer than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UnreadableAnnotation;

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamespaceNodeSelector {
    annotation: &'static str,
    labels: Vec<(Box<str>, Box<str>)>,
}

/// `v1.Toleration`. The API server does not default its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct NamespaceToleration {
    key: Option<Box<str>>,
    operator: Option<Box<str>>,
    value: Option<Box<str>>,
    effect: Option<Box<str>>,
    #[serde(rename = "tolerationSeconds")]
    seconds: Option<i64>,
}

/// A toleration as Go compares it: an absent text is an empty one.
#[derive(PartialEq, Eq)]
struct TolerationView<'t> {
    key: &'t str,
    operator: &'t str,
    value: &'t str,
    effect: &'t str,
    seconds: Option<i64>,
}

/// A group to which no pod of the namespace can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExcludedGroup {
    /// Its index in the policy.
    pub group: usize,
    /// The annotation that excludes it.
    pub annotation: &'static str,
}

impl NamespaceRestrictions {
    /// The groups of `policy` that the annotations exclude.
    pub fn excluded<'p>(&'p self, policy: &'p Policy) -> impl Iterator<Item = ExcludedGroup> + 'p {
        let groups = policy.groups().iter().zip(policy.definitions()).enumerate();
        groups.filter_map(|(index, (group, definition))| {
            let contradicts = |selector: &&NamespaceNodeSelector| {
                let labels = selector.labels.iter().map(|(key, value)| (&**key, &**value));
                !definition.allows_one_of(&alternatives(labels, None))
            };
            let selector = self.node_selectors.iter().find(contradicts).map(|selector| selector.annotation);
            let annotation =
                selector.or_else(|| (!self.allows_tolerations(group)).then_some(TOLERATIONS_WHITELIST));
            annotation.map(|annotation| ExcludedGroup { group: index, annotation })
        })
    }

    /// The indexes of [`Self::excluded`].
    pub fn excluded_groups(&self, policy: &Policy) -> GroupSet {
        self.excluded(policy).map(|excluded| excluded.group).collect()
    }

    /// Whether a pod may have the tolerations of the group (`tolerations.VerifyAgainstWhitelist` of Kubernetes).
    fn allows_tolerations(&self, group: &Group) -> bool {
        let whitelist = match &self.tolerations {
            None => return true,
            Some(Ok(whitelist)) if whitelist.is_empty() => return true,
            Some(Ok(whitelist)) => &whitelist[..],
            Some(Err(UnreadableAnnotation)) => &[],
        };
        group.tolerations.iter().all(|toleration| {
            let toleration = NamespaceToleration::deserialize(toleration).unwrap_or_default();
            whitelist.iter().any(|allowed| allowed.includes(&toleration))
        })
    }
}

impl NamespaceToleration {
    /// `tolerations.isSuperset` of Kubernetes. It does not take an absent operator of `other` for `Equal`.
    fn includes(&self, other: &Self) -> bool {
        let own = self.view();
        let other = other.view();
        if own == other {
            return true;
        }
        let any_key = own.key.is_empty() && own.operator == "Exists";
        if (own.key != other.key && !any_key) || (own.effect != other.effect && !own.effect.is_empty()) {
            return false;
        }
        if let Some(seconds) = own.seconds.filter(|_| own.effect == "NoExecute")
            && other.seconds.is_none_or(|others| others > seconds)
        {
            return false;
        }
        match own.operator {
            "" | "Equal" => other.operator == "Equal" && own.value == other.value,
            operator => operator == "Exists",
        }
    }

    fn view(&self) -> TolerationView<'_> {
        TolerationView {
            key: self.key.as_deref().unwrap_or_default(),
            operator: self.operator.as_deref().unwrap_or_default(),
            value: self.value.as_deref().unwrap_or_default(),
            effect: self.effect.as_deref().unwrap_or_default(),
            seconds: self.seconds,
        }
    }
}

/// `labels.ConvertSelectorToLabelsMap` of Kubernetes: `KEY=VALUE,KEY=VALUE`. The plugin refuses all pods if it is invalid.
fn parse_labels(text: &str) -> Option<Vec<(Box<str>, Box<str>)>> {
    if text.is_empty() || text.len() > MAX_ANNOTATION {
        return None;
    }
    let parse = |label: &str| {
        let (key, value) = label.split_once('=').filter(|(_, value)| !value.contains('='))?;
        Some((key.trim().into(), value.trim().into()))
    };
    text.split(',').map(parse).collect()
}

fn parse_whitelist(text: &str) -> Result<Vec<NamespaceToleration>, UnreadableAnnotation> {
    match text {
        "" => Ok(Vec::new()),
        text if text.len() > MAX_ANNOTATION => Err(UnreadableAnnotation),
        text => serde_json::from_str(text).map(Option::unwrap_or_default).map_err(|_| UnreadableAnnotation),
    }
}

impl FromObject for NamespaceRestrictions {
    type Spec = IgnoredAny;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "namespaces";
    const API: &'static str = "/api/v1";

    /// A namespace without these annotations is of no interest.
    fn from_object(object: Object<IgnoredAny, IgnoredAny>) -> Option<Self> {
        let annotation = |key| object.metadata.annotation(key);
        let selectors = [NODE_SELECTOR, OPENSHIFT_NODE_SELECTOR].into_iter();
        let node_selectors = selectors.filter_map(|key| {
            Some(NamespaceNodeSelector { annotation: key, labels: annotation(key).and_then(parse_labels)? })
        });
        let restrictions = Self {
            node_selectors: node_selectors.collect(),
            tolerations: annotation(TOLERATIONS_WHITELIST).map(parse_whitelist),
        };
        (restrictions != Self::default()).then_some(restrictions)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::Tie;

    const SPOT_TAINT: &str =
        r#"{"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}"#;

    fn restrictions(annotations: &Value) -> Option<NamespaceRestrictions> {
        let object = json!({"metadata": {"name": "shop", "annotations": annotations}});
        NamespaceRestrictions::from_object(serde_json::from_value(object).unwrap())
    }

    /// A group without tolerations, one with `toleration`, and one that its node affinity defines.
    fn policy(toleration: &Value) -> Policy {
        let group = |name: &str| Group {
            name: name.into(),
            node_labels: [("type".to_owned(), name.to_owned())].into(),
            weight: 1,
            ..Group::default()
        };
        let no_type = json!({"matchExpressions": [{"key": "type", "operator": "DoesNotExist"}]});
        let groups = vec![
            group("default"),
            Group { tolerations: vec![toleration.clone()], ..group("spot") },
            Group { name: "plain".into(), node_affinity: vec![no_type], weight: 1, ..Group::default() },
        ];
        Policy::new(groups, Tie::First).unwrap()
    }

    fn excluded(annotations: &Value, toleration: &Value) -> Vec<(usize, &'static str)> {
        let policy = policy(toleration);
        let restrictions = restrictions(annotations).unwrap_or_default();
        restrictions.excluded(&policy).map(|excluded| (excluded.group, excluded.annotation)).collect()
    }

    #[test]
    fn namespace_without_annotations_takes_no_memory() {
        for annotations in [json!(null), json!({"x": "y"}), json!({OPENSHIFT_NODE_SELECTOR: ""})] {
            assert_eq!(restrictions(&annotations), None, "{annotations}");
        }
        assert!(restrictions(&json!({TOLERATIONS_WHITELIST: ""})).is_some());
    }

    #[test]
    fn node_selector_of_namespace_excludes_contradicting_groups() {
        let spot: Value = serde_json::from_str(SPOT_TAINT).unwrap();
        for key in [NODE_SELECTOR, OPENSHIFT_NODE_SELECTOR] {
            let excluded = |text: &str| excluded(&json!({key: text}), &spot);
            assert_eq!(excluded("type=default"), [(1, key), (2, key)]);
            assert_eq!(excluded(" zone = a , type = spot "), [(0, key), (2, key)]);
            assert_eq!(excluded("zone=a"), []);
            assert_eq!(excluded("type"), [], "the plugin refuses every pod");
            assert_eq!(excluded("type=default=x"), []);
        }
    }

    #[test]
    fn whitelist_excludes_groups_with_other_tolerations() {
        let spot: Value = serde_json::from_str(SPOT_TAINT).unwrap();
        let allows = |whitelist: &str, toleration: &Value| {
            let excluded = excluded(&json!({TOLERATIONS_WHITELIST: whitelist}), toleration);
            assert!(excluded.is_empty() || excluded == [(1, TOLERATIONS_WHITELIST)], "{excluded:?}");
            excluded.is_empty()
        };
        for (whitelist, expected) in [
            ("", true),
            ("[]", true),
            ("null", true),
            (r#"[{"operator": "Exists"}]"#, true),
            (&format!("[{SPOT_TAINT}]"), true),
            (r#"[{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}]"#, true),
            (r#"[{"key": "spot", "value": "true"}]"#, true),
            (r#"[{"key": "spot", "value": "false"}]"#, false),
            (r#"[{"key": "spot", "operator": "Exists", "effect": "NoExecute"}]"#, false),
            (r#"[{"key": "other", "operator": "Exists"}]"#, false),
            (r#"[{"key": "spot", "operator": "Lt", "value": "true"}]"#, false),
            (r#"[{"key": 3}]"#, false),
            ("{", false),
            (&format!("[{{\"operator\": \"Exists\", \"value\": \"{}\"}}]", "x".repeat(5000)), false),
        ] {
            assert_eq!(allows(whitelist, &spot), expected, "{whitelist:.80}");
        }
        // The plugin compares the operators as they are.
        let implicit = json!({"key": "spot", "value": "true"});
        assert!(!allows(r#"[{"key": "spot", "operator": "Equal", "value": "true"}]"#, &implicit));
        assert!(allows(r#"[{"key": "spot", "value": "true", "effect": ""}]"#, &implicit));
        let seconds = |seconds: Value| json!({"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds});
        let minute =
            r#"[{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]"#;
        assert!(allows(minute, &seconds(json!(60))) && allows(minute, &seconds(json!(-1))));
        assert!(!allows(minute, &seconds(json!(61))) && !allows(minute, &seconds(json!(null))));
    }
}

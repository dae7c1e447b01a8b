//! The pods that the webhook is for: one definition for the webhook, refits, and the offline commands.
//!
//! The chart writes the same into the selectors and match conditions of the `MutatingWebhookConfiguration`.

use podshaper_core::pod::SKIP;
use podshaper_core::selector::LabelSelector;
use serde::Deserialize;

use crate::owner_kind::OwnerKind;

const KUBE_SYSTEM: &str = "kube-system";
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
const RELEASE: &str = "podshaper.dev/release";

/// Selects pods as the chart's `MutatingWebhookConfiguration` does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Selection {
    /// The namespace of the release.
    pub release_namespace: Option<String>,
    /// DaemonSets in `kube-system` that are sized.
    pub kube_system: Vec<String>,
    /// The user's selector of namespaces.
    pub namespace_selector: LabelSelector,
    /// The user's selector of pods.
    pub object_selector: LabelSelector,
    /// Whether the user's match conditions may exclude pods. They are not evaluated here.
    pub has_match_conditions: bool,
    /// Kinds like the `DaemonSet` that the webhook reads, too.
    pub owner_kinds: Vec<OwnerKind>,
}

/// A pod as far as its selection depends on it.
#[derive(Clone, Copy, Debug)]
pub struct SelectedPod<'p> {
    /// Its namespace.
    pub namespace: &'p str,
    /// The name of its `DaemonSet`, if it has one.
    pub daemon_set: Option<&'p str>,
}

impl Selection {
    /// Parses JSON. The error says what is wrong.
    pub fn from_json(json: &str) -> Result<Self, String> {
        let selection: Self = serde_json::from_str(json).map_err(|error| error.to_string())?;
        selection.owner_kinds.iter().try_for_each(OwnerKind::check)?;
        Ok(selection)
    }

    /// Whether the webhook reads the objects of this group and kind as DaemonSets.
    pub fn is_daemon_set(&self, group: &str, kind: &str) -> bool {
        OwnerKind::daemon_set().is(group, kind) || self.owner_kinds.iter().any(|own| own.is(group, kind))
    }

    /// Why the API server doesn't call the webhook for a pod in the namespace; `None` if it does. `label` looks up labels of the namespace.
    pub fn excludes_namespace<'l>(
        &self,
        pod: SelectedPod<'_>,
        label: impl Fn(&str) -> Option<&'l str>,
    ) -> Option<String> {
        let namespace = pod.namespace;
        if namespace == KUBE_SYSTEM {
            let is_opted_in =
                pod.daemon_set.is_some_and(|name| self.kube_system.iter().any(|own| own == name));
            return (!is_opted_in).then(|| {
                "pods in kube-system are sized only for the DaemonSets in flexdaemonset.kubeSystem of the chart".to_owned()
            });
        }
        let label = |key: &str| if key == NAMESPACE_NAME { Some(namespace) } else { label(key) };
        if self.release_namespace.as_deref() == Some(namespace) || label(RELEASE).is_some() {
            Some(format!("namespace {namespace} belongs to the release"))
        } else if label(SKIP) == Some("true") {
            Some(format!("namespace {namespace} has the label {SKIP}: \"true\""))
        } else if self.namespace_selector.matches(label) {
            None
        } else {
            Some(format!("the namespaceSelector of the chart doesn't select namespace {namespace}"))
        }
    }

    /// Why the API server doesn't call the webhook for a pod with these labels; `None` if it does.
    pub fn excludes_labels<'l>(&self, label: impl Fn(&str) -> Option<&'l str>) -> Option<String> {
        if label(SKIP) == Some("true") {
            Some(format!("the pod has the label {SKIP}: \"true\""))
        } else if self.object_selector.matches(label) {
            None
        } else {
            Some("the objectSelector of the chart doesn't select the pod".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn owner_kind_that_cannot_exist_is_refused() {
        let parse = |kind: &str| Selection::from_json(&format!(r#"{{"ownerKinds": [{kind}]}}"#));
        let advanced =
            r#"{"apiVersion": "apps.kruise.io/v1alpha1", "kind": "DaemonSet", "resource": "daemonsets"}"#;
        let selection = parse(advanced).unwrap();
        assert!(
            selection.is_daemon_set("apps.kruise.io", "DaemonSet")
                && selection.is_daemon_set("apps", "DaemonSet")
        );
        assert!(!selection.is_daemon_set("apps.kruise.io", "StatefulSet"));
        assert!(!Selection::default().is_daemon_set("apps.kruise.io", "DaemonSet"));
        for (kind, problem) in [
            (
                r#"{"apiVersion": "apps.kruise.io", "kind": "DaemonSet", "resource": "daemonsets"}"#,
                "GROUP/VERSION",
            ),
            (r#"{"apiVersion": "a/b/c", "kind": "DaemonSet", "resource": "daemonsets"}"#, "GROUP/VERSION"),
            (r#"{"apiVersion": "a/v1", "kind": "Daemon Set", "resource": "daemonsets"}"#, "name of a kind"),
            (r#"{"apiVersion": "a/v1", "kind": "DaemonSet", "resource": "../pods"}"#, "plural of a kind"),
            (r#"{"apiVersion": "apps/v1", "kind": "DaemonSet", "resource": "daemonsets"}"#, "always read"),
            (r#"{"apiVersion": "a/v1", "kind": "DaemonSet"}"#, "missing field `resource`"),
        ] {
            let error = parse(kind).unwrap_err();
            assert!(error.contains(problem), "{kind}: {error}");
        }
    }

    #[test]
    fn pod_is_selected_as_by_the_chart() {
        let selection: Selection = serde_json::from_value(json!({
            "releaseNamespace": "podshaper", "kubeSystem": ["kube-proxy"],
            "namespaceSelector": {"matchLabels": {"team": "a"}}, "objectSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]},
        }))
        .unwrap();
        let excluded = |namespace, daemon_set, labels: &[(&str, &'static str)]| {
            let find = |key: &str| labels.iter().find(|(own, _)| *own == key).map(|(_, value)| *value);
            selection.excludes_namespace(SelectedPod { namespace, daemon_set }, find)
        };
        assert_eq!(excluded("ns", None, &[("team", "a")]), None);
        assert_eq!(excluded("kube-system", Some("kube-proxy"), &[]), None);
        for (namespace, daemon_set, labels, reason) in [
            ("kube-system", Some("agent"), &[("team", "a")][..], "kubeSystem"),
            ("kube-system", None, &[], "kubeSystem"),
            ("podshaper", None, &[("team", "a")], "belongs to the release"),
            ("ns", None, &[("team", "a"), (RELEASE, "x")], "belongs to the release"),
            ("ns", None, &[("team", "a"), (SKIP, "true")], "podshaper.dev/skip"),
            ("ns", None, &[("team", "b")], "namespaceSelector"),
        ] {
            let actual = excluded(namespace, daemon_set, labels).unwrap_or_default();
            assert!(actual.contains(reason), "{namespace} {labels:?}: {actual}");
        }
        let by_labels = |key: &'static str, value: &'static str| {
            selection.excludes_labels(|asked| (asked == key).then_some(value)).unwrap_or_default()
        };
        assert_eq!(by_labels("x", ""), "");
        assert!(by_labels("y", "").contains("objectSelector"));
        assert!(by_labels(SKIP, "true").contains("podshaper.dev/skip"));
    }
}

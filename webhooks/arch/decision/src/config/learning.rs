//! `architecturesFrom` and `learnTaintKeys`: architectures that are learned from the cluster.

use std::collections::BTreeSet;

use podshaper_core::label;
use serde::Deserialize;

use super::{ConfigError, wrong};
use crate::table::ARCH_LABEL;

/// The largest number of keys. Each may become a toleration of every pod.
const MAX_KEYS: usize = 16;
/// Keys of taints that say something else than the architecture, or that a controller removes. A key with a slash at its end is a
/// prefix, and includes its subdomains.
const FOREIGN_KEYS: [&str; 11] = [
    "node-role.kubernetes.io/",
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "karpenter.sh/",
    "karpenter.k8s.aws/",
    "karpenter.azure.com/",
    "cluster-autoscaler.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "cloud.google.com/",
    "kubernetes.azure.com/",
];

/// `architecturesFrom`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) enum ArchitecturesFrom {
    /// `architectures` lists all of them.
    #[default]
    Settings,
    /// Nodes and NodePools of the cluster have others.
    Cluster,
}

/// The keys of taints that are learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaintKeys(BTreeSet<String>);

impl TaintKeys {
    /// Whether taints with this key are learned.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains(key)
    }
}

impl Default for TaintKeys {
    fn default() -> Self {
        Self([ARCH_LABEL.to_owned()].into())
    }
}

impl ArchitecturesFrom {
    /// The keys of taints that are learned; none if architectures are not learned.
    pub(super) fn taint_keys(self, keys: Option<Vec<String>>) -> Result<Option<TaintKeys>, ConfigError> {
        match (self, keys) {
            (Self::Settings, None) => Ok(None),
            (Self::Settings, Some(_)) => {
                Err(wrong(&["learnTaintKeys"], "has no effect without architecturesFrom: Cluster"))
            }
            (Self::Cluster, None) => Ok(Some(TaintKeys::default())),
            (Self::Cluster, Some(keys)) => taint_keys(keys).map(Some),
        }
    }
}

fn taint_keys(keys: Vec<String>) -> Result<TaintKeys, ConfigError> {
    if keys.len() > MAX_KEYS {
        return Err(wrong(&["learnTaintKeys"], format_args!("takes up to {MAX_KEYS} keys")));
    }
    let mut all = BTreeSet::new();
    for (index, key) in keys.into_iter().enumerate() {
        let at = ["learnTaintKeys", &index.to_string()];
        label::check_key(&key).map_err(|problem| wrong(&at, problem))?;
        if is_foreign(&key) {
            return Err(wrong(
                &at,
                format_args!("{key} is never learned: it says nothing of the architecture"),
            ));
        }
        if let Some(key) = all.replace(key) {
            return Err(wrong(&at, format_args!("{key} is listed twice")));
        }
    }
    Ok(TaintKeys(all))
}

fn is_foreign(key: &str) -> bool {
    let domain = key.split_once('/').map(|(domain, _)| domain);
    FOREIGN_KEYS.into_iter().any(|foreign| match foreign.strip_suffix('/') {
        Some(prefix) => domain.is_some_and(|domain| {
            domain == prefix || domain.strip_suffix(prefix).is_some_and(|rest| rest.ends_with('.'))
        }),
        None => key == foreign,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::Settings;

    fn keys(settings: Value) -> Result<Option<Vec<String>>, String> {
        let settings = Settings::from_value(settings).map_err(|error| error.to_string())?;
        Ok(settings.learned_taint_keys.map(|TaintKeys(keys)| keys.into_iter().collect()))
    }

    #[test]
    fn keys_are_learned_from_a_cluster_only() {
        assert_eq!(keys(json!({})), Ok(None));
        assert_eq!(keys(json!({"architecturesFrom": "Settings"})), Ok(None));
        assert_eq!(keys(json!({"architecturesFrom": "Cluster"})), Ok(Some(vec![ARCH_LABEL.to_owned()])));
        let own = json!({"architecturesFrom": "Cluster", "learnTaintKeys": ["arch", "example.com/arch"]});
        assert_eq!(keys(own), Ok(Some(vec!["arch".to_owned(), "example.com/arch".to_owned()])));
        assert_eq!(keys(json!({"architecturesFrom": "Cluster", "learnTaintKeys": []})), Ok(Some(Vec::new())));
        let preferred =
            json!({"architecturesFrom": "Cluster", "architectures": {"amd64": {}}, "preferred": ["arm64"]});
        assert!(keys(preferred).is_ok(), "an architecture that may be learned");
    }

    #[test]
    fn key_that_is_never_learned_is_refused() {
        for key in [
            "node-role.kubernetes.io/control-plane",
            "node.kubernetes.io/not-ready",
            "node.cloudprovider.kubernetes.io/uninitialized",
            "karpenter.sh/disrupted",
            "startup-taint.cluster-autoscaler.kubernetes.io/x",
            "ToBeDeletedByClusterAutoscaler",
            "cloud.google.com/gke-spot",
            "kubernetes.azure.com/scalesetpriority",
        ] {
            let error =
                keys(json!({"architecturesFrom": "Cluster", "learnTaintKeys": ["arch", key]})).unwrap_err();
            assert_eq!(
                error,
                format!("learnTaintKeys.1: {key} is never learned: it says nothing of the architecture")
            );
        }
    }

    #[test]
    fn key_that_can_match_nothing_is_refused() {
        let many: Vec<_> = (0..=MAX_KEYS).map(|number| format!("k{number}")).collect();
        for (settings, expected) in [
            (
                json!({"learnTaintKeys": ["arch"]}),
                "learnTaintKeys: has no effect without architecturesFrom: Cluster",
            ),
            (
                json!({"architecturesFrom": "Cluster", "learnTaintKeys": ["a b"]}),
                "learnTaintKeys.0: \"a b\" is not a label key",
            ),
            (
                json!({"architecturesFrom": "Cluster", "learnTaintKeys": ["a", "a"]}),
                "learnTaintKeys.1: a is listed twice",
            ),
            (
                json!({"architecturesFrom": "Cluster", "learnTaintKeys": many}),
                "learnTaintKeys: takes up to 16 keys",
            ),
        ] {
            let error = keys(settings.clone()).unwrap_err();
            assert!(error.contains(expected), "{settings}: {error}");
        }
    }
}

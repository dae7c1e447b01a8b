//! The annotations of namespaces.

use std::sync::Arc;

use kube::Client;
use podshaper_core::object::{FromObject, Object};
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, spawn_reflector};
use serde::de::IgnoredAny;

use arch_decision::overrides::{Namespaces, Overrides};

/// A namespace with annotations for this webhook.
#[derive(Debug, PartialEq, Eq)]
struct AnnotatedNamespace(Overrides);

/// All of them.
pub(crate) struct WatchedNamespaces(Arc<Store<AnnotatedNamespace>>);

impl WatchedNamespaces {
    /// Begins to watch. Rights: list and watch namespaces.
    pub(crate) fn start(client: &Client) -> Self {
        let scope = WatchScope { namespace: None, label_selector: String::new() };
        Self(spawn_reflector(client, scope))
    }
}

impl Namespaces for WatchedNamespaces {
    fn overrides(&self, namespace: &str) -> Option<Overrides> {
        self.0.get(namespace).map(|namespace| namespace.0.clone())
    }

    fn has_synced(&self) -> bool {
        self.0.has_synced()
    }
}

impl std::fmt::Debug for WatchedNamespaces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WatchedNamespaces").field(&self.0.len()).finish()
    }
}

impl FromObject for AnnotatedNamespace {
    type Spec = IgnoredAny;
    type Status = IgnoredAny;
    const PLURAL: &'static str = "namespaces";
    const API: &'static str = "/api/v1";

    fn from_object(object: Object<IgnoredAny, IgnoredAny>) -> Option<Self> {
        let overrides = Overrides::new(|key| object.metadata.annotation(key));
        (overrides != Overrides::default()).then_some(Self(overrides))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn namespace_without_annotations_takes_no_memory() {
        let namespace = |annotations: serde_json::Value| {
            let object = json!({"metadata": {"name": "a", "annotations": annotations}});
            AnnotatedNamespace::from_object(serde_json::from_value(object).unwrap())
        };
        assert_eq!(namespace(json!({"x": "y"})), None);
        let skipped = namespace(json!({"podshaper.dev/arch-skip": "true"})).unwrap();
        assert_eq!(skipped.0.skip, Some(true));
    }
}

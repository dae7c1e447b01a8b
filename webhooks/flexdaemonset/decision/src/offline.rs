//! The facts of an offline command.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use podshaper_core::facts::{Fact, FactError, FactKey};
use podshaper_core::object::Lookup;
use serde_json::Value;

use crate::daemon_set::DaemonSet;
use crate::facts::{SizingFacts, SizingOutcome, TemplatedPod};
use crate::limit_range::LimitRange;
use crate::namespace_limits::NamespaceLimits;
use crate::node::Node;
use crate::resource_quota::ResourceQuota;
use crate::template::{GROUP, KIND};
use crate::template_object::TemplateObject;

/// The objects of files.
#[derive(Debug, Default)]
pub struct OfflineCluster {
    nodes: BTreeMap<String, Arc<Node>>,
    templates: BTreeMap<String, Arc<TemplateObject>>,
    daemon_sets: BTreeMap<FactKey, Arc<DaemonSet>>,
    /// By namespace.
    namespace_limits: BTreeMap<String, NamespaceLimits>,
}

impl OfflineCluster {
    /// The facts in these objects. Objects of other kinds are ignored.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<Self, FactError> {
        let mut facts = Self::default();
        for fact in objects.into_iter().filter_map(Fact::new) {
            facts.add(fact)?;
        }
        Ok(facts)
    }

    fn add(&mut self, fact: Fact<'_>) -> Result<(), FactError> {
        if fact.is_kind("", "Node") {
            self.nodes.extend(fact.project()?.map(|(key, node)| (key.name, Arc::new(node))));
        } else if fact.is_kind("", "LimitRange") {
            if let Some((FactKey { namespace, .. }, limit_range)) = fact.project::<LimitRange>()? {
                let limits = self.namespace_limits.entry(namespace).or_default();
                limits.limit_range = std::mem::take(&mut limits.limit_range).and(&limit_range);
            }
        } else if fact.is_kind("", "ResourceQuota") {
            if let Some((FactKey { namespace, .. }, quota)) = fact.project::<ResourceQuota>()? {
                let limits = self.namespace_limits.entry(namespace).or_default();
                limits.quota = limits.quota.and(&quota);
            }
        } else if fact.is_kind("apps", "DaemonSet") {
            self.daemon_sets.extend(fact.project()?.map(|(key, daemon_set)| (key, Arc::new(daemon_set))));
        } else if fact.is_kind(GROUP, KIND) {
            self.templates.extend(fact.project()?.map(|(key, template)| (key.name, Arc::new(template))));
        }
        Ok(())
    }

    /// The `DaemonSet` with this name.
    pub fn daemon_set_named(&self, namespace: &str, name: &str) -> Option<&Arc<DaemonSet>> {
        self.daemon_sets.get(&FactKey { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(name, node)| (&**name, &**node))
    }

    /// The template with this name.
    pub fn template_named(&self, name: &str) -> Option<&TemplateObject> {
        self.templates.get(name).map(|template| &**template)
    }
}

impl SizingFacts for OfflineCluster {
    async fn node(&self, name: &str, _: Instant) -> Lookup<Node> {
        self.nodes.get(name).cloned().into()
    }

    async fn template(&self, name: &str, _: Instant) -> Lookup<TemplateObject> {
        self.templates.get(name).cloned().into()
    }

    async fn daemon_set(&self, namespace: &str, name: &str, _: &str, _: Instant) -> Lookup<DaemonSet> {
        self.daemon_set_named(namespace, name).cloned().into()
    }

    fn namespace_limits(&self, namespace: &str) -> NamespaceLimits {
        self.namespace_limits.get(namespace).cloned().unwrap_or_default()
    }

    fn record_outcome(&self, _: &TemplatedPod<'_>, _: SizingOutcome) {}
}

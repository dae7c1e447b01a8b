//! The facts of an offline command.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use podshaper_core::facts::{Fact, FactError, FactKey};
use podshaper_core::json::TextMap;
use podshaper_core::object::{Lookup, group_of};
use podshaper_core::pod::Pod;
use serde_json::Value;

use crate::daemon_set::DaemonSet;
use crate::facts::{SizingFacts, SizingOutcome, TemplatedPod};
use crate::limit_range::LimitRange;
use crate::namespace::Namespace;
use crate::namespace_limits::NamespaceLimits;
use crate::node::Node;
use crate::owner_kind::DaemonSetReference;
use crate::resource_quota::ResourceQuota;
use crate::selection::{SelectedPod, Selection};
use crate::template::{GROUP, KIND};
use crate::template_object::TemplateObject;

/// By group, kind and key.
type DaemonSets = BTreeMap<(String, String, FactKey), Arc<DaemonSet>>;

/// The objects of files.
#[derive(Debug, Default)]
pub struct OfflineCluster {
    nodes: BTreeMap<String, Arc<Node>>,
    templates: BTreeMap<String, Arc<TemplateObject>>,
    daemon_sets: Mutex<DaemonSets>,
    namespaces: BTreeMap<String, Namespace>,
    selection: Selection,
    /// By namespace.
    namespace_limits: BTreeMap<String, NamespaceLimits>,
}

impl OfflineCluster {
    /// The facts in these objects. Objects of other kinds are ignored.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Result<Self, FactError> {
        Self::with_selection(objects, Selection::default())
    }

    /// The same with the selection of the chart.
    pub fn with_selection<'o>(
        objects: impl IntoIterator<Item = &'o Value>,
        selection: Selection,
    ) -> Result<Self, FactError> {
        let mut facts = Self { selection, ..Self::default() };
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
        } else if self.reads(fact) {
            self.add_daemon_set(fact, fact.project()?);
        } else if fact.is_kind("", "Namespace") {
            self.namespaces.extend(fact.project()?.map(|(key, namespace)| (key.name, namespace)));
        } else if fact.is_kind(GROUP, KIND) {
            self.templates.extend(fact.project()?.map(|(key, template)| (key.name, Arc::new(template))));
        }
        Ok(())
    }

    fn daemon_sets(&self) -> MutexGuard<'_, DaemonSets> {
        self.daemon_sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the object is a `DaemonSet` that the webhook reads.
    pub fn reads(&self, fact: Fact<'_>) -> bool {
        let reference = fact.reference();
        self.selection.is_daemon_set(group_of(&reference.api_version), &reference.kind)
    }

    fn add_daemon_set(&self, fact: Fact<'_>, daemon_set: Option<(FactKey, DaemonSet)>) {
        let Some((key, daemon_set)) = daemon_set else { return };
        let reference = fact.reference();
        let group = group_of(&reference.api_version).to_owned();
        self.daemon_sets().insert((group, reference.kind, key), Arc::new(daemon_set));
    }

    /// The `DaemonSet` with this group, kind and name.
    pub fn daemon_set_named(&self, group: &str, kind: &str, key: FactKey) -> Option<Arc<DaemonSet>> {
        self.daemon_sets().get(&(group.to_owned(), kind.to_owned(), key)).cloned()
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

    async fn daemon_set(
        &self,
        namespace: &str,
        reference: DaemonSetReference<'_>,
        _: Instant,
    ) -> Lookup<DaemonSet> {
        let key = FactKey { namespace: namespace.to_owned(), name: reference.name.to_owned() };
        self.daemon_set_named(group_of(reference.api_version), reference.kind, key).into()
    }

    fn is_daemon_set(&self, group: &str, kind: &str) -> bool {
        self.selection.is_daemon_set(group, kind)
    }

    fn namespace_limits(&self, namespace: &str) -> NamespaceLimits {
        self.namespace_limits.get(namespace).cloned().unwrap_or_default()
    }

    fn exclusion(&self, namespace: &str, pod: &Pod<'_>) -> Option<String> {
        let labels = pod.metadata.as_ref().and_then(|metadata| metadata.labels);
        let labels: TextMap<'_> =
            labels.and_then(|labels| serde_json::from_str(labels.get()).ok()).unwrap_or_default();
        let daemon_set = pod.controller().filter(|owner| {
            &*owner.kind == "DaemonSet" || self.is_daemon_set(group_of(&owner.api_version), &owner.kind)
        });
        let selected = SelectedPod { namespace, daemon_set: daemon_set.map(|owner| &*owner.name) };
        let known = self.namespaces.get(namespace);
        let by_namespace = self.selection.excludes_namespace(selected, |key| known?.label(key));
        by_namespace.or_else(|| self.selection.excludes_labels(|key| labels.get(key).map(|value| &**value)))
    }

    fn explains(&self) -> bool {
        true
    }

    fn observe(&self, object: &Value, namespace: &str) {
        let Some(fact) = Fact::new(object).filter(|fact| self.reads(*fact)) else { return };
        if let Ok(Some((mut key, daemon_set))) = fact.project::<DaemonSet>() {
            if object.pointer("/metadata/namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
                namespace.clone_into(&mut key.namespace);
            }
            self.add_daemon_set(fact, Some((key, daemon_set)));
        }
    }

    fn record_outcome(&self, _: &TemplatedPod<'_>, _: SizingOutcome) {}
}

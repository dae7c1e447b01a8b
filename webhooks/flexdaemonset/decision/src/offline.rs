//! Facts from files.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use podshaper_core::facts::{Fact, FactError, FactKey};
use podshaper_core::lookup::Lookup;
use serde_json::Value;

use crate::daemon_set::Owner;
use crate::facts::{Facts, Outcome, Subject};
use crate::node::Node;
use crate::range::Range;
use crate::template::{GROUP, KIND};
use crate::template_object::TemplateFact;

/// Objects of files that take the place of the cluster's.
#[derive(Debug, Default)]
pub struct Offline {
    nodes: BTreeMap<String, Arc<Node>>,
    templates: BTreeMap<String, Arc<TemplateFact>>,
    owners: BTreeMap<FactKey, Arc<Owner>>,
    ranges: BTreeMap<String, Range>,
}

impl Offline {
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
            if let Some((FactKey { namespace, .. }, range)) = fact.project::<Range>()? {
                let others = self.ranges.remove(&namespace).unwrap_or_default();
                self.ranges.insert(namespace, others.and(&range));
            }
        } else if fact.is_kind("apps", "DaemonSet") {
            self.owners.extend(fact.project()?.map(|(key, owner)| (key, Arc::new(owner))));
        } else if fact.is_kind(GROUP, KIND) {
            self.templates.extend(fact.project()?.map(|(key, template)| (key.name, Arc::new(template))));
        }
        Ok(())
    }

    /// The `DaemonSet` with this name.
    pub fn daemon_set(&self, namespace: &str, name: &str) -> Option<&Arc<Owner>> {
        self.owners.get(&FactKey { namespace: namespace.to_owned(), name: name.to_owned() })
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(name, node)| (&**name, &**node))
    }

    /// The template with this name.
    pub fn template_named(&self, name: &str) -> Option<&TemplateFact> {
        self.templates.get(name).map(|template| &**template)
    }
}

impl Facts for Offline {
    async fn node(&self, name: &str, _: Instant) -> Lookup<Node> {
        self.nodes.get(name).cloned().into()
    }

    async fn template(&self, name: &str, _: Instant) -> Lookup<TemplateFact> {
        self.templates.get(name).cloned().into()
    }

    async fn owner(&self, namespace: &str, name: &str, _: &str, _: Instant) -> Lookup<Owner> {
        self.daemon_set(namespace, name).cloned().into()
    }

    fn range(&self, namespace: &str) -> Range {
        self.ranges.get(namespace).cloned().unwrap_or_default()
    }

    fn heard(&self, _: &Subject<'_>, _: Outcome) {}
}

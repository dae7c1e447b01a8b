//! Facts from objects as `kubectl get -o yaml` prints them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use podshaper_core::lookup::Lookup;
use serde_json::Value;

use crate::facts::{Facts, Outcome, Owner, RESOURCE_TEMPLATE, Subject, TemplateFact, named_template};
use crate::node::Node;
use crate::range::Range;
use crate::rules::Template;
use crate::template::{GROUP, KIND, TemplateStatus};

/// A cluster made of files.
#[derive(Debug, Default)]
pub struct Offline {
    nodes: BTreeMap<String, Arc<Node>>,
    templates: BTreeMap<String, Arc<TemplateFact>>,
    owners: BTreeMap<(String, String), Arc<Owner>>,
    ranges: BTreeMap<String, Range>,
}

impl Offline {
    /// The cluster that has these objects; kinds that don't matter are passed over.
    pub fn new<'o>(objects: impl IntoIterator<Item = &'o Value>) -> Self {
        let mut facts = Self::default();
        for object in objects {
            facts.add(object);
        }
        facts
    }

    fn add(&mut self, object: &Value) {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let spec = object.get("spec").unwrap_or(&Value::Null);
        let name = text("/metadata/name").to_owned();
        let namespace = match text("/metadata/namespace") {
            "" => "default".to_owned(),
            namespace => namespace.to_owned(),
        };
        match (text("/apiVersion"), text("/kind")) {
            ("v1", "Node") => {
                self.nodes.insert(name, Arc::new(node(object)));
            }
            ("v1", "LimitRange") => {
                let range = self.ranges.remove(&namespace).unwrap_or_default();
                self.ranges.insert(namespace, range.and(&Range::from_spec(spec)));
            }
            ("apps/v1", "DaemonSet") => {
                let owner = Owner { template: template_of(object), ..Owner::default() };
                self.owners.insert((namespace, name), Arc::new(owner));
            }
            (api, KIND) if api.split('/').next() == Some(GROUP) => {
                let rules = Template::from_spec(spec);
                let fact =
                    TemplateFact { uid: "".into(), generation: 0, rules, status: TemplateStatus::default() };
                self.templates.insert(name, Arc::new(fact));
            }
            _ => {}
        }
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(name, node)| (&**name, &**node))
    }

    /// A template, if there is one of this name.
    pub fn template_named(&self, name: &str) -> Option<&TemplateFact> {
        self.templates.get(name).map(|template| &**template)
    }
}

/// The template that a `DaemonSet` names on its pod template, or else on itself.
pub fn template_of(daemon_set: &Value) -> Option<Box<str>> {
    let annotation = |at: &str, key: &str| daemon_set.pointer(at)?.get(key)?.as_str();
    named_template(|key| annotation("/spec/template/metadata/annotations", key))
        .or_else(|| annotation("/metadata/annotations", RESOURCE_TEMPLATE))
        .map(Into::into)
}

fn node(object: &Value) -> Node {
    let strings = |at: &str| {
        let map = object.pointer(at).and_then(Value::as_object);
        map.into_iter().flatten().filter_map(|(key, value)| Some((&**key, value.as_str()?)))
    };
    let allocatable: BTreeMap<&str, String> = object
        .pointer("/status/allocatable")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (&**key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)))
        .collect();
    Node::new(strings("/metadata/labels"), |name| allocatable.get(name).map(String::as_str))
}

impl Facts for Offline {
    async fn node(&self, name: &str, _: Instant) -> Lookup<Node> {
        self.nodes.get(name).cloned().into()
    }

    async fn template(&self, name: &str, _: Instant) -> Lookup<TemplateFact> {
        self.templates.get(name).cloned().into()
    }

    async fn owner(&self, namespace: &str, name: &str, _: &str, _: Instant) -> Lookup<Owner> {
        self.owners.get(&(namespace.to_owned(), name.to_owned())).cloned().into()
    }

    fn range(&self, namespace: &str) -> Range {
        self.ranges.get(namespace).cloned().unwrap_or_default()
    }

    fn heard(&self, _: &Subject<'_>, _: Outcome) {}
}

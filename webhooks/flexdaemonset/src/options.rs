//! The options of the server and of offline commands.

use std::time::Instant;

use anyhow::Context;
use podshaper_cli::{ServeContext, ServeOptions, WebhookOptions};
use podshaper_core::admission::Webhook;
use podshaper_core::object::Lookup;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::manifests::FactFiles;
use serde_json::Value;

use crate::cluster::{FlexDaemonsetCluster, RefitOptions};
use flexdaemonset_decision::daemon_set::DaemonSet;
use flexdaemonset_decision::facts::{SizingFacts, SizingOutcome, TemplatedPod};
use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::offline::OfflineCluster;
use flexdaemonset_decision::owner_kind::{DaemonSetReference, OwnerKind};
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::selection::Selection;
use flexdaemonset_decision::template::TemplateStatus;
use flexdaemonset_decision::template_object::TemplateObject;
use flexdaemonset_decision::webhook::FlexDaemonset;

/// The options of the server.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    replica: Replica,
    #[command(flatten)]
    refit: RefitOptions,
    #[command(flatten)]
    selection: SelectionOptions,
}

impl ServeOptions for Options {
    fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<impl Webhook + use<>> {
        let client = client::in_cluster().context("no access to the API server")?;
        let cluster = FlexDaemonsetCluster::start(
            &client,
            &self.replica,
            self.refit,
            self.selection.selection,
            context.metrics,
            context.terminating,
        );
        Ok(FlexDaemonset::new(cluster))
    }
}

/// The options of offline commands.
#[derive(Clone, Debug, clap::Args)]
pub struct OfflineOptions {
    #[command(flatten)]
    facts: FactFiles,
    /// Node of pods that name none, such as those of a pod template
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    selection: SelectionOptions,
}

impl WebhookOptions for OfflineOptions {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        self.webhook_in("default")
    }

    fn webhook_in(self, namespace: &str) -> anyhow::Result<impl Webhook + use<>> {
        let mut objects = self.facts.read()?;
        set_namespace(&mut objects, namespace);
        let cluster = OfflineCluster::with_selection(&objects, self.selection.selection)?;
        Ok(FlexDaemonset::new(cluster).with_default_node(self.node))
    }
}

/// Sets the namespace of objects that name none. Kinds without namespaces ignore it.
pub(crate) fn set_namespace(objects: &mut [Value], namespace: &str) {
    for metadata in objects.iter_mut().filter_map(|object| object.get_mut("metadata")?.as_object_mut()) {
        if metadata.get("namespace").and_then(Value::as_str).is_none_or(str::is_empty) {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
    }
}

/// The pods that the chart's `MutatingWebhookConfiguration` selects.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct SelectionOptions {
    /// Selectors of the webhook's configuration in JSON: releaseNamespace, kubeSystem, namespaceSelector, objectSelector,
    /// hasMatchConditions, ownerKinds
    #[arg(long, env = "FLEXDAEMONSET_SELECTION", value_name = "JSON", default_value = "{}", value_parser = Selection::from_json)]
    pub(crate) selection: Selection,
}

/// The cluster of a self-test: it has every node, and one template under every name.
#[derive(Clone, Debug, clap::Args)]
pub struct AssumedTemplate {
    /// JSON of the spec of the template that the pod names; the size must not depend on the node
    #[arg(long, value_name = "JSON", default_value = r#"{"minCPU": "100m"}"#, value_parser = json)]
    template: Value,
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl WebhookOptions for AssumedTemplate {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        Ok(FlexDaemonset::new(self))
    }
}

impl SizingFacts for AssumedTemplate {
    async fn node(&self, _: &str, _: Instant) -> Lookup<Node> {
        Lookup::Found(Node::unlimited().into())
    }

    async fn template(&self, _: &str, _: Instant) -> Lookup<TemplateObject> {
        let rules = Template::from_spec(&self.template);
        Lookup::Found(
            TemplateObject { uid: "".into(), generation: 0, rules, status: TemplateStatus::default() }.into(),
        )
    }

    async fn daemon_set(&self, _: &str, _: DaemonSetReference<'_>, _: Instant) -> Lookup<DaemonSet> {
        Lookup::NotFound
    }

    fn is_daemon_set(&self, group: &str, kind: &str) -> bool {
        OwnerKind::daemon_set().is(group, kind)
    }

    fn namespace_limits(&self, _: &str) -> NamespaceLimits {
        NamespaceLimits::default()
    }

    fn record_outcome(&self, _: &TemplatedPod<'_>, _: SizingOutcome) {}
}

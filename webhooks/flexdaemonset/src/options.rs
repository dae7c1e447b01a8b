//! Flags, and the webhooks that they make.

use std::time::Instant;

use anyhow::Context;
use podshaper_cli::ServeContext;
use podshaper_core::lookup::Lookup;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::manifests::FactFiles;
use serde_json::Value;

use crate::cluster::{Cluster, RefitOptions};
use flexdaemonset_decision::daemon_set::Owner;
use flexdaemonset_decision::facts::{Facts, Outcome, Subject};
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::offline;
use flexdaemonset_decision::range::Range;
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::template::TemplateStatus;
use flexdaemonset_decision::template_object::TemplateFact;
use flexdaemonset_decision::webhook::FlexDaemonset;

/// How the server works.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    replica: Replica,
    #[command(flatten)]
    refit: RefitOptions,
}

impl Options {
    /// The webhook that decides by the cluster.
    pub fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<FlexDaemonset<Cluster>> {
        let client = client::in_cluster().context("no access to the API server")?;
        let cluster =
            Cluster::start(&client, &self.replica, self.refit, context.metrics, context.terminating);
        Ok(FlexDaemonset::new(cluster))
    }
}

/// How an offline run decides.
#[derive(Clone, Debug, clap::Args)]
pub struct OfflineOptions {
    #[command(flatten)]
    facts: FactFiles,
    /// The node of pods that name none, such as those of a pod template
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl OfflineOptions {
    /// The webhook that decides by the files.
    pub fn webhook(self) -> anyhow::Result<FlexDaemonset<offline::Offline>> {
        Ok(FlexDaemonset::new(offline::Offline::new(&self.facts.read()?)?).supposing(self.node))
    }
}

/// The cluster of a self-test: any node, and one template, by what it says.
#[derive(Clone, Debug, clap::Args)]
pub struct AssumedTemplate {
    /// The spec of the template that the pod names, as JSON: one that depends on no node
    #[arg(long, value_name = "JSON", default_value = r#"{"minCPU": "100m"}"#, value_parser = json)]
    template: Value,
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl Facts for AssumedTemplate {
    async fn node(&self, _: &str, _: Instant) -> Lookup<Node> {
        Lookup::Found(Node::default().into())
    }

    async fn template(&self, _: &str, _: Instant) -> Lookup<TemplateFact> {
        let rules = Template::from_spec(&self.template);
        Lookup::Found(
            TemplateFact { uid: "".into(), generation: 0, rules, status: TemplateStatus::default() }.into(),
        )
    }

    async fn owner(&self, _: &str, _: &str, _: &str, _: Instant) -> Lookup<Owner> {
        Lookup::NotFound
    }

    fn range(&self, _: &str) -> Range {
        Range::default()
    }

    fn heard(&self, _: &Subject<'_>, _: Outcome) {}
}

//! Flags, and the webhooks that they make.

use std::time::Instant;

use anyhow::Context;
use podshaper::cli::Start;
use podshaper::cli::mutate::Facts as Files;
use podshaper::found::Found;
use podshaper::in_cluster;
use serde_json::Value;

use crate::cluster::{Cluster, Place, RefitOptions};
use crate::facts::{Facts, Outcome, Owner, Subject, TemplateFact};
use crate::node::Node;
use crate::offline;
use crate::range::Range;
use crate::rules::Template;
use crate::webhook::FlexDaemonset;

/// How the server works.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The namespace of the Lease: the one that this pod is in
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "flexdaemonsets-system")]
    lease_namespace: String,
    /// This pod's name
    #[arg(long, env = "HOSTNAME", value_name = "NAME", default_value = "flexdaemonset")]
    pod_name: String,
    /// The Lease that replicas contend for: its holder writes status and refits
    #[arg(long, env = "FLEXDAEMONSET_LEASE", value_name = "NAME", default_value = "flexdaemonset")]
    lease: String,
    #[command(flatten)]
    refit: RefitOptions,
}

impl Options {
    /// The webhook that decides by the cluster.
    pub fn webhook(self, start: Start<'_>) -> anyhow::Result<FlexDaemonset<Cluster>> {
        let client = in_cluster::client().context("no access to the API server")?;
        let place = Place { namespace: self.lease_namespace, pod: self.pod_name, lease: self.lease };
        Ok(FlexDaemonset::new(Cluster::start(&client, place, self.refit, start.metrics, start.ending)))
    }
}

/// How an offline run decides.
#[derive(Clone, Debug, clap::Args)]
pub struct Offline {
    #[command(flatten)]
    facts: Files,
    /// The node of pods that name none, such as those of a pod template
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
}

impl Offline {
    /// The webhook that decides by the files.
    pub fn webhook(self) -> anyhow::Result<FlexDaemonset<offline::Offline>> {
        Ok(FlexDaemonset::new(offline::Offline::new(&self.facts.read()?)).supposing(self.node))
    }
}

/// The cluster of a self-test: any node, and one template, by what it says.
#[derive(Clone, Debug, clap::Args)]
pub struct Supposed {
    /// The spec of the template that the pod names, as JSON: one that depends on no node
    #[arg(long, value_name = "JSON", default_value = r#"{"minCPU": "100m"}"#, value_parser = json)]
    template: Value,
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl Supposed {
    /// The webhook that supposes this template.
    pub fn webhook(self) -> anyhow::Result<FlexDaemonset<Self>> {
        Ok(FlexDaemonset::new(self))
    }
}

impl Facts for Supposed {
    async fn node(&self, _: &str, _: Instant) -> Found<Node> {
        Found::Object(Node::default().into())
    }

    async fn template(&self, _: &str, _: Instant) -> Found<TemplateFact> {
        let rules = Template::from_spec(&self.template);
        Found::Object(TemplateFact { uid: "".into(), generation: 0, rules, status: Value::Null }.into())
    }

    async fn owner(&self, _: &str, _: &str, _: &str, _: Instant) -> Found<Owner> {
        Found::Nothing
    }

    fn range(&self, _: &str) -> Range {
        Range::default()
    }

    fn heard(&self, _: &Subject<'_>, _: Outcome) {}
}

//! Options of the commands, and the webhooks that they configure.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, bail};
use podshaper_cli::{ObjectMetrics, ServeContext, ServeOptions, WebhookOptions};
use podshaper_core::admission::Webhook;
use podshaper_core::object::is_name;
use podshaper_core::pod::Toleration;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::manifests::FactFiles;
use podshaper_placement::ledger::Token;
use podshaper_placement::offline;
use podshaper_placement::policy::GroupSet;
use podshaper_placement_kube::PodSeries;
use podshaper_server::{ListenAddress, admin};
use serde_json::Value;

use crate::cluster::{ClusterSettings, DistributorCluster, EvictionSettings};
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::facts::DistributorFacts;
use distributor_decision::offline::FileFacts;
use distributor_decision::webhook::DistributorWebhook;

/// Options of `distributor serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    replica: Replica,
    #[command(flatten)]
    metrics: ObjectMetrics,
    /// Address of the web page, which shows all PodDistributors to everyone who can connect; 0 disables it. By default only the pod itself
    /// can connect, and `kubectl port-forward`
    #[arg(
        long,
        env = "DISTRIBUTOR_PAGE_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8082",
        help_heading = "Addresses"
    )]
    page_bind_address: ListenAddress,
    /// Name under which a proxy or an Ingress serves the web page, in addition to localhost and IP addresses; may be repeated
    #[arg(
        long,
        env = "DISTRIBUTOR_PAGE_HOSTS",
        value_name = "NAME",
        value_delimiter = ',',
        help_heading = "Addresses"
    )]
    page_host: Vec<String>,
    /// Whether pods may be evicted: those that wait for nodes of a closed group, and those that `rebalance` moves. If false, they only count in
    /// the status
    #[arg(long, env = "DISTRIBUTOR_EVICTIONS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    evictions: bool,
    /// Whether the API server calls the webhook for pods without a controller, which PodDistributors with a selector then place. If false, they say
    /// so in their status
    #[arg(long, env = "DISTRIBUTOR_BARE_PODS", value_name = "BOOL", default_value_t = false, action = clap::ArgAction::Set)]
    bare_pods: bool,
    /// Custom controllers that replace a deleted pod without harm, as GROUP/PLURAL: their waiting pods may be evicted; may be repeated
    #[arg(long, env = "DISTRIBUTOR_REPLACING_OWNERS", value_name = "GROUP/PLURAL", value_delimiter = ',', value_parser = resource)]
    replacing_owner: Vec<String>,
    /// Whether the annotations of namespaces are read by which admission plugins restrict pods. If false, the plugins may refuse pods because
    /// of the node selector or the tolerations of their group
    #[arg(long, env = "DISTRIBUTOR_NAMESPACES", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    namespaces: bool,
}

/// `GROUP/PLURAL`, such as `apps.kruise.io/clonesets`.
fn resource(text: &str) -> Result<String, String> {
    let is_resource = text.split_once('/').is_some_and(|(group, plural)| is_name(group) && is_name(plural));
    if is_resource {
        Ok(text.to_owned())
    } else {
        Err("expected GROUP/PLURAL, such as apps.kruise.io/clonesets".to_owned())
    }
}

impl ServeOptions for Options {
    /// Starts the watches and the controller of the webhook.
    fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<impl Webhook + use<>> {
        let series = PodSeries::from(self.metrics.per_object(&context)?);
        let client = client::in_cluster().context("no access to the API server")?;
        let evictions = EvictionSettings {
            enabled: self.evictions,
            replacing: self.replacing_owner,
            excluded_namespaces: vec!["kube-system".to_owned(), self.replica.namespace().to_owned()],
        };
        let cluster = DistributorCluster::start(
            &client,
            &self.replica,
            ClusterSettings {
                evictions,
                reads_namespaces: self.namespaces,
                series,
                bare_pods: self.bare_pods,
            },
            context.metrics,
            context.terminating,
        );
        if let Some(listener) = self.page_bind_address.bind()? {
            tokio::spawn(admin::serve(listener, None, cluster.page(self.page_host)));
        }
        Ok(DistributorWebhook::new(cluster))
    }
}

/// The options of `mutate`.
#[derive(Clone, Debug, clap::Args)]
pub struct FileOptions {
    #[command(flatten)]
    facts: FactFiles,
}

impl WebhookOptions for FileOptions {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        let facts = FileFacts::new(&self.facts.read()?)?;
        if facts.distributors().is_empty() {
            bail!(
                "no PodDistributor in --facts; give its file and the file with the owners of the pods: --facts FILE --facts FILE"
            );
        }
        Ok(DistributorWebhook::new(facts))
    }
}

/// Facts of a self-test: one PodDistributor, and a workload without pods.
#[derive(Clone, Debug, clap::Args)]
pub struct AssumedDistributor {
    /// Spec of the PodDistributor that selects the owner of the pod, as JSON
    #[arg(
        long,
        value_name = "JSON",
        default_value = r#"{"distribution": [{"nodeLabel": {"kubernetes.io/os": "linux"}, "weight": 1}], "target": {"kind": "ReplicaSet", "name": "selftest"}}"#,
        value_parser = json
    )]
    spec: Value,
}

fn json(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl WebhookOptions for AssumedDistributor {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        Ok(DistributorWebhook::new(self))
    }
}

impl DistributorFacts for AssumedDistributor {
    type Backend = offline::SelfTestBackend;

    fn backend(&self) -> &offline::SelfTestBackend {
        &offline::SelfTestBackend
    }

    fn distributors(&self, _: &str) -> Vec<Arc<Distributor>> {
        vec![Arc::new(Distributor::from_spec(&self.spec))]
    }

    fn groups_with_nodes(&self, _: &Distributor, spec: &ValidSpec, _: &[Toleration]) -> GroupSet {
        spec.allocator.policy().all()
    }

    async fn claim_probe(&self, _: &Distributor, _: usize, _: Token, _: Instant) -> bool {
        false
    }
}

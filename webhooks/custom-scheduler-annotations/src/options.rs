//! Flags, and the webhooks that they make.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use podshaper_cli::ServeContext;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::manifests::FactFiles;
use podshaper_placement::offline::FileBackend;

use crate::cluster::StrategyCluster;
use custom_scheduler_annotations_decision::facts::Facts;
use custom_scheduler_annotations_decision::strategies::Strategies;
use custom_scheduler_annotations_decision::webhook::{Annotated, Settings};

/// What decisions depend on, besides the annotations.
#[derive(Clone, Debug, clap::Args)]
struct DecisionOptions {
    /// Namespaces whose pods are left alone, whatever their labels; separated by commas
    #[arg(
        long,
        env = "BLOCKLISTED_NAMESPACE_LIST",
        value_name = "NAMES",
        default_value = "kube-system,kube-public,default"
    )]
    blocklisted_namespaces: String,
    /// Refuse workloads with a strategy that makes no sense; without this they get a warning, and their pods go anywhere
    #[arg(long, env = "VALIDATE_STRATEGIES")]
    validate: bool,
}

impl DecisionOptions {
    fn webhook<F: Facts>(&self, facts: F, strategies: Arc<Strategies>) -> Annotated<F> {
        let settings = Settings { blocklist: self.blocklist(), validate: self.validate };
        Annotated::new(facts, settings, strategies)
    }

    fn blocklist(&self) -> Arc<[String]> {
        let names = self.blocklisted_namespaces.split(',').map(str::trim).filter(|name| !name.is_empty());
        names.map(str::to_owned).collect()
    }
}

/// How the server works.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    decision: DecisionOptions,
    /// How often the leader looks after ledgers, and counts: seconds
    #[arg(long, env = "RECONCILER_PERIOD", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    reconciler_period: u64,
    #[command(flatten)]
    replica: Replica,
}

impl Options {
    /// The webhook that decides by the cluster.
    pub fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<Annotated<StrategyCluster>> {
        let client = client::in_cluster().context("no access to the API server")?;
        let strategies = Arc::<Strategies>::default();
        let period = Duration::from_secs(self.reconciler_period);
        let governed = (Arc::clone(&strategies), self.decision.blocklist());
        let cluster = StrategyCluster::start(&client, &self.replica, governed, period, context);
        Ok(self.decision.webhook(cluster, strategies))
    }
}

/// How an offline run decides.
#[derive(Clone, Debug, clap::Args)]
pub struct OfflineOptions {
    #[command(flatten)]
    facts: FactFiles,
    #[command(flatten)]
    decision: DecisionOptions,
}

impl OfflineOptions {
    /// The webhook that decides by the files.
    pub fn webhook(self) -> anyhow::Result<Annotated<FileBackend>> {
        let facts = FileBackend::new(&self.facts.read()?)?;
        Ok(self.decision.webhook(facts, Arc::default()))
    }
}

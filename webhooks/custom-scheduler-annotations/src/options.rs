//! The options of the commands, and the webhooks that they configure.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use podshaper_cli::{ObjectMetrics, ServeContext, ServeOptions, WebhookOptions};
use podshaper_core::admission::Webhook;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::manifests::FactFiles;
use podshaper_placement::offline::{FileBackend, SelfTestBackend};
use podshaper_placement_kube::PodSeries;

use crate::cluster::StrategyCluster;
use custom_scheduler_annotations_decision::facts::Facts;
use custom_scheduler_annotations_decision::strategies::Strategies;
use custom_scheduler_annotations_decision::webhook::{Annotated, Settings};

/// The options of decisions.
#[derive(Clone, Debug, clap::Args)]
struct DecisionOptions {
    /// Namespaces in which the webhook changes no pods, separated by commas
    #[arg(
        long,
        env = "BLOCKLISTED_NAMESPACE_LIST",
        value_name = "NAMES",
        default_value = "kube-system,kube-public,default"
    )]
    blocklisted_namespaces: String,
    /// Deny workloads with an invalid strategy; otherwise they get a warning, and their pods are not placed
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

/// The options of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    decision: DecisionOptions,
    /// Interval at which the leader reconciles Placements and updates metrics, in seconds
    #[arg(long, env = "RECONCILER_PERIOD", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    reconciler_period: u64,
    #[command(flatten)]
    replica: Replica,
    #[command(flatten)]
    metrics: ObjectMetrics,
}

impl ServeOptions for Options {
    fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<impl Webhook + use<>> {
        let client = client::in_cluster().context("no access to the API server")?;
        let series = PodSeries::from(self.metrics.per_object(&context)?);
        let strategies = Arc::<Strategies>::default();
        let period = Duration::from_secs(self.reconciler_period);
        let governed = (Arc::clone(&strategies), self.decision.blocklist());
        let cluster = StrategyCluster::start(&client, &self.replica, governed, period, (context, series));
        Ok(self.decision.webhook(cluster, strategies))
    }
}

/// The options of `mutate`.
#[derive(Clone, Debug, clap::Args)]
pub struct OfflineOptions {
    #[command(flatten)]
    facts: FactFiles,
    #[command(flatten)]
    decision: DecisionOptions,
}

impl WebhookOptions for OfflineOptions {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        let facts = FileBackend::new(&self.facts.read()?)?;
        Ok(self.decision.webhook(facts, Arc::default()))
    }
}

/// The options of `selftest`: none.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct SelftestOptions {}

impl WebhookOptions for SelftestOptions {
    fn webhook(self) -> anyhow::Result<impl Webhook> {
        Ok(Annotated::new(SelfTestBackend, Settings::default(), Arc::default()))
    }
}

//! The options of the commands, and the webhooks that they configure.

use std::sync::Arc;

use anyhow::{Context, bail};
use podshaper_cli::ServeContext;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::manifests::FactFiles;
use podshaper_placement::offline;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;
use podshaper_server::{ListenAddress, admin};
use serde_json::Value;

use crate::cluster::DistributorCluster;
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::facts::Facts;
use distributor_decision::offline::Offline;
use distributor_decision::webhook::PodDistribution;

/// The options of `serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    replica: Replica,
    /// Address of the web page, which shows all distributors to every client; 0 disables it. The default is for `kubectl port-forward`
    #[arg(
        long,
        env = "DISTRIBUTOR_PAGE_BIND_ADDRESS",
        value_name = "ADDRESS",
        default_value = "127.0.0.1:8082",
        help_heading = "Addresses"
    )]
    page_bind_address: ListenAddress,
}

impl Options {
    /// Builds the webhook that decides by the state of the cluster.
    pub fn webhook(self, context: ServeContext<'_>) -> anyhow::Result<PodDistribution<DistributorCluster>> {
        let client = client::in_cluster().context("no access to the API server")?;
        let cluster = DistributorCluster::start(&client, &self.replica, context.metrics, context.terminating);
        if let Some(listener) = self.page_bind_address.bind()? {
            tokio::spawn(admin::serve(listener, None, cluster.page()));
        }
        Ok(PodDistribution::new(cluster))
    }
}

/// Builds the webhook that decides by the files.
pub(crate) fn webhook_of_files(facts: &FactFiles) -> anyhow::Result<PodDistribution<Offline>> {
    let facts = Offline::new(&facts.read()?)?;
    if facts.all().is_empty() {
        bail!(
            "--facts has no PodDistributor; name its file and the files of the workloads: --facts FILE --facts FILE"
        );
    }
    Ok(PodDistribution::new(facts))
}

/// The cluster of a self-test: one distributor, and a workload without pods.
#[derive(Clone, Debug, clap::Args)]
pub struct AssumedDistributor {
    /// Spec of a PodDistributor that selects the pod's owner, in JSON
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

impl Facts for AssumedDistributor {
    type Surroundings = offline::SelfTestBackend;

    fn surroundings(&self) -> &offline::SelfTestBackend {
        &offline::SelfTestBackend
    }

    fn distributors(&self, _: &str) -> Vec<Arc<Distributor>> {
        vec![Arc::new(Distributor::from_spec(self.spec.clone()))]
    }

    fn available(&self, _: &str, _: &OwnerChain, spec: &ValidSpec) -> GroupSet {
        spec.allocator.policy().all()
    }
}

//! Flags, and the webhooks that they make.

use std::sync::Arc;

use anyhow::{Context, bail};
use podshaper_cli::Start;
use podshaper_kube::client;
use podshaper_kube::replica::Replica;
use podshaper_offline::mutate::Facts as Files;
use podshaper_placement::offline;
use podshaper_placement::owners::OwnerChain;
use podshaper_placement::policy::GroupSet;
use podshaper_server::{ListenAddress, admin};
use serde_json::Value;

use crate::cluster::Cluster;
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::facts::Facts;
use distributor_decision::webhook::PodDistribution;

/// How the server works.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    replica: Replica,
    /// Where the page is for people, which shows all distributors to whoever can connect: the pod itself, reached by `kubectl
    /// port-forward`, unless told otherwise; 0 for nowhere
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
    /// The webhook that decides by the cluster.
    pub fn webhook(self, start: Start<'_>) -> anyhow::Result<PodDistribution<Cluster>> {
        let client = client::in_cluster().context("no access to the API server")?;
        let cluster = Cluster::start(&client, &self.replica, start.metrics, start.ending);
        if let Some(listener) = self.page_bind_address.bind()? {
            tokio::spawn(admin::serve(listener, None, cluster.page()));
        }
        Ok(PodDistribution::new(cluster))
    }
}

/// How an offline run decides.
#[derive(Clone, Debug, clap::Args)]
pub struct Offline {
    #[command(flatten)]
    facts: Files,
}

impl Offline {
    /// The webhook that decides by the files.
    pub fn webhook(self) -> anyhow::Result<PodDistribution<distributor_decision::offline::Offline>> {
        let facts = distributor_decision::offline::Offline::new(&self.facts.read()?);
        if facts.all().is_empty() {
            bail!(
                "there is no PodDistributor in --facts; give its file, and whose the pods are: --facts FILE --facts FILE"
            );
        }
        Ok(PodDistribution::new(facts))
    }
}

/// The cluster of a self-test: one distributor, and a workload without pods.
#[derive(Clone, Debug, clap::Args)]
pub struct Supposed {
    /// The spec of the distributor that is about the pod's owner, as JSON
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

impl Supposed {
    /// The webhook that supposes this distributor.
    pub fn webhook(self) -> anyhow::Result<PodDistribution<Self>> {
        Ok(PodDistribution::new(self))
    }
}

impl Facts for Supposed {
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

//! The flags that identify a replica of a webhook.

use kube::Client;
use tokio::sync::watch;

use crate::lease::{LeaderElector, Leadership};

/// The pod and the Lease of a replica.
#[derive(Clone, Debug, clap::Args)]
pub struct Replica {
    /// Namespace of the Lease: that of this pod
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "default")]
    lease_namespace: String,
    /// Name of this pod
    #[arg(long, env = "HOSTNAME", value_name = "NAME", default_value = "replica")]
    pod_name: String,
    /// Name of the Lease that elects the leader among the replicas; each webhook needs its own. Defaults to the webhook's name
    #[arg(long, env = "PODSHAPER_LEASE", value_name = "NAME")]
    lease: Option<String>,
    /// Deployment of this pod, which owns the Lease; without it, uninstallation leaves the Lease
    #[arg(long, env = "PODSHAPER_DEPLOYMENT", value_name = "NAME")]
    deployment: Option<String>,
}

impl Replica {
    /// Returns the name of the pod.
    pub fn name(&self) -> &str {
        &self.pod_name
    }

    /// Returns the namespace of the pod.
    pub fn namespace(&self) -> &str {
        &self.lease_namespace
    }

    /// Takes part in the election of a leader among the replicas of `webhook` until `ending`.
    pub fn contend(&self, client: Client, webhook: &str, ending: watch::Receiver<bool>) -> Leadership {
        let lease = self.lease.clone().unwrap_or_else(|| webhook.to_owned());
        LeaderElector::new(client, &self.lease_namespace, lease, self.pod_name.clone())
            .owned_by(self.deployment.clone())
            .start(ending)
    }
}

//! Which of a webhook's replicas this process is.

use kube::Client;
use tokio::sync::watch;

use super::lease::{Leadership, Lease};

/// The flags that tell it.
#[derive(Clone, Debug, clap::Args)]
pub struct Replica {
    /// The namespace of the Lease: the one that this pod is in
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME", default_value = "default")]
    lease_namespace: String,
    /// This pod's name
    #[arg(long, env = "HOSTNAME", value_name = "NAME", default_value = "replica")]
    pod_name: String,
    /// The Lease that replicas contend for, one that is the webhook's own: its holder does what only one should do. The webhook's
    /// name, if not given
    #[arg(long, env = "PODSHAPER_LEASE", value_name = "NAME")]
    lease: Option<String>,
}

impl Replica {
    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.pod_name
    }

    /// Contends for the leadership among the replicas of `webhook`, until `ending`. Needs a runtime.
    pub fn contend(&self, client: Client, webhook: &str, ending: watch::Receiver<bool>) -> Leadership {
        let name = self.lease.clone().unwrap_or_else(|| webhook.to_owned());
        let lease = Lease { namespace: self.lease_namespace.clone(), name, identity: self.pod_name.clone() };
        lease.contend(client, ending)
    }
}

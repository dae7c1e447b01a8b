//! The cluster of a kubeconfig.

use std::error::Error;
use std::path::PathBuf;

use anyhow::anyhow;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use podshaper_kube::error::describe;

/// Options that kubectl has, too.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Kubeconfig file (default: KUBECONFIG, or ~/.kube/config)
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
}

/// A client, and the namespace of its context.
pub(crate) struct Cluster {
    /// The client, with the rights of the user.
    pub client: Client,
    /// The namespace of commands that name none.
    pub namespace: String,
}

impl ClusterArgs {
    /// Reads the kubeconfig. Nothing is asked of the cluster yet.
    pub(crate) async fn connect(&self) -> anyhow::Result<Cluster> {
        // Another library may have installed one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file)
                    .map_err(|error| anyhow!("--kubeconfig {}: {}", file.display(), describe(&error)))?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let unusable = |error: &(dyn Error + 'static)| {
            anyhow!(
                "the kubeconfig can't be used (choose another by --kubeconfig or --context): {}",
                describe(error)
            )
        };
        let config = config.map_err(|error| unusable(&error))?;
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| unusable(&error))?;
        Ok(Cluster { client, namespace })
    }
}

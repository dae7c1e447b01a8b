//! The API server as a pod reaches it.

use kube::{Client, Config};

/// A client with the pod's service account.
///
/// A kubeconfig isn't looked for: reading it would make every binary larger by a fifth, and whatever talks to the API server
/// here runs in a pod.
///
/// # Errors
/// This isn't a pod, or it has no service account token.
pub async fn client() -> kube::Result<Client> {
    let config = Config::incluster().map_err(|error| kube::Error::Service(Box::new(error)))?;
    Client::try_from(config)
}

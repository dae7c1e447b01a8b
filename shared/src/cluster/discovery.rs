//! What this cluster's API server can do.

use kube::Client;
use serde::Deserialize;

use crate::api_server::get;

/// `metav1.APIResourceList`.
#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

/// Whether version `v1` of the core group has `resource`, such as `pods/resize`.
pub async fn serves(client: &Client, resource: &str) -> kube::Result<bool> {
    let resources: Option<Resources> = get(client, "/api/v1").await?;
    Ok(resources.is_some_and(|known| known.resources.iter().any(|known| known.name == resource)))
}

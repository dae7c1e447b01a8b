//! What this cluster's API server can do.

use kube::Client;

/// Whether version `v1` of the core group has `resource`, such as `pods/resize`.
pub async fn serves(client: &Client, resource: &str) -> kube::Result<bool> {
    let resources = client.list_core_api_resources("v1").await?;
    Ok(resources.resources.iter().any(|known| known.name == resource))
}

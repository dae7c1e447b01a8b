//! Resources that the API server serves.
//!
//! kube's discovery reads a response of any size and logs one that it cannot parse; [`get`] bounds it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;

use crate::request::get;
use podshaper_core::object::is_name;

/// Whether the API server has `resource`, such as `pods/resize`, under `api_path`, such as `/api/v1`.
pub async fn serves(client: &Client, api_path: &str, resource: &str) -> kube::Result<bool> {
    let list: Option<APIResourceList> = get(client, api_path).await?;
    Ok(list.is_some_and(|list| list.resources.iter().any(|served| served.name == resource)))
}

/// The plural of a namespaced kind under `api_path`; none if the API server has no such kind.
pub async fn plural(client: &Client, api_path: &str, kind: &str) -> kube::Result<Option<String>> {
    let list: Option<APIResourceList> = get(client, api_path).await?;
    let mut resources = list.map(|list| list.resources).unwrap_or_default().into_iter();
    let found =
        resources.find(|resource| resource.namespaced && resource.kind == kind && is_name(&resource.name));
    Ok(found.map(|resource| resource.name))
}

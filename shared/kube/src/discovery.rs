//! What this cluster's API server can do.

use kube::Client;
use serde::Deserialize;

use crate::request::get;
use podshaper_core::object::is_name;

/// `metav1.APIResourceList`.
#[derive(Deserialize)]
struct Resources {
    resources: Vec<Resource>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Resource {
    name: String,
    kind: String,
    namespaced: bool,
}

/// Whether version `v1` of the core group has `resource`, such as `pods/resize`.
pub async fn serves(client: &Client, resource: &str) -> kube::Result<bool> {
    let resources: Option<Resources> = get(client, "/api/v1").await?;
    Ok(resources.is_some_and(|known| known.resources.iter().any(|known| known.name == resource)))
}

/// Where the API server has an API group and version, if anything can be called so: `/api/v1`, `/apis/apps/v1`.
pub fn base(api_version: &str) -> Option<String> {
    match api_version.split_once('/') {
        None => is_name(api_version).then(|| format!("/api/{api_version}")),
        Some((group, version)) => {
            (is_name(group) && is_name(version)).then(|| format!("/apis/{group}/{version}"))
        }
    }
}

/// The plural of a namespaced kind; none if there is no such kind.
pub async fn plural(client: &Client, base: &str, kind: &str) -> kube::Result<Option<String>> {
    let resources: Option<Resources> = get(client, base).await?;
    let is = |known: &Resource| known.namespaced && known.kind == kind && is_name(&known.name);
    Ok(resources.and_then(|known| known.resources.into_iter().find(is)).map(|known| known.name))
}

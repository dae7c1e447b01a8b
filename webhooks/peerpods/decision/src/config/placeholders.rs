//! What stays of a pod's own resources.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::amount::Amount;
use super::key::{ConfigError, Key};
use super::resource::is_native;
use crate::standing::{Placeholder, Standing};

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a request and a limit")]
pub(super) struct PlaceholderSettings {
    request: Amount,
    limit: Option<Amount>,
}

pub(super) fn standing(
    keep: Vec<String>,
    placeholders: BTreeMap<String, PlaceholderSettings>,
    vm_resource: &str,
    key: &Key,
) -> Result<Standing, ConfigError> {
    let placeholders = placeholders
        .into_iter()
        .map(|(resource, PlaceholderSettings { request, limit })| {
            let key = key.then("placeholders").then(&resource);
            if !matches!(&*resource, "cpu" | "memory" | "ephemeral-storage") {
                return Err(key.error("only cpu, memory and ephemeral-storage can be held by a placeholder"));
            }
            let at_least = request.quantity(&key.then("request"))?;
            let limit_key = key.then("limit");
            let at_most = limit.map(|limit| limit.quantity(&limit_key)).transpose()?;
            if at_most.as_ref().is_some_and(|limit| *limit < at_least) {
                return Err(limit_key.error("is less than the request"));
            }
            Ok(Placeholder {
                resource,
                request: at_least.to_string(),
                limit: at_most.map(|limit| limit.to_string()),
            })
        })
        .collect::<Result<Vec<_>, _>>()?;

    let key = key.then("keepResources");
    for resource in &keep {
        if resource == vm_resource {
            return Err(key.error(format_args!("{resource} is set by the webhook itself")));
        }
        if !resource.contains('/') && !is_native(resource) {
            return Err(key.error(format_args!("{resource:?} is no resource of a container")));
        }
    }
    let keeps = |resource: &str| keep.iter().any(|kept| kept == resource);
    let compute = (keeps("cpu") && keeps("memory"))
        || placeholders.iter().any(|placeholder| matches!(&*placeholder.resource, "cpu" | "memory"));
    match keep.iter().find(|resource| resource.starts_with("hugepages-")) {
        // ValidateContainerResourceRequirements in k8s.io/kubernetes/pkg/apis/core/validation.
        Some(pages) if !compute => Err(key.error(format_args!(
            "a container with {pages} must have cpu or memory too: add a placeholder for one of them, or keep both"
        ))),
        _ => Ok(Standing { keep, placeholders }),
    }
}

//! The rules of Kubernetes for the fields that the patch removes.
//!
//! The API server validates the patched pod. It does not see a mistake in a field that the patch has removed, so it would
//! admit a pod that it would refuse without this webhook. A pod that breaks one of these rules is therefore left unchanged,
//! and the API server refuses it. The rules are those of k8s.io/kubernetes/pkg/apis/core/validation, neither stricter nor
//! looser: `ci/go/validation-oracle` compares both.

use std::cmp::Ordering;
use std::collections::HashSet;
use std::fmt;

use podshaper_core::label;
use podshaper_core::pod::{
    ContainerList, Pod, PodResourceClaim, ResourceClaim, ResourceField, ResourceList, Resources, aggregate,
};
use podshaper_core::quantity::Quantity;

use crate::original_requests::OriginalRequests;

/// `v1.ResourceHugePagesPrefix`.
pub(crate) const HUGEPAGES: &str = "hugepages-";

/// Bytes of the longest DNS label.
const MAX_DNS_LABEL: usize = 63;

/// A rule that the pod breaks.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{owner}: {problem}")]
pub(crate) struct Violation {
    owner: String,
    problem: String,
}

/// The owner of resources, which decides about the names that they may have.
#[derive(Clone, Copy)]
enum Owner<'n> {
    Container(&'n str),
    Overhead,
    Pod,
}

/// Checks the fields of `pod` that the patch removes, as far as no earlier pass has removed them.
pub(crate) fn check(pod: &Pod<'_>, requests: &OriginalRequests<'_>) -> Result<(), Violation> {
    let Some(spec) = &pod.spec else { return Ok(()) };
    let claims = spec.resource_claims.as_deref().unwrap_or_default();
    check_pod_claims(claims)?;
    let claim_names: HashSet<&str> =
        claims.iter().map(|claim| &*claim.name).chain(requests.recorded_claims()).collect();
    for container in requests.containers().iter().filter(|container| !container.is_recorded()) {
        let Some(resources) = &container.container().resources else { continue };
        let owner = Owner::Container(&container.container().name);
        check_resources(resources, owner).map_err(|problem| owner.violation(problem))?;
        let claims = resources.claims.as_deref().unwrap_or_default();
        check_claims(claims, &claim_names).map_err(|problem| owner.violation(problem))?;
    }
    if let Some(overhead) = &spec.overhead {
        // validateOverhead
        let limits = Resources { limits: Some(overhead.clone()), ..Resources::default() };
        check_resources(&limits, Owner::Overhead).map_err(|problem| Owner::Overhead.violation(problem))?;
    }
    match &spec.resources {
        Some(resources) if requests.recorded_pod().is_none() => {
            let is_windows = spec.os.as_ref().is_some_and(|os| &*os.name == "windows");
            check_pod_resources(resources, requests, is_windows)
                .map_err(|problem| Owner::Pod.violation(problem))
        }
        _ => Ok(()),
    }
}

/// `validateResourceRequirements`, without the claims.
fn check_resources(resources: &Resources<'_>, owner: Owner<'_>) -> Result<(), String> {
    for field in [ResourceField::Limits, ResourceField::Requests] {
        for (name, _) in field.of(resources).into_iter().flat_map(ResourceList::iter) {
            owner.check_name(name)?;
            let Some(quantity) = quantity(resources, field, name)? else { continue };
            let place = || format!("{}[{name}]", field.field());
            check_quantity(name, quantity).map_err(|problem| format!("{} {problem}", place()))?;
            if field == ResourceField::Requests {
                let limit = self::quantity(resources, ResourceField::Limits, name)?;
                check_request(name, quantity, limit).map_err(|problem| format!("{} {problem}", place()))?;
            }
        }
    }
    let names = || {
        let lists = [ResourceField::Limits.of(resources), ResourceField::Requests.of(resources)];
        lists.into_iter().flatten().flat_map(ResourceList::iter).map(|(name, _)| name)
    };
    let has_compute = names().any(|name| matches!(name, "cpu" | "memory"));
    match names().find(|name| name.starts_with(HUGEPAGES)) {
        Some(pages) if !has_compute => Err(format!("{pages} needs cpu or memory beside it")),
        _ => Ok(()),
    }
}

/// `ValidateResourceQuantityValue` and `validateResourceQuantityHugePageValue`.
fn check_quantity(name: &str, quantity: Quantity) -> Result<(), String> {
    if quantity < Quantity::ZERO {
        return Err("must not be negative".into());
    }
    // A device can't be split.
    if is_extended(name) && quantity.milli_value().is_none_or(|milli| milli % 1000 != 0) {
        return Err("must be a whole number".into());
    }
    let Some(page) = name.strip_prefix(HUGEPAGES) else { return Ok(()) };
    let page = page.parse::<Quantity>().ok().filter(|page| page.milli_value().is_some_and(|m| m % 1000 == 0));
    let page = page.and_then(|page| page.value());
    let amount = quantity.value();
    match (page, amount) {
        (Some(page @ 1..), Some(amount)) if amount % page == 0 => Ok(()),
        _ => Err("must be a multiple of the page size".into()),
    }
}

/// A request beside its limit.
fn check_request(name: &str, request: Quantity, limit: Option<Quantity>) -> Result<(), String> {
    let may_differ = is_native(name) && !name.starts_with(HUGEPAGES);
    match limit.map(|limit| compare(request, limit)) {
        None if may_differ => Ok(()),
        None => Err("needs a limit".into()),
        Some(Ordering::Equal) => Ok(()),
        Some(_) if !may_differ => Err("must equal its limit".into()),
        Some(Ordering::Less) => Ok(()),
        Some(Ordering::Greater) => Err("must not exceed its limit".into()),
    }
}

/// `validatePodResources`.
fn check_pod_resources(
    resources: &Resources<'_>,
    requests: &OriginalRequests<'_>,
    is_windows: bool,
) -> Result<(), String> {
    if is_windows {
        return Err("a Windows pod can't have it".into());
    }
    if resources.claims.is_some() {
        return Err("claims belong to a container".into());
    }
    check_resources(resources, Owner::Pod)?;
    let lists = [ResourceField::Requests, ResourceField::Limits].into_iter();
    for (field, name) in lists.flat_map(|field| {
        field.of(resources).into_iter().flat_map(ResourceList::iter).map(move |(name, _)| (field, name))
    }) {
        let Some(pod) = quantity(resources, field, name)? else { continue };
        // The containers may have higher limits together, but each of them not.
        let is_total = field == ResourceField::Requests || name.starts_with(HUGEPAGES);
        if is_total && total(requests, field, name)? > pod {
            return Err(format!("{}[{name}] is less than the total of the containers", field.field()));
        }
        for container in requests.containers().iter().filter(|_| field == ResourceField::Limits) {
            let is_app = container.place().0 == ContainerList::Containers;
            if is_app && quantity(container.requested(), field, name)?.is_some_and(|limit| limit > pod) {
                let name_of_container = &*container.container().name;
                return Err(format!("limits[{name}] is less than that of container {name_of_container}"));
            }
        }
    }
    Ok(())
}

/// `AggregateContainerRequests` and `AggregateContainerLimits`.
fn total(requests: &OriginalRequests<'_>, field: ResourceField, name: &str) -> Result<Quantity, String> {
    let containers = requests.containers().iter().map(|container| {
        let role = container.container().role(container.place().0);
        Ok((role, quantity(container.requested(), field, name)?.unwrap_or(Quantity::ZERO)))
    });
    aggregate(containers, |a, b| a.checked_add(&b).ok_or_else(|| format!("{name} is out of range")))
}

/// `validatePodResourceClaims`.
fn check_pod_claims(claims: &[PodResourceClaim<'_>]) -> Result<(), Violation> {
    let mut names = HashSet::new();
    for claim in claims {
        let name = &*claim.name;
        let object = &claim.resource_claim_name;
        let template = &claim.resource_claim_template_name;
        let problem = match (object, template) {
            _ if !is_dns_label(name) => "the name is not a DNS label",
            _ if !names.insert(name) => "the name is used twice",
            (Some(_), Some(_)) => "a claim has a resourceClaimName or a resourceClaimTemplateName, not both",
            (None, None) => "a claim needs a resourceClaimName or a resourceClaimTemplateName",
            (Some(object), None) | (None, Some(object)) if !is_dns_subdomain(object) => {
                "the name of the object is not a DNS name"
            }
            _ => continue,
        };
        return Err(Violation {
            owner: format!("spec.resourceClaims {:?}", label::excerpt(name)),
            problem: problem.into(),
        });
    }
    Ok(())
}

/// `validateResourceClaimNames`.
fn check_claims(claims: &[ResourceClaim<'_>], of_pod: &HashSet<&str>) -> Result<(), String> {
    let mut whole = HashSet::new();
    let mut parts = HashSet::new();
    for claim in claims {
        let name = &*claim.name;
        let request = claim.request.as_deref().unwrap_or_default();
        let named = || format!("claim {:?}", label::excerpt(name));
        if !of_pod.contains(name) {
            return Err(format!("{} is none of spec.resourceClaims", named()));
        }
        if !request.is_empty() && !is_dns_label(request) {
            return Err(format!("the request of {} is not a DNS label", named()));
        }
        let is_new = if request.is_empty() {
            !parts.iter().any(|(other, _)| *other == name) && whole.insert(name)
        } else {
            !whole.contains(name) && parts.insert((name, request))
        };
        if !is_new {
            return Err(format!("{} is named twice", named()));
        }
    }
    Ok(())
}

impl Owner<'_> {
    /// `validateContainerResourceName` and `validatePodResourceName`.
    fn check_name(self, name: &str) -> Result<(), String> {
        let is_standard =
            matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with(HUGEPAGES);
        let is_known = match self {
            Self::Pod => matches!(name, "cpu" | "memory") || name.starts_with(HUGEPAGES),
            Self::Container(_) | Self::Overhead if name.contains('/') => is_native(name) || is_extended(name),
            Self::Container(_) | Self::Overhead => is_standard,
        };
        if is_known && label::check_key(name).is_ok() {
            return Ok(());
        }
        let kind = match self {
            Self::Pod => "cpu, memory or hugepages-SIZE",
            Self::Container(_) | Self::Overhead => {
                "a resource of containers: cpu, memory, ephemeral-storage, hugepages-SIZE, or a name such as example.com/gpu"
            }
        };
        Err(format!("{:?} is not {kind}", label::excerpt(name)))
    }

    fn violation(self, problem: String) -> Violation {
        Violation { owner: self.to_string(), problem }
    }
}

impl fmt::Display for Owner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Container(name) => write!(f, "container {}", label::excerpt(name)),
            Self::Overhead => f.write_str("spec.overhead"),
            Self::Pod => f.write_str("spec.resources"),
        }
    }
}

/// `IsNativeResource` of k8s.io/kubernetes/pkg/apis/core/helper.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// `IsExtendedResourceName`: its name in a quota must be a qualified name too.
fn is_extended(name: &str) -> bool {
    !is_native(name)
        && !name.starts_with("requests.")
        && label::check_key(&format!("requests.{name}")).is_ok()
}

fn is_dns_label(name: &str) -> bool {
    name.len() <= MAX_DNS_LABEL && !name.contains('.') && is_dns_subdomain(name)
}

fn is_dns_subdomain(name: &str) -> bool {
    // The prefix of a label key is one.
    label::check_key(&format!("{name}/x")).is_ok() && !name.contains('/')
}

/// Compares as the API server does, which rounds each quantity up to thousandths first (`SetDefaults_ResourceList`).
fn compare(a: Quantity, b: Quantity) -> Ordering {
    match (a.milli_value(), b.milli_value()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.cmp(&b),
    }
}

fn quantity(resources: &Resources<'_>, field: ResourceField, name: &str) -> Result<Option<Quantity>, String> {
    let Some(text) = field.of(resources).and_then(|list| list.get(name)) else { return Ok(None) };
    // Quantity.UnmarshalJSON trims.
    match Quantity::parse(text.trim()) {
        Ok(quantity) => Ok(Some(quantity)),
        Err(error) => {
            let excerpt = label::excerpt(text);
            Err(format!("{}[{name}] is {excerpt:?}: {error}", field.field()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(pod: &str) -> String {
        let pod: Pod<'_> = serde_json::from_str(pod).unwrap();
        let requests = OriginalRequests::from_pod(&pod, "kata.peerpods.io/vm").unwrap();
        check(&pod, &requests).err().map_or(String::new(), |violation| violation.to_string())
    }

    fn of_container(resources: &str) -> String {
        problem(&format!(
            r#"{{"spec":{{"resourceClaims":[{{"name":"one","resourceClaimName":"x"}}],"containers":[{{"name":"a","resources":{resources}}}]}}}}"#
        ))
    }

    #[test]
    fn valid_resources_have_no_problem() {
        for resources in [
            "{}",
            r#"{"requests":{"cpu":1,"memory":"1Gi"},"limits":{"cpu":"1000m"}}"#,
            r#"{"requests":{"x.y/z":"1"},"limits":{"x.y/z":"1"}}"#,
            r#"{"requests":{"a.kubernetes.io/z":"500m"}}"#,
            r#"{"requests":{"hugepages-2Mi":"4Mi","cpu":"1"},"limits":{"hugepages-2Mi":"4Mi"}}"#,
            r#"{"requests":{"cpu":"1.0009"},"limits":{"cpu":"1.001"}}"#,
            r#"{"claims":[{"name":"one","request":"r"},{"name":"one","request":"s"}]}"#,
        ] {
            assert_eq!(of_container(resources), "", "{resources}");
        }
    }

    #[test]
    fn broken_rule_is_named() {
        for (resources, expected) in [
            (r#"{"requests":{"cpu":"2"},"limits":{"cpu":"1"}}"#, "requests[cpu] must not exceed its limit"),
            (r#"{"limits":{"x.y/z":"500m"}}"#, "limits[x.y/z] must be a whole number"),
            (r#"{"requests":{"x.y/z":"1"},"limits":{"x.y/z":"2"}}"#, "requests[x.y/z] must equal its limit"),
            (r#"{"requests":{"x.y/z":"1"}}"#, "requests[x.y/z] needs a limit"),
            (r#"{"requests":{"cpu":"-1"}}"#, "requests[cpu] must not be negative"),
            (r#"{"requests":{"cpu":"abc"}}"#, "requests[cpu] is \"abc\": a quantity is"),
            (r#"{"requests":{"cpu ":"1"}}"#, "\"cpu \" is not a resource of containers"),
            (r#"{"requests":{"foo":"1"}}"#, "\"foo\" is not a resource of containers"),
            (r#"{"limits":{"requests.a/b":"1"}}"#, "\"requests.a/b\" is not a resource of containers"),
            (r#"{"limits":{"a/b/c":"1"}}"#, "\"a/b/c\" is not a resource of containers"),
            (r#"{"limits":{"hugepages-2Mi":"2Mi"}}"#, "hugepages-2Mi needs cpu or memory beside it"),
            (r#"{"limits":{"hugepages-2Mi":"3Mi","cpu":"1"}}"#, "must be a multiple of the page size"),
            (
                r#"{"requests":{"hugepages-2Mi":"2Mi","cpu":"1"},"limits":{"hugepages-2Mi":"4Mi"}}"#,
                "must equal its limit",
            ),
            (r#"{"claims":[{"name":"two"}]}"#, "claim \"two\" is none of spec.resourceClaims"),
            (r#"{"claims":[{"name":"one"},{"name":"one","request":"r"}]}"#, "claim \"one\" is named twice"),
            (r#"{"claims":[{"name":"one","request":"r"},{"name":"one"}]}"#, "claim \"one\" is named twice"),
            (r#"{"claims":[{"name":"one","request":"R"}]}"#, "is not a DNS label"),
        ] {
            let problem = of_container(resources);
            assert!(problem.starts_with("container a: ") && problem.contains(expected), "{problem}");
        }
    }

    #[test]
    fn broken_rule_of_pod_level_field_is_named() {
        for (spec, expected) in [
            (
                r#""resources":{"requests":{"cpu":"1"}}"#,
                "spec.resources: requests[cpu] is less than the total of the containers",
            ),
            (
                r#""resources":{"limits":{"cpu":"3"}}"#,
                "spec.resources: limits[cpu] is less than that of container a",
            ),
            (r#""resources":{"limits":{"x.y/z":"1"}}"#, "spec.resources: \"x.y/z\" is not cpu, memory or"),
            (r#""resources":{"claims":[]}"#, "spec.resources: claims belong to a container"),
            (r#""os":{"name":"windows"},"resources":{}"#, "spec.resources: a Windows pod"),
            (r#""overhead":{"cpu":"-1"}"#, "spec.overhead: limits[cpu] must not be negative"),
            (r#""resourceClaims":[{"name":"a"}]"#, "spec.resourceClaims \"a\": a claim needs"),
            (r#""resourceClaims":[{"name":"A","resourceClaimName":"a"}]"#, "the name is not a DNS label"),
        ] {
            let problem = problem(&format!(
                r#"{{"spec":{{"containers":[{{"name":"a","resources":{{"requests":{{"cpu":"2"}},"limits":{{"cpu":"4"}}}}}}],{spec}}}}}"#
            ));
            assert!(problem.starts_with(expected) || problem.ends_with(expected), "{problem}");
        }
    }
}

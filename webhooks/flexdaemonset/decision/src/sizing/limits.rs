//! The limits that go with requests: those of the template's policy, or the nearest that the namespace admits.
//!
//! LimitRanger (k8s.io/kubernetes/plugin/pkg/admission/limitranger) checks each container, and the pod in total without overhead.
//! The total is that of `spec.resources` if the pod has them.

use std::convert::Infallible;

use podshaper_core::pod::{ContainerRole, aggregate};

use crate::resource::{RequestAndLimit, SizedResource};
use crate::rules::Template;
use crate::template::LimitPolicy;

use super::container::SizedContainer;
use super::{Amounts, Budget, ResourceBounds};

/// Steps between no part and all of the difference of limits and requests.
const STEPS: i128 = 1 << 50;

/// Containers with their requests, which get limits.
pub(super) struct LimitPlan<'s, 'p> {
    resource: SizedResource,
    policy: LimitPolicy,
    bounds: ResourceBounds,
    containers: &'s [SizedContainer<'p>],
    /// The new request of each container; `None` for one that keeps its own.
    requests: &'s [Option<i64>],
    /// The original amounts of the pod as a whole, if it has some.
    pod: Option<RequestAndLimit>,
}

impl<'s, 'p> LimitPlan<'s, 'p> {
    /// `pod` has the original amounts of the pod as a whole.
    pub(super) fn new(
        template: &Template,
        budget: &Budget,
        containers: &'s [SizedContainer<'p>],
        requests: &'s [Option<i64>],
        pod: RequestAndLimit,
    ) -> Self {
        let resource = budget.resource;
        // Ephemeral-storage isn't allowed there (IsSupportedPodLevelResource of k8s.io/component-helpers/resource).
        let has_pod_level = pod != RequestAndLimit::default() && resource != SizedResource::Storage;
        Self {
            resource,
            policy: *template.limits.get(resource),
            bounds: budget.bounds,
            containers,
            requests,
            pod: has_pod_level.then_some(pod),
        }
    }

    /// The amounts that the namespace admits; `None` if there are none.
    pub(super) fn amounts(&self, warnings: &mut Vec<String>) -> Option<Amounts> {
        // Limits of some containers only can be less than the minimum of the pod.
        [false, true].into_iter().find_map(|everywhere| {
            let amounts = self.with_limits(everywhere);
            self.admits(&amounts).then(|| {
                self.warn_of_other_limits(&amounts, warnings);
                amounts
            })
        })
    }

    /// `everywhere` sets a limit of each container, whatever the policy is.
    fn with_limits(&self, everywhere: bool) -> Amounts {
        let request = self.total(self.requests.iter().copied(), |own| own.request).unwrap_or(0);
        let most = self.bounds.pod.largest_limit(request);
        let mut limits: Vec<Option<i64>> = self
            .containers
            .iter()
            .zip(self.requests)
            .map(|(container, request)| self.limit(container, (*request)?, most, everywhere))
            .collect();
        let mut pod = self.pod.map(|original| self.pod_level(original, request, &limits, most));
        if let (Some(most), None) = (most, pod.and_then(|pod| pod.limit)) {
            self.reduce(&mut limits, most);
        }
        let largest = limits.iter().copied().max().flatten();
        if let Some(limit) = pod.as_mut().and_then(|pod| pod.limit.as_mut()) {
            *limit = (*limit).max(largest.unwrap_or(0));
        }
        let sized = self.requests.iter().zip(limits);
        let containers = sized
            .map(|(request, limit)| request.map(|request| RequestAndLimit { request: Some(request), limit }));
        Amounts { containers: containers.collect(), pod }
    }

    /// The limit of a container, never below `request`. `most` is the largest limit of the pod in total.
    fn limit(
        &self,
        container: &SizedContainer<'_>,
        request: i64,
        most: Option<i64>,
        everywhere: bool,
    ) -> Option<i64> {
        let bounds = self.bounds.container;
        let original = *container.original.get(self.resource);
        let largest = bounds.largest_limit(request).into_iter().chain(most).min();
        let limit = self.policy_limit(request, original).or_else(|| match self.policy {
            // A missing limit is the largest one.
            LimitPolicy::None if largest.is_some() && (self.pod.is_none() || bounds.requires_limit()) => {
                largest
            }
            _ if self.bounds.quota_requires_limit => original.limit.or(Some(request)),
            _ if everywhere || bounds.requires_limit() => bounds.default.or(Some(request)),
            // LimitRanger fills in its default, which may be below the request.
            _ => bounds.default,
        })?;
        Some(largest.map_or(limit, |largest| limit.min(largest)).max(request))
    }

    fn policy_limit(&self, request: i64, original: RequestAndLimit) -> Option<i64> {
        match self.policy {
            // To the kubelet a limit of zero is no limit.
            LimitPolicy::Equal => Some(request).filter(|request| *request > 0),
            LimitPolicy::None => None,
            LimitPolicy::Keep => original.limit,
            LimitPolicy::Ratio => {
                original.limit.map(|limit| in_ratio(request, limit, original.request.unwrap_or(limit)))
            }
        }
    }

    /// The amounts of the pod as a whole. Its limit follows the policy, and is at least that of each container
    /// (`validatePodResourceConsistency` of k8s.io/kubernetes/pkg/apis/core/validation).
    fn pod_level(
        &self,
        original: RequestAndLimit,
        request: i64,
        limits: &[Option<i64>],
        most: Option<i64>,
    ) -> RequestAndLimit {
        let largest = limits.iter().copied().max().flatten().unwrap_or(0);
        let has_limits = limits.iter().any(Option::is_some);
        let limit = match self.policy {
            LimitPolicy::Equal => original.limit.map(|_| request),
            LimitPolicy::None if original.limit.is_some() && most.is_some() => most,
            LimitPolicy::None if self.bounds.quota_requires_limit => original.limit,
            _ => self.policy_limit(request, original),
        };
        let limit = limit.or(most.filter(|_| !has_limits));
        let limit = limit.map(|limit| most.map_or(limit, |most| limit.min(most)).max(request).max(largest));
        RequestAndLimit { request: Some(request), limit }
    }

    /// Reduces limits evenly until the pod's total is at most `most`, but none below its request.
    fn reduce(&self, limits: &mut [Option<i64>], most: i64) {
        let reduced = |steps: i128| -> Vec<Option<i64>> {
            let pairs = limits.iter().zip(self.requests);
            let each = pairs.map(|(limit, request)| {
                let limit = (*limit)?;
                let request = (*request)?;
                let part = i128::from(limit - request) * steps / STEPS;
                Some(request.saturating_add(i64::try_from(part).unwrap_or(i64::MAX)))
            });
            each.collect()
        };
        let fits = |steps: i128| {
            let total = self.total(reduced(steps).into_iter(), |own| own.limit);
            total.is_none_or(|total| total <= most)
        };
        if fits(STEPS) {
            return;
        }
        let mut low = 0;
        let mut high = STEPS;
        while high - low > 1 {
            let middle = i128::midpoint(low, high);
            if fits(middle) { low = middle } else { high = middle }
        }
        let result = reduced(low);
        limits.copy_from_slice(&result);
    }

    /// The pod's total (`AggregateContainerRequests`) of `amounts`, and of the containers that keep their own.
    fn total(
        &self,
        amounts: impl Iterator<Item = Option<i64>>,
        own: impl Fn(RequestAndLimit) -> Option<i64>,
    ) -> Option<i64> {
        let each =
            self.containers.iter().zip(amounts).zip(self.requests).map(|((container, amount), request)| {
                let own = || own(*container.original.get(self.resource));
                (container.role, if request.is_some() { amount } else { own() })
            });
        total(each)
    }

    fn admits(&self, amounts: &Amounts) -> bool {
        let all = self.containers.iter().zip(&amounts.containers);
        let all = all.map(|(container, sized)| {
            (container.role, sized.unwrap_or(*container.original.get(self.resource)))
        });
        let all: Vec<_> = all.collect();
        let pod = amounts.pod.unwrap_or_default();
        let in_total = RequestAndLimit {
            request: pod.request.or_else(|| total(all.iter().map(|(role, one)| (*role, one.request)))),
            limit: pod.limit.or_else(|| total(all.iter().map(|(role, one)| (*role, one.limit)))),
        };
        all.iter().all(|(_, one)| self.bounds.container.admits(*one)) && self.bounds.pod.admits(in_total)
    }

    fn warn_of_other_limits(&self, amounts: &Amounts, warnings: &mut Vec<String>) {
        let name = self.resource.name();
        for (container, sized) in self.containers.iter().zip(&amounts.containers) {
            let Some(RequestAndLimit { request: Some(request), limit }) = *sized else { continue };
            let wanted = self.policy_limit(request, *container.original.get(self.resource));
            let wanted = wanted.map(|wanted| wanted.max(request));
            if wanted != limit {
                warnings.push(format!(
                    "container {}: limit of {name} {} instead of {}: a LimitRange or ResourceQuota of the namespace demands it",
                    &*container.container.name,
                    self.format(limit),
                    self.format(wanted)
                ));
            }
        }
    }

    fn format(&self, amount: Option<i64>) -> String {
        amount.map_or_else(|| "none".to_owned(), |amount| self.resource.format(amount))
    }
}

/// The total of a pod; `None` if no container has an amount.
fn total(amounts: impl Iterator<Item = (ContainerRole, Option<i64>)>) -> Option<i64> {
    let add = |a: Option<i64>, b: Option<i64>| match (a, b) {
        (Some(a), Some(b)) => Ok::<_, Infallible>(Some(a.saturating_add(b))),
        (a, b) => Ok(a.or(b)),
    };
    let Ok(total) = aggregate(amounts.map(Ok), add);
    total
}

/// `request` × `limit` / `original_request`, rounded up; `limit` if the original request was zero.
fn in_ratio(request: i64, limit: i64, original_request: i64) -> i64 {
    if original_request <= 0 {
        return limit;
    }
    let product = i128::from(request) * i128::from(limit);
    let divisor = i128::from(original_request);
    i64::try_from(product / divisor + i128::from(product % divisor != 0)).unwrap_or(i64::MAX)
}

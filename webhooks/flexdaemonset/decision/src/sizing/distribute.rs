//! From the pod's budget of one resource to the requests of its containers.

use podshaper_core::pod::ContainerRole;

use crate::limit_range::Bounds;
use crate::rules::Template;
use crate::template::{ContainerShare, Distribution, Floor};

use super::apportion::{apportion, clamp_keeping_sum};
use super::container::SizedContainer;
use super::{Budget, ResourceBounds};

/// The request of each container; `None` for one that keeps its own. `None` instead of all if nothing is left for them.
pub(super) fn distribute(
    template: &Template,
    budget: &Budget,
    containers: &[SizedContainer<'_>],
    warnings: &mut Vec<String>,
) -> Option<Vec<Option<i64>>> {
    match template.distribution {
        Distribution::Replicate => Some(replicate(budget, containers, warnings)),
        Distribution::Split => split(&template.containers, budget, containers, warnings),
    }
}

fn replicate(
    budget: &Budget,
    containers: &[SizedContainer<'_>],
    warnings: &mut Vec<String>,
) -> Vec<Option<i64>> {
    let together = containers.iter().filter(|container| container.role != ContainerRole::Init).count();
    let together = i64::try_from(together).unwrap_or(i64::MAX).max(1);
    let ResourceBounds { container, pod, .. } = budget.bounds;
    let bounds_each = Bounds {
        min: pod.min.map(|min| min / together + i64::from(min % together != 0)),
        max: pod.max.map(|max| max / together),
        ..Bounds::default()
    };
    let request = container.clamp(bounds_each.clamp(budget.amount));
    if request != budget.amount {
        warnings.push(budget.bounded(budget.amount, request));
    }
    containers.iter().map(|container| Some(budget.bounds_of(container).clamp(request))).collect()
}

/// The part of a container in a split.
enum Share {
    /// Its original request.
    Excluded,
    /// Percent of what excluded containers leave.
    Percent(u64),
    /// A part of what percentages leave, by this weight if it has one.
    Rest(Option<u32>),
}

impl Share {
    fn of(container: &SizedContainer<'_>, shares: &[ContainerShare]) -> Self {
        match shares.iter().find(|share| *share.name == *container.container.name) {
            Some(share) if share.excluded => Self::Excluded,
            Some(ContainerShare { percent: Some(percent), .. }) => Self::Percent((*percent).into()),
            share => Self::Rest(share.and_then(|share| share.weight)),
        }
    }
}

fn split(
    shares: &[ContainerShare],
    budget: &Budget,
    containers: &[SizedContainer<'_>],
    warnings: &mut Vec<String>,
) -> Option<Vec<Option<i64>>> {
    let original = |container: &SizedContainer<'_>| budget.original(container);
    let wanted = budget.amount.saturating_sub(budget.overhead);
    // LimitRanger doesn't count the overhead.
    let amount = if wanted > 0 { budget.bounds.pod.clamp(wanted) } else { wanted };
    if amount != wanted {
        warnings.push(budget.bounded(budget.amount, amount.saturating_add(budget.overhead)));
    }
    let mut requests = vec![None; containers.len()];

    // Containers that run together share the amount.
    let mut taken = 0_i64;
    let mut percents = Vec::new();
    let mut rest = Vec::new();
    for (container, request) in containers.iter().zip(&mut requests) {
        match Share::of(container, shares) {
            _ if container.role == ContainerRole::Init => {}
            Share::Excluded => taken = taken.saturating_add(original(container)),
            Share::Percent(percent) => percents.push(((request, budget.bounds_of(container)), percent)),
            Share::Rest(weight) => {
                let own = original(container).unsigned_abs();
                rest.push(((request, budget.bounds_of(container)), (weight, own)));
            }
        }
    }
    let left = amount.saturating_sub(taken);
    if left <= 0 && !(percents.is_empty() && rest.is_empty()) {
        warnings.push(budget.exhausted(taken, amount));
        return None;
    }
    let (percent_requests, percents): (Vec<_>, Vec<_>) = percents.into_iter().unzip();
    let (rest_requests, rest): (Vec<_>, Vec<_>) = rest.into_iter().unzip();
    let amounts = apportion_shares(left, percents, &rest);
    let (open, bounds): (Vec<_>, Vec<_>) = percent_requests.into_iter().chain(rest_requests).unzip();
    let clamped = clamp_keeping_sum(&amounts, &bounds);
    if clamped != amounts {
        warnings.push(budget.redistributed(&amounts, &clamped));
    }
    for (request, amount) in open.into_iter().zip(clamped) {
        *request = Some(amount);
    }

    // An init container runs with the sidecars before it alone, so it may use what they leave.
    let mut sidecars = 0_i64;
    for (container, request) in containers.iter().zip(&mut requests) {
        let is_excluded = matches!(Share::of(container, shares), Share::Excluded);
        if container.role == ContainerRole::Sidecar {
            sidecars = sidecars.saturating_add(request.unwrap_or_else(|| original(container)));
        } else if container.role == ContainerRole::Init && !is_excluded {
            let left = amount.saturating_sub(sidecars).max(0);
            *request = Some(budget.bounds_of(container).clamp(left));
        }
    }
    Some(requests)
}

/// Amounts that sum to `left`: one for each of `percents`, then one for each weight and original request of `rest`.
fn apportion_shares(left: i64, percents: Vec<u64>, rest: &[(Option<u32>, u64)]) -> Vec<i64> {
    let mut weights = percents;
    let unassigned = 100_u64.saturating_sub(weights.iter().sum());
    // Without a rest, percentages that sum to less than 100 share it all.
    weights.push(if rest.is_empty() { 0 } else { unassigned });
    let mut amounts = apportion(left, &weights);
    let for_rest = amounts.pop().unwrap_or(0);
    // Weights if any is set, else the original requests if all containers have one, else equal weights.
    let rest_weights: Vec<u64> = if rest.iter().any(|(weight, _)| weight.is_some()) {
        rest.iter().map(|(weight, _)| weight.unwrap_or(1).into()).collect()
    } else if rest.iter().all(|(_, request)| *request > 0) {
        rest.iter().map(|(_, request)| *request).collect()
    } else {
        vec![1; rest.len()]
    };
    amounts.extend(apportion(for_rest, &rest_weights));
    amounts
}

impl Budget {
    fn original(&self, container: &SizedContainer<'_>) -> i64 {
        container.original.get(self.resource).request.unwrap_or(0)
    }

    /// The bounds of the container's request.
    fn bounds_of(&self, container: &SizedContainer<'_>) -> Bounds {
        let mut bounds = self.bounds.container;
        if self.floor == Floor::OwnRequest {
            bounds.min = bounds.min.max(Some(self.original(container)));
        }
        bounds
    }

    fn bounded(&self, wanted: i64, got: i64) -> String {
        let (name, wanted, got) =
            (self.resource.name(), self.resource.format(wanted), self.resource.format(got));
        format!("{name} {wanted} becomes {got}: the namespace's LimitRange allows no other")
    }

    fn exhausted(&self, taken: i64, amount: i64) -> String {
        let with_overhead = |amount: i64| self.resource.format(amount.saturating_add(self.overhead));
        let name = self.resource.name();
        let taken = with_overhead(taken);
        let amount = with_overhead(amount);
        format!(
            "overhead and excluded containers take {taken} of the {amount} {name} that the pod may have: all keep their own"
        )
    }

    fn redistributed(&self, wanted: &[i64], got: &[i64]) -> String {
        let sum = |amounts: &[i64]| amounts.iter().fold(0_i64, |sum, amount| sum.saturating_add(*amount));
        let wanted = sum(wanted);
        let got = sum(got);
        let name = self.resource.name();
        if wanted == got && self.floor == Floor::OwnRequest {
            return format!("{name} is shared out as floors and the namespace's LimitRange demand");
        }
        if wanted == got {
            return format!(
                "{name} is shared out as the namespace's LimitRange allows, not as the template says"
            );
        }
        if self.floor == Floor::OwnRequest {
            let wanted = self.resource.format(wanted);
            let got = self.resource.format(got);
            return format!("{name} {wanted} becomes {got}: floors and the namespace's LimitRange demand it");
        }
        self.bounded(wanted, got)
    }
}

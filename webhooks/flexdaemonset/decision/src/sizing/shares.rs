//! From the pod's budget of one resource to the requests of its containers.

use podshaper_core::pod::ContainerRole;

use crate::range::Bounds;
use crate::resource::{Each, Resource};
use crate::rules::Template;
use crate::template::{ContainerShare, Distribution};

use super::apportion::{apportion, settle};
use super::member::Member;

/// What is to be shared out, and within which bounds.
pub(super) struct Lot {
    pub(super) resource: Resource,
    /// Millicores or bytes.
    pub(super) budget: i64,
    /// What the pod takes beside its containers (`spec.overhead`).
    pub(super) overhead: i64,
    /// The namespace's bounds of a container, and of a pod.
    pub(super) container: Bounds,
    pub(super) pod: Bounds,
}

/// The requests of `members`, none for those that keep their own; and what the author should know.
pub(super) fn requests(
    template: &Template,
    lot: &Lot,
    members: &[Member<'_>],
) -> (Vec<Option<i64>>, Vec<String>) {
    let mut warnings = Vec::new();
    let requests = match template.distribution {
        Distribution::Replicate => replicate(lot, members, &mut warnings),
        Distribution::Split => split(&template.containers, lot, members, &mut warnings),
    };
    (requests, warnings)
}

fn replicate(lot: &Lot, members: &[Member<'_>], warnings: &mut Vec<String>) -> Vec<Option<i64>> {
    let together = members.iter().filter(|member| member.role != ContainerRole::Init).count();
    let together = i64::try_from(together).unwrap_or(i64::MAX).max(1);
    let for_each = Bounds {
        min: lot.pod.min.map(|min| min / together + i64::from(min % together != 0)),
        max: lot.pod.max.map(|max| max / together),
        default: None,
    };
    let value = lot.container.clamp(for_each.clamp(lot.budget));
    if value != lot.budget {
        warnings.push(lot.bounded(lot.budget, value));
    }
    vec![Some(value); members.len()]
}

/// A member's part in the splitting.
enum Part {
    Excluded,
    Percent(u8),
    Rest,
}

fn split(
    shares: &[ContainerShare],
    lot: &Lot,
    members: &[Member<'_>],
    warnings: &mut Vec<String>,
) -> Vec<Option<i64>> {
    let share_of = |member: &Member<'_>| shares.iter().find(|share| share.name == member.name);
    let part = |member: &Member<'_>| match share_of(member) {
        Some(share) if share.excluded => Part::Excluded,
        Some(ContainerShare { percent: Some(percent), .. }) => Part::Percent(*percent),
        _ => Part::Rest,
    };
    let own = |member: &Member<'_>| member.own.get(lot.resource).request.unwrap_or(0);
    let budget = lot.pod.clamp(lot.budget);
    if budget != lot.budget {
        warnings.push(lot.bounded(lot.budget, budget));
    }

    let together: Vec<_> =
        members.iter().enumerate().filter(|(_, member)| member.role != ContainerRole::Init).collect();
    let excluded = together.iter().filter(|(_, member)| matches!(part(member), Part::Excluded));
    let taken = excluded.fold(lot.overhead, |sum, (_, member)| sum.saturating_add(own(member)));
    let left = budget.saturating_sub(taken);
    let takers = together.iter().any(|(_, member)| !matches!(part(member), Part::Excluded));
    if left <= 0 && takers {
        let (name, taken, budget) =
            (lot.resource.name(), lot.resource.write(taken), lot.resource.write(budget));
        warnings.push(format!(
            "overhead and excluded containers take {taken} of the {budget} {name} that the pod may have: all keep their own"
        ));
        return vec![None; members.len()];
    }

    // Percentages first; what they leave goes to the others. Where there are no others, nothing is left.
    let (mut percents, mut rest) = (Vec::new(), Vec::new());
    for (index, member) in &together {
        match part(member) {
            Part::Excluded => {}
            Part::Percent(percent) => percents.push((*index, u64::from(percent))),
            Part::Rest => rest.push((*index, *member)),
        }
    }
    let mut weights: Vec<u64> = percents.iter().map(|(_, percent)| *percent).collect();
    let unsaid = 100_u64.saturating_sub(weights.iter().sum());
    weights.push(if rest.is_empty() { 0 } else { unsaid });
    let mut amounts = apportion(left, &weights);
    let for_the_rest = amounts.pop().unwrap_or(0);

    let mut requests = vec![None; members.len()];
    let rest_weights = rest_weights(&rest, share_of, own);
    amounts.extend(apportion(for_the_rest, &rest_weights));
    let settled = settle(&amounts, lot.container);
    if settled != amounts {
        warnings.push(lot.settled(&amounts, &settled));
    }
    let places = percents.iter().map(|(index, _)| *index).chain(rest.iter().map(|(index, _)| *index));
    for (index, amount) in places.zip(settled) {
        if let Some(request) = requests.get_mut(index) {
            *request = Some(amount);
        }
    }

    // An init container may use what the sidecars before it leave: the pod takes no more for it.
    let mut sidecars = lot.overhead;
    for (member, request) in members.iter().zip(&mut requests) {
        match member.role {
            ContainerRole::App => {}
            ContainerRole::Sidecar => {
                sidecars = sidecars.saturating_add(request.unwrap_or_else(|| own(member)));
            }
            ContainerRole::Init if matches!(part(member), Part::Excluded) => {}
            ContainerRole::Init => {
                *request = Some(lot.container.clamp(budget.saturating_sub(sidecars).max(0)));
            }
        }
    }
    requests
}

/// Weights where any was given; else what the template's containers request, if all do; else equal ones.
fn rest_weights<'s>(
    rest: &[(usize, &Member<'_>)],
    share_of: impl Fn(&Member<'_>) -> Option<&'s ContainerShare>,
    own: impl Fn(&Member<'_>) -> i64,
) -> Vec<u64> {
    let weight = |member: &Member<'_>| share_of(member).and_then(|share| share.weight).map(u64::from);
    if rest.iter().any(|(_, member)| weight(member).is_some()) {
        return rest.iter().map(|(_, member)| weight(member).unwrap_or(1)).collect();
    }
    let requested: Vec<u64> = rest.iter().map(|(_, member)| own(member).unsigned_abs()).collect();
    if requested.contains(&0) { vec![1; rest.len()] } else { requested }
}

impl Lot {
    fn bounded(&self, wanted: i64, got: i64) -> String {
        let (name, wanted, got) =
            (self.resource.name(), self.resource.write(wanted), self.resource.write(got));
        format!("{name} {wanted} becomes {got}: the namespace's LimitRange allows no other")
    }

    fn settled(&self, wanted: &[i64], got: &[i64]) -> String {
        let sum = |amounts: &[i64]| amounts.iter().fold(0_i64, |sum, amount| sum.saturating_add(*amount));
        if sum(wanted) == sum(got) {
            let name = self.resource.name();
            return format!(
                "{name} is shared out as the namespace's LimitRange allows, not as the template says"
            );
        }
        self.bounded(sum(wanted), sum(got))
    }
}

/// What the pod takes beside its containers.
pub(super) fn overhead(list: Option<&podshaper_core::pod::ResourceList<'_>>) -> Each<i64> {
    Each::of(|resource| {
        let text = list.and_then(|list| list.get(resource.name()));
        text.and_then(|text| resource.read(text).ok()).map_or(0, |amount| amount.max(0))
    })
}

//! The resources that containers end up with.

use podshaper_core::json::{Entries, Scalar, Text};
use podshaper_core::pod::{ResourceField, ResourceList, Resources};
use podshaper_core::quantity::Quantity;

use crate::demand::Member;

/// The word in `keepResources` that stands for `resources.claims`.
pub(crate) const CLAIMS: &str = "claims";

/// What stays on containers, or comes to them. Both are empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Resources that their containers keep.
    pub keep: Vec<String>,
    /// Resources that every container gets, for a quota or LimitRange that insists on some.
    pub placeholders: Vec<Placeholder>,
}

/// A resource that every container gets that doesn't keep its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placeholder {
    /// The resource's name.
    pub resource: String,
    /// The request; as much as the limit where there is none, as the API server would fill it in.
    pub request: String,
    /// The limit.
    pub limit: Option<String>,
}

impl Standing {
    /// Whether `resource` stays where it is.
    pub(crate) fn keeps(&self, resource: &str) -> bool {
        self.keep.iter().any(|kept| kept == resource)
    }

    /// What `member` ends up with; with `vm`, one of that too.
    pub(crate) fn resources<'r>(&'r self, member: &'r Member<'_>, vm: Option<&'r str>) -> Resources<'r> {
        let mut requests = List::default();
        let mut limits = List::default();
        for resource in &self.keep {
            let asked = |side: ResourceField| side.of(&member.asked).and_then(|list| list.get(resource));
            let limit = asked(ResourceField::Limits);
            limits.push(resource, limit);
            requests.push(resource, asked(ResourceField::Requests).or(limit));
        }
        for placeholder in &self.placeholders {
            if requests.lacks(&placeholder.resource) {
                requests.add(&placeholder.resource, &placeholder.request);
                if let Some(limit) = &placeholder.limit {
                    limits.add(&placeholder.resource, limit);
                }
            }
        }
        if let Some(vm) = vm {
            requests.add(vm, "1");
            limits.add(vm, "1");
        }
        let claims = if self.keeps(CLAIMS) { member.asked.claims.clone() } else { None };
        Resources { requests: requests.done(), limits: limits.done(), claims }
    }
}

/// Whether `now` is what `wanted` says. The API server respells quantities between passes.
pub(crate) fn stands(wanted: &Resources<'_>, now: &Resources<'_>) -> bool {
    let same = |side: ResourceField| {
        let (Some(wanted), Some(now)) = (side.of(wanted), side.of(now)) else {
            return [side.of(wanted), side.of(now)].into_iter().flatten().all(Entries::is_empty);
        };
        now.iter().all(|(resource, _)| wanted.get(resource).is_some())
            && wanted
                .iter()
                .all(|(resource, quantity)| now.get(resource).is_some_and(|now| equal(now, quantity)))
    };
    let [claimed, claims] = [now, wanted].map(|resources| resources.claims.as_deref().unwrap_or_default());
    same(ResourceField::Requests) && same(ResourceField::Limits) && claimed == claims
}

fn equal(a: &str, b: &str) -> bool {
    a == b || matches!((a.parse::<Quantity>(), b.parse::<Quantity>()), (Ok(a), Ok(b)) if a == b)
}

#[derive(Default)]
struct List<'r>(Vec<(Text<'r>, Scalar<'r>)>);

impl<'r> List<'r> {
    fn add(&mut self, resource: &'r str, quantity: &'r str) {
        self.0.push((resource.into(), Scalar(quantity.into())));
    }

    fn push(&mut self, resource: &'r str, quantity: Option<&'r Scalar<'_>>) {
        if let Some(quantity) = quantity {
            self.add(resource, quantity);
        }
    }

    fn lacks(&self, resource: &str) -> bool {
        self.0.iter().all(|(name, _)| &**name != resource)
    }

    fn done(self) -> Option<ResourceList<'r>> {
        if self.0.is_empty() { None } else { Some(Entries(self.0)) }
    }
}

//! The annotations with a strategy, and their objects.

use podshaper_core::object::OwnerReference;
use podshaper_placement::owner_object::OwnerObject;
use podshaper_placement::owners::{ChainEnd, OwnerChain};

/// The annotation with the strategy.
pub const STRATEGY: &str = "custom-pod-schedule-strategy";
/// The annotation of the first generation, which counts where [`ENABLED`] is `true`.
pub const OLDER: &str = "CustomPodScheduleStrategy";
/// The switch of the first generation.
pub const ENABLED: &str = "UseCustomKubeScheduler";

/// The text of a strategy, and its annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StrategyAnnotation<'a> {
    /// The annotation.
    pub annotation: &'static str,
    /// The strategy.
    pub text: &'a str,
}

/// The object with the annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrategySource<'a> {
    /// That of the pod, which it has from its template.
    Template,
    /// That of an owner.
    Owner(&'a OwnerReference),
}

/// The strategy in these annotations. The newer of the two forms counts. An empty strategy is none, as with the original.
pub fn strategy_of<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<StrategyAnnotation<'a>> {
    match annotation(STRATEGY) {
        Some(text) if !text.is_empty() => Some(StrategyAnnotation { annotation: STRATEGY, text }),
        // Enabled without a strategy is invalid.
        _ if annotation(ENABLED) == Some("true") => {
            Some(StrategyAnnotation { annotation: OLDER, text: annotation(OLDER).unwrap_or_default() })
        }
        _ => None,
    }
}

/// The strategy of the nearest owner that has one and was read.
///
/// The `ReplicaSet` of a Deployment or of Argo's Rollout has copies of its owner's annotations, which stay when the owner's go
/// (`SetNewReplicaSetAnnotations` of k8s.io/kubernetes/pkg/controller/deployment/util): they count only where the owner may not
/// be read.
pub fn of_owners(chain: &OwnerChain) -> Option<(StrategySource<'_>, StrategyAnnotation<'_>)> {
    let copies = |(reference, owner): &(&OwnerReference, &_)| {
        let owner: &OwnerObject = owner;
        reference.kind == "ReplicaSet" && owner.controller.is_some()
    };
    let last = chain.read().last();
    chain.read().find_map(|(reference, owner)| {
        let is_last = last.is_some_and(|(last, _)| last == reference);
        if copies(&(reference, owner)) && !(is_last && chain.end() == Some(ChainEnd::Forbidden)) {
            return None;
        }
        let strategy = strategy_of(|key| owner.annotations.get(key).map(String::as_str))?;
        Some((StrategySource::Owner(reference), strategy))
    })
}

/// The strategy of the pods of a chain: that of their template, or else of their owners. None if the owner of the template was not
/// read.
pub fn governing(chain: &OwnerChain) -> Option<(StrategySource<'_>, StrategyAnnotation<'_>)> {
    let (_, owner) = chain.sequence_owner()?;
    let owner = owner?;
    let strategy = strategy_of(|key| owner.template.get(key).map(String::as_str));
    strategy.map(|strategy| (StrategySource::Template, strategy)).or_else(|| of_owners(chain))
}

/// Whether enough of the chain was read for the owner of its sequence, if the strategy is that of the template.
pub fn knows_sequence(chain: &OwnerChain) -> bool {
    chain.has_own_sequence() || (chain.controller().is_some() && chain.next_to_read().is_none())
}

/// Sets the owner of the chain that shares the strategy among its pods: the owner with the annotation, or for one of the template the farthest owner.
pub fn set_target(chain: &mut OwnerChain, source: StrategySource<'_>) {
    let target = match source {
        StrategySource::Template => chain.owners().len().checked_sub(1),
        StrategySource::Owner(source) => chain.owners().iter().position(|owner| owner == source),
    };
    if let Some(target) = target {
        chain.set_target(target);
    }
}

#[cfg(test)]
mod tests {
    use podshaper_core::object::Lookup;
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn both_generations() {
        for (annotations, place, text) in [
            (&[(STRATEGY, "a")][..], Some(STRATEGY), "a"),
            (&[(ENABLED, "true"), (OLDER, "b")], Some(OLDER), "b"),
            (&[(STRATEGY, "a"), (ENABLED, "true"), (OLDER, "b")], Some(STRATEGY), "a"),
            (&[(STRATEGY, ""), (ENABLED, "true"), (OLDER, "b")], Some(OLDER), "b"),
            (&[(ENABLED, "true")], Some(OLDER), ""),
            (&[(ENABLED, "false"), (OLDER, "b")], None, ""),
            (&[(OLDER, "b")], None, ""),
            (&[(STRATEGY, "")], None, ""),
            (&[], None, ""),
        ] {
            let map: BTreeMap<_, _> = annotations.iter().copied().collect();
            let strategy = strategy_of(|key| map.get(key).copied());
            assert_eq!(
                strategy,
                place.map(|annotation| StrategyAnnotation { annotation, text }),
                "{annotations:?}"
            );
        }
    }

    /// An owner with a strategy, and one of its pod template.
    fn owner(kind: &str, strategy: &str, template: &str, controller: Option<&str>) -> Lookup<OwnerObject> {
        let of = |text: &str| BTreeMap::from([(STRATEGY.to_owned(), text.to_owned())]);
        Lookup::Found(
            OwnerObject {
                uid: kind.to_owned(),
                controller: controller.map(reference),
                annotations: of(strategy),
                template: of(template),
                ..OwnerObject::default()
            }
            .into(),
        )
    }

    fn reference(kind: &str) -> OwnerReference {
        let group = if kind.ends_with("Job") { "batch/v1" } else { "apps/v1" };
        OwnerReference::new(group, kind, "web", kind)
    }

    fn chain(first: &str, found: Vec<Lookup<OwnerObject>>) -> OwnerChain {
        let mut chain = OwnerChain::from(Some(reference(first)));
        for looked in found {
            chain.record_read(looked);
        }
        chain
    }

    fn place(found: Option<(StrategySource<'_>, StrategyAnnotation<'_>)>) -> Option<String> {
        found.map(|(source, strategy)| match source {
            StrategySource::Template => format!("template: {}", strategy.text),
            StrategySource::Owner(owner) => format!("{}: {}", owner.kind, strategy.text),
        })
    }

    #[test]
    fn annotations_copied_to_a_replica_set_do_not_count() {
        let set = || owner("ReplicaSet", "copy", "", Some("Deployment"));
        for (found, by) in [
            (vec![set()], None),
            (vec![set(), owner("Deployment", "own", "", None)], Some("Deployment: own")),
            (vec![set(), owner("Deployment", "", "", None)], None),
            (vec![set(), Lookup::Forbidden], Some("ReplicaSet: copy")),
            (vec![set(), Lookup::Unavailable], None),
            (vec![set(), Lookup::NotFound], None),
            (vec![owner("ReplicaSet", "own", "", None)], Some("ReplicaSet: own")),
            (vec![owner("ReplicaSet", "copy", "pods", Some("Deployment"))], None),
        ] {
            assert_eq!(place(of_owners(&chain("ReplicaSet", found))).as_deref(), by);
        }
        let nearest = vec![owner("StatefulSet", "a", "", Some("Database")), owner("Database", "b", "", None)];
        assert_eq!(place(of_owners(&chain("StatefulSet", nearest))).unwrap(), "StatefulSet: a");
    }

    #[test]
    fn strategy_of_the_template_precedes_that_of_owners() {
        let set = |template| owner("ReplicaSet", "copy", template, Some("Deployment"));
        let deployment = || owner("Deployment", "own", "later", None);
        let by = |first, found| place(governing(&chain(first, found)));
        assert_eq!(by("ReplicaSet", vec![set("pods"), deployment()]).unwrap(), "template: pods");
        assert_eq!(by("ReplicaSet", vec![set(""), deployment()]).unwrap(), "Deployment: own");
        assert_eq!(by("ReplicaSet", vec![]), None);
        // The sequence is the CronJob's.
        let job = || owner("Job", "job", "old", Some("CronJob"));
        assert_eq!(by("Job", vec![job()]), None, "not read yet");
        assert_eq!(by("Job", vec![job(), owner("CronJob", "", "new", None)]).unwrap(), "template: new");
    }
}

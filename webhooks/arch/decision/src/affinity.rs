//! Which nodes a pod may run on, made less: never more, and never by a term beside its own.

use std::collections::BTreeSet;

use podshaper_core::pod::{NodeSelectorTerm, Pod, PodPatch};
use serde_json::Value;

use crate::table::{Group, Nodes, groups, terms};

/// When a pod is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// When it is created: a term may become several.
    Creation,
    /// While it is gated: terms may be tightened, but there will be as many as there are
    /// (`validateNodeAffinityMutation` of Kubernetes).
    Gated,
}

/// The nodes that a pod is kept on, of all that there are.
pub(crate) struct Choice<'n> {
    /// All nodes.
    pub(crate) all: &'n [Nodes],
    /// Those that run all its images.
    pub(crate) run: Vec<&'n Nodes>,
}

/// A choice, without the nodes that the pod's node selector keeps it from.
struct Selected<'n> {
    run: Vec<&'n Nodes>,
    /// All but these.
    excluded: Vec<&'n Nodes>,
}

impl<'n> Selected<'n> {
    fn by(pod: &Pod<'_>, choice: &Choice<'n>) -> Self {
        let run: BTreeSet<_> = choice.run.iter().map(|nodes| &nodes.architecture).collect();
        let (run, excluded) = choice
            .all
            .iter()
            .filter(|nodes| pod.may_select(nodes.known_labels()))
            .partition(|nodes| run.contains(&nodes.architecture));
        Self { run, excluded }
    }
}

/// Keeps the pod on these nodes.
///
/// Leaves a term unchanged if only allowed nodes match it, and the whole affinity if no node is excluded.
pub(crate) fn narrow(patch: &mut PodPatch<'_, '_>, choice: &Choice<'_>, stage: Stage) {
    let pod = patch.pod();
    let selected = Selected::by(pod, choice);
    if selected.excluded.is_empty() {
        return;
    }
    match pod.required_terms() {
        None => {
            patch.require_one_of(&terms(if selected.run.is_empty() {
                choice.run.clone()
            } else {
                selected.run
            }));
        }
        Some(own) => {
            let groups = groups(choice.all);
            let alternatives: Vec<_> =
                own.iter().map(|term| alternatives(term, choice, &selected, &groups, stage)).collect();
            patch.narrow_required_terms(&alternatives);
        }
    }
}

/// The terms that narrow a term: none, one, or several; each gets a copy of the term.
fn alternatives(
    term: &NodeSelectorTerm<'_>,
    choice: &Choice<'_>,
    selected: &Selected<'_>,
    groups: &[Group<'_>],
    stage: Stage,
) -> Vec<Value> {
    let meets = |nodes: &&&Nodes| term.may_match(nodes.known_labels());
    if term.is_empty() || !selected.excluded.iter().any(|nodes| meets(&nodes)) {
        return Vec::new();
    }
    let mut right: Vec<_> = selected.run.iter().filter(meets).copied().collect();
    if right.is_empty() {
        // No node matches the result, as no node should.
        right.clone_from(&choice.run);
    }
    let wanted = terms(right.iter().copied());
    if wanted.iter().any(|wanted| term.includes(wanted)) {
        // The term contains the requirement already. `may_match` excludes no nodes by labels of other keys.
        return Vec::new();
    }
    match stage {
        Stage::Creation => wanted,
        Stage::Gated => match shaped_for(term, groups) {
            // It was shaped for some of the nodes, of which none may be right.
            Some(group) => {
                let own = right.iter().copied().filter(|nodes| group.nodes.contains(nodes));
                vec![terms(own).into_iter().next().unwrap_or_else(|| group.never())]
            }
            None => wanted.into_iter().take(1).collect(),
        },
    }
}

/// Gives each term its final shape: a copy for each group of nodes that one term can select. One group, or no term, needs no copy.
pub(crate) fn shape(patch: &mut PodPatch<'_, '_>, all: &[Nodes]) {
    let groups = groups(all);
    let wanted: Vec<_> = groups.iter().map(Group::term).collect();
    let own = patch.pod().required_terms().unwrap_or_default();
    if groups.len() > 1 {
        let shaped = |term: &NodeSelectorTerm<'_>| shaped_for(term, &groups).is_some();
        let alternatives: Vec<_> =
            own.iter().map(|term| if shaped(term) { &[][..] } else { &wanted[..] }).collect();
        patch.narrow_required_terms(&alternatives);
    }
}

/// The group of nodes, of several, that the term names by all its words.
fn shaped_for<'g, 'n>(term: &NodeSelectorTerm<'_>, groups: &'g [Group<'n>]) -> Option<&'g Group<'n>> {
    groups.iter().filter(|_| groups.len() > 1).find(|group| term.includes(&group.term()))
}

//! Which nodes a pod may run on, made less: never more, and never by a term beside its own.

use podshaper::pod::{NodeSelectorTerm, Pod, PodPatch};
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

impl<'n> Choice<'n> {
    fn excludes(&self, nodes: &Nodes) -> bool {
        self.run.iter().all(|run| run.architecture != nodes.architecture)
    }

    fn excluded(&self) -> impl Iterator<Item = &'n Nodes> {
        self.all.iter().filter(|nodes| self.excludes(nodes))
    }
}

/// Keeps the pod on these nodes.
///
/// A term that only the right nodes meet is left alone, whatever its words; so is all that stands where nothing is excluded.
pub(crate) fn narrow(patch: &mut PodPatch<'_, '_>, choice: &Choice<'_>, stage: Stage) {
    let pod = patch.pod();
    let selects = |nodes: &&Nodes| pod.may_select(&nodes.labels);
    let selected: Vec<_> = choice.run.iter().copied().filter(selects).collect();
    match pod.required_terms() {
        None if choice.excluded().any(|nodes| selects(&nodes)) => {
            patch.require_nodes(&terms(if selected.is_empty() { choice.run.clone() } else { selected }));
        }
        None => {}
        Some(own) => {
            let alternatives: Vec<_> =
                own.iter().map(|term| alternatives(pod, term, choice, stage)).collect();
            patch.narrow_terms(&alternatives);
        }
    }
}

/// What a term is narrowed by: nothing, one term, or several of which each gets a copy.
fn alternatives(pod: &Pod<'_>, term: &NodeSelectorTerm<'_>, choice: &Choice<'_>, stage: Stage) -> Vec<Value> {
    let meets = |nodes: &Nodes| pod.may_select(&nodes.labels) && term.may_be_met(&nodes.labels);
    if term.is_empty() || !choice.excluded().any(meets) {
        return Vec::new();
    }
    let mut right: Vec<_> = choice.run.iter().copied().filter(|nodes| meets(nodes)).collect();
    if right.is_empty() {
        // Nobody will meet it, as nobody should.
        right.clone_from(&choice.run);
    }
    let wanted = terms(right.iter().copied());
    if wanted.iter().any(|wanted| term.includes(wanted)) {
        // Labels of different keys exclude no nodes by themselves: what says so in as many words is enough.
        return Vec::new();
    }
    match stage {
        Stage::Creation => wanted,
        Stage::Gated => match shaped_for(term, choice.all) {
            // It was shaped for some of the nodes, of which none may be right.
            Some(group) => {
                let own = right.iter().copied().filter(|nodes| group.nodes.contains(nodes));
                vec![terms(own).into_iter().next().unwrap_or_else(|| group.never())]
            }
            None => wanted.into_iter().take(1).collect(),
        },
    }
}

/// Gives each term the shape that it will need: a copy for each group of nodes that one term can tell. Where there is one
/// group, or no term, it needs none.
pub(crate) fn shape(patch: &mut PodPatch<'_, '_>, all: &[Nodes]) {
    let groups = terms(all);
    let own = patch.pod().required_terms().unwrap_or_default();
    if groups.len() > 1 {
        let shaped = |term: &NodeSelectorTerm<'_>| shaped_for(term, all).is_some();
        let alternatives: Vec<_> =
            own.iter().map(|term| if shaped(term) { &[][..] } else { &groups[..] }).collect();
        patch.narrow_terms(&alternatives);
    }
}

/// The group of nodes, of several, that the term names by all its words.
fn shaped_for<'n>(term: &NodeSelectorTerm<'_>, all: &'n [Nodes]) -> Option<Group<'n>> {
    let groups = groups(all);
    if groups.len() < 2 {
        return None;
    }
    groups.into_iter().find(|group| term.includes(&group.term()))
}

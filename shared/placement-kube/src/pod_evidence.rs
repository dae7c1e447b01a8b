//! The evidence of pods' groups, kept for each pod of a ledger: groups are found again when the policy or the nodes change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use podshaper_placement::identity::{GroupEvidence, NodeLabels};
use podshaper_placement::ledger::PodName;
use podshaper_placement::policy::{GroupName, Policy};

/// The evidence of one pod's group.
#[derive(Clone, Debug)]
pub struct PodEvidence {
    /// Shared with the other pods of the template and group.
    shared: Arc<GroupEvidence>,
    node: Option<Arc<str>>,
}

/// The evidence of each pod of one ledger.
#[derive(Default)]
pub(crate) struct EvidenceByPod {
    pods: BTreeMap<PodName, PodEvidence>,
    shared: Vec<Arc<GroupEvidence>>,
    nodes: BTreeSet<Arc<str>>,
}

impl PodEvidence {
    /// The name of the pod's group.
    pub fn group(&self, policy: &Policy, nodes: &dyn NodeLabels) -> Option<GroupName> {
        let group = self.shared.group(policy, self.node.as_deref(), nodes)?;
        Some(policy.groups().get(group)?.name.clone())
    }

    /// The name of the pod's node.
    pub fn node(&self) -> Option<&str> {
        self.node.as_deref()
    }
}

impl EvidenceByPod {
    pub(crate) fn insert(&mut self, pod: PodName, evidence: GroupEvidence, node: Option<&str>) {
        let shared = self.shared.iter().find(|shared| ***shared == evidence).cloned();
        let shared = shared.unwrap_or_else(|| {
            let shared = Arc::new(evidence);
            self.shared.push(Arc::clone(&shared));
            shared
        });
        let node = node.map(|node| {
            let known = self.nodes.get(node).cloned();
            known.unwrap_or_else(|| {
                let node: Arc<str> = node.into();
                self.nodes.insert(Arc::clone(&node));
                node
            })
        });
        self.pods.insert(pod, PodEvidence { shared, node });
    }

    pub(crate) fn remove(&mut self, pod: &str) {
        self.pods.remove(pod);
    }

    pub(crate) fn get(&self, pod: &str) -> Option<&PodEvidence> {
        self.pods.get(pod)
    }

    /// Drops the evidence of other pods.
    pub(crate) fn retain(&mut self, exists: impl Fn(&PodName) -> bool) {
        self.pods.retain(|pod, _| exists(pod));
        self.shared.retain(|shared| Arc::strong_count(shared) > 1);
        self.nodes.retain(|node| Arc::strong_count(node) > 1);
    }
}

//! Which groups take new pods.

use podshaper_placement::policy::GroupSet;

use crate::distributor::ValidSpec;
use crate::spec::{Availability, WhenUnavailable};
use crate::status::{GroupState, GroupStatus, PodDistributorStatus};

/// The groups that take new pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenGroups {
    /// Groups that take any pod.
    pub open: GroupSet,
    /// A closed group that one pod may try, and that no pod tries yet.
    pub probe: Option<usize>,
}

impl OpenGroups {
    /// The groups that take new pods, by the status that the leader has written. `with_nodes` returns the groups that have a node for
    /// their pods: only `availability: Nodes` asks for them.
    pub fn of(
        status: &PodDistributorStatus,
        spec: &ValidSpec,
        with_nodes: impl FnOnce() -> GroupSet,
    ) -> Self {
        let policy = spec.allocator.policy();
        let all = policy.all();
        if spec.options.when_unavailable == WhenUnavailable::Wait {
            return Self { open: all, probe: None };
        }
        let preferred = policy.indexes(|group| group.preferred);
        let reachable = match spec.options.availability {
            Availability::Pods => all,
            Availability::Nodes => with_nodes().union(preferred),
        };
        let indexes = || 0..policy.groups().len();
        let is_closed = |index: &usize| status.group(policy, *index).is_some_and(GroupStatus::is_closed);
        let closed: GroupSet = indexes().filter(is_closed).collect();
        let open = all.difference(closed.difference(preferred)).intersection(reachable);
        let probed = |index: &usize| {
            status.group(policy, *index).is_some_and(|group| {
                group.state == Some(GroupState::Probing) && group.probe.as_deref().is_none_or(str::is_empty)
            })
        };
        let probe =
            indexes().filter(|index| !open.contains(*index) && reachable.contains(*index)).find(probed);
        Self { open, probe }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::distributor::Distributor;

    fn open(spec: &Value, groups: &Value, with_nodes: &[usize]) -> (Vec<usize>, Option<usize>) {
        let status: PodDistributorStatus = serde_json::from_value(json!({"groups": groups})).unwrap();
        let mut text = json!({
            "distribution": [
                {"name": "a", "nodeLabel": {"type": "a"}, "weight": 1},
                {"name": "b", "nodeLabel": {"type": "b"}, "weight": 1},
                {"name": "p", "nodeLabel": {"type": "p"}, "weight": 1, "preferred": true},
            ],
            "target": {"name": "web"},
        });
        for (field, value) in spec.as_object().unwrap() {
            text[field] = value.clone();
        }
        let spec = Distributor::from_spec(&text).spec.unwrap();
        let groups = OpenGroups::of(&status, &spec, || with_nodes.iter().copied().collect());
        ((0..3).filter(|index| groups.open.contains(*index)).collect(), groups.probe)
    }

    #[test]
    fn state_in_status_decides() {
        let group =
            |name: &str, state: &str, probe: &str| json!({"name": name, "state": state, "probe": probe});
        let none = json!([]);
        let closed = json!([group("a", "Open", ""), group("b", "Closed", ""), group("p", "Closed", "")]);
        assert_eq!(open(&json!({}), &none, &[]), (vec![0, 1, 2], None));
        assert_eq!(open(&json!({}), &closed, &[]), (vec![0, 2], None));
        assert_eq!(open(&json!({"whenUnavailable": "Wait"}), &closed, &[]), (vec![0, 1, 2], None));
        let nodes = json!({"availability": "Nodes"});
        assert_eq!(open(&nodes, &none, &[0]), (vec![0, 2], None));
        assert_eq!(open(&nodes, &closed, &[0, 1]), (vec![0, 2], None));
        assert_eq!(open(&nodes, &closed, &[]), (vec![2], None));
        let probing = json!([group("b", "Probing", "")]);
        assert_eq!(open(&json!({}), &probing, &[]), (vec![0, 2], Some(1)));
        assert_eq!(open(&nodes, &probing, &[0]), (vec![0, 2], None), "there is no node to try");
        let claimed = json!([group("b", "Probing", "00000000000000ff")]);
        assert_eq!(open(&json!({}), &claimed, &[]), (vec![0, 2], None));
    }
}

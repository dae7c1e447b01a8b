//! The status of a distributor.

use k8s_openapi::jiff::Timestamp;
use podshaper_placement::policy::{GroupSet, Policy};
use serde_json::{Value, json};

use distributor_decision::distributor::Distributor;
use podshaper_placement::spread::Spread;

/// More revisions aren't told one by one.
const MAX_REVISIONS: usize = 10;

/// What is known of a distributor and its workload.
#[derive(Clone, Debug)]
pub(super) struct State {
    pub(super) standing: Standing,
    /// Pods that the workload wants.
    pub(super) replicas: Option<u32>,
    /// All pods.
    pub(super) whole: Spread,
    /// Kind and name of each owner of pods, and its pods.
    pub(super) revisions: Vec<(String, String, Spread)>,
    /// Groups that have a node.
    pub(super) available: GroupSet,
    /// Of the others those whose pods no node has taken for too long.
    pub(super) stuck: GroupSet,
    /// Why groups that have nodes again don't get their pods back, if so.
    pub(super) held: Option<String>,
}

/// Whether pods are placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Placing,
    /// What places the pods instead, up to `the same workload`: an older one, or another webhook.
    Superseded(String),
    TargetNotFound(String),
    TargetForbidden(String),
    TargetUnknown(String),
}

impl Standing {
    fn told(&self) -> (&'static str, &'static str, String) {
        match self {
            Self::Placing => ("True", "Placing", "pods are placed when they are created".to_owned()),
            Self::Superseded(other) => {
                ("False", "Superseded", format!("{other} the same workload: that counts"))
            }
            Self::TargetNotFound(target) => ("False", "TargetNotFound", format!("there is no {target}")),
            Self::TargetForbidden(target) => (
                "Unknown",
                "TargetForbidden",
                format!("{target} may not be read; the chart's distributor.owners gives the right"),
            ),
            Self::TargetUnknown(target) => (
                "Unknown",
                "TargetUnknown",
                format!("{target} can't be read now; the log of the replica that leads says why"),
            ),
        }
    }
}

/// The status that `distributor` is to have; conditions that stay keep their time.
pub(super) fn status(distributor: &Distributor, policy: &Policy, state: &State) -> Value {
    let (ready, reason, message) = state.standing.told();
    let mut conditions = vec![condition(distributor, "Ready", ready, reason, &message)];
    let (balanced, reason, message) = balance(policy, state);
    conditions.push(condition(distributor, "Balanced", balanced, reason, &message));
    let (available, reason, message) = availability(policy, state);
    conditions.push(condition(distributor, "Available", available, reason, &message));
    let revisions = state.revisions.iter().take(MAX_REVISIONS).map(|(kind, name, spread)| {
        json!({"kind": kind, "name": name, "pods": spread.placed(), "groups": groups(policy, spread)})
    });
    let mut whole = groups(policy, &state.whole);
    for (index, group) in whole.iter_mut().enumerate() {
        let available = state.available.contains(index);
        let behind = state.whole.groups.get(index).is_some_and(|tally| tally.deviation() < 0);
        let recovering = !available || (behind && was_recovering(distributor, &policy_name(policy, index)));
        if let Some(group) = group.as_object_mut() {
            group.insert("available".to_owned(), available.into());
            group.insert("recovering".to_owned(), recovering.into());
        }
    }
    json!({
        "observedGeneration": distributor.generation,
        "pods": state.whole.pods(),
        "due": state.whole.desired(),
        "replicas": state.replicas,
        "placed": state.whole.placed(),
        "unplaced": state.whole.unplaced,
        "groups": whole,
        "revisions": revisions.collect::<Vec<_>>(),
        "conditions": conditions,
    })
}

fn policy_name(policy: &Policy, index: usize) -> String {
    policy.groups().get(index).map(|group| group.name.to_string()).unwrap_or_default()
}

/// Whether the group has been without nodes, and its pods have been elsewhere since.
pub(super) fn was_recovering(distributor: &Distributor, group: &str) -> bool {
    let groups = distributor.status.get("groups").and_then(Value::as_array).into_iter().flatten();
    groups.into_iter().any(|before| before["name"] == group && before["recovering"] == true)
}

fn groups(policy: &Policy, spread: &Spread) -> Vec<Value> {
    let tallies = policy.groups().iter().zip(&spread.groups);
    tallies
        .map(|(group, tally)| {
            json!({
                "name": *group.name, "desired": tally.desired, "actual": tally.actual, "pending": tally.pending,
                "deviation": tally.deviation(),
            })
        })
        .collect()
}

fn balance(policy: &Policy, state: &State) -> (&'static str, &'static str, String) {
    let off: Vec<String> = policy
        .groups()
        .iter()
        .zip(&state.whole.groups)
        .filter(|(_, tally)| tally.deviation() != 0)
        .map(|(group, tally)| match tally.deviation() {
            many @ 1.. => format!("{} has {many} too many", group.name),
            few => format!("{} has {} too few", group.name, -few),
        })
        .collect();
    match (&*off, &state.held) {
        ([], _) if state.whole.unplaced > 0 => ("False", "Unplaced", unplaced(policy, state)),
        ([], _) => ("True", "Exact", format!("{} pods: {}", state.whole.placed(), state.whole.pods())),
        (_, Some(held)) => ("False", "RebalanceHeld", format!("{}; {held}", off.join(", "))),
        _ => ("False", "OffShares", off.join(", ")),
    }
}

/// What is told of pods without a place.
fn unplaced(policy: &Policy, state: &State) -> String {
    let many = state.whole.unplaced;
    let most = policy.groups().iter().map(|group| group.max).sum::<Option<u32>>();
    let full = |most: u32| state.revisions.iter().any(|(.., spread)| most <= spread.placed());
    let why = if most.is_some_and(full) {
        "every group has as many as its max allows"
    } else {
        "they were there before this distributor or came while no webhook answered (restarting the workload places them), or \
         their own selectors leave none of the groups"
    };
    format!("{many} pods have no place: {why}")
}

fn availability(policy: &Policy, state: &State) -> (&'static str, &'static str, String) {
    let names = |of: &dyn Fn(usize) -> bool| {
        let those = (0..policy.groups().len()).filter(|index| of(*index));
        those.map(|index| policy_name(policy, index)).collect::<Vec<_>>().join(", ")
    };
    let stuck = names(&|index| state.stuck.contains(index));
    let without = names(&|index| !state.available.contains(index) && !state.stuck.contains(index));
    let unschedulable =
        || format!("pods of {stuck} have been unschedulable for longer than unschedulableAfter");
    let no_node = || format!("no node is ready and takes pods in {without}");
    match (&*without, &*stuck) {
        ("", "") => ("True", "NodesReady", "every group has a node that is ready".to_owned()),
        ("", _) => ("False", "Unschedulable", unschedulable()),
        (_, "") => ("False", "NoNodes", no_node()),
        _ => ("False", "NoNodes", format!("{}; {}", no_node(), unschedulable())),
    }
}

/// A condition; one that stays keeps its time.
pub(super) fn condition(
    distributor: &Distributor,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
) -> Value {
    let before = distributor.status.get("conditions").and_then(Value::as_array).into_iter().flatten();
    let same = before
        .filter(|condition| condition["type"] == kind && condition["status"] == status)
        .find_map(|condition| condition["lastTransitionTime"].as_str());
    let since = same.map_or_else(|| format!("{:.0}", Timestamp::now()), str::to_owned);
    json!({
        "type": kind, "status": status, "observedGeneration": distributor.generation, "lastTransitionTime": since,
        "reason": reason, "message": message.chars().take(1024).collect::<String>(),
    })
}

/// The status of a condition.
pub(super) fn stands<'s>(status: &'s Value, kind: &str) -> Option<&'s Value> {
    status.get("conditions")?.as_array()?.iter().find(|condition| condition["type"] == kind)
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn what_is_told() {
        let spec = json!({
            "distribution": [{"nodeLabel": {"type": "default"}, "weight": 80}, {"nodeLabel": {"type": "spot"}, "weight": 20}],
            "target": {"name": "web"},
        });
        let mut distributor = Distributor { generation: 2, ..Distributor::from_spec(spec) };
        let plan = distributor.plan.clone().unwrap();
        let allocator = &plan.allocator;
        let policy = allocator.policy().clone();
        let pods = [(Some("type=default"), true); 10];
        let spread = Spread::of(pods, allocator);
        let mut state = State {
            standing: Standing::Placing,
            replicas: Some(10),
            whole: spread.clone(),
            revisions: vec![("ReplicaSet".to_owned(), "web-1".to_owned(), spread)],
            available: [0].into_iter().collect(),
            stuck: [].into_iter().collect(),
            held: None,
        };
        let first = status(&distributor, &policy, &state);
        assert_eq!(
            (&first["pods"], &first["due"], &first["placed"]),
            (&json!("10/0"), &json!("8/2"), &json!(10))
        );
        let told = |status: &Value, kind: &str| {
            let condition = stands(status, kind).unwrap();
            [&condition["status"], &condition["reason"], &condition["message"]]
                .map(|text| text.as_str().unwrap().to_owned())
        };
        assert_eq!(
            told(&first, "Balanced"),
            ["False", "OffShares", "type=default has 2 too many, type=spot has 2 too few"]
        );
        assert_eq!(
            told(&first, "Available"),
            ["False", "NoNodes", "no node is ready and takes pods in type=spot"]
        );
        assert_eq!(first["groups"][1]["recovering"], true);

        state.stuck = [1].into_iter().collect();
        let unschedulable = told(&status(&distributor, &policy, &state), "Available");
        assert_eq!(unschedulable[1], "Unschedulable");
        assert!(
            unschedulable[2].starts_with("pods of type=spot have been unschedulable"),
            "{unschedulable:?}"
        );

        // The nodes are back, the pods aren't yet.
        state.stuck = [].into_iter().collect();
        distributor.status = first.clone();
        distributor.status["conditions"][1]["lastTransitionTime"] = json!("2020-01-01T00:00:00Z");
        state.available = policy.all();
        let second = status(&distributor, &policy, &state);
        assert_eq!(
            second["groups"][1],
            json!({
                "name": "type=spot", "desired": 2, "actual": 0, "pending": 0, "deviation": -2, "available": true, "recovering": true,
            })
        );
        assert_eq!(
            second["conditions"][1]["lastTransitionTime"], "2020-01-01T00:00:00Z",
            "it stays as it was"
        );
        // They are.
        state.whole = Spread::of(pods[..8].iter().copied().chain([(Some("type=spot"), true); 2]), allocator);
        distributor.status = second;
        let third = status(&distributor, &policy, &state);
        assert_eq!(told(&third, "Balanced"), ["True", "Exact", "10 pods: 8/2"]);
        assert_eq!(third["groups"][1]["recovering"], false);
        state.whole.unplaced = 3;
        let unplaced = status(&distributor, &policy, &state);
        let [_, reason, message] = told(&unplaced, "Balanced");
        assert_eq!(reason, "Unplaced");
        assert!(message.starts_with("3 pods have no place: they were there before"), "{message}");
        state.standing = Standing::Superseded("old".to_owned());
        assert_eq!(told(&status(&distributor, &policy, &state), "Ready")[1], "Superseded");
    }
}

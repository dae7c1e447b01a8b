//! The annotations of a placed pod, and the patch that places it.

use serde_json::json;

use super::definition::DefinitionHash;
use super::ledger::{Assignment, Token};
use super::policy::{Group, GroupSet, MAX_NAME, Policy};
use podshaper_core::object::is_uid;
use podshaper_core::pod::{Pod, PodPatch};

/// The label that watches select placed pods by; its value names the webhook that placed them.
pub const PLACED: &str = "podshaper.dev/placed";
/// The annotation with the placement's token.
pub const TOKEN: &str = "placement.podshaper.dev/token";
/// The annotation with the pod's slot.
pub const SLOT: &str = "placement.podshaper.dev/slot";
/// The annotation with the name of the pod's group.
pub const GROUP: &str = "placement.podshaper.dev/group";
/// The annotation with the hash of the group's definition.
pub const GROUP_HASH: &str = "placement.podshaper.dev/group-hash";
/// The annotation with the uid of the owner of the sequence of slots.
pub const OWNER: &str = "placement.podshaper.dev/owner";
/// The annotation with the uid of the pod's controller, where that isn't the owner: of the Jobs of a `CronJob`. It is empty for a pod without a
/// controller.
pub const CONTROLLER: &str = "placement.podshaper.dev/controller";
/// The annotation, `true`, of a pod that was placed without its ledger.
pub const ESTIMATED: &str = "placement.podshaper.dev/estimated";
/// Of pods that are alike the `ReplicaSet` controller removes the one with the least first (KEP-2255).
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The deletion cost of a pod that has no slot: no slot costs less.
pub const LOWEST_DELETION_COST: &str = "-2147483647";

/// How much a preferred group weighs in the scheduler's eyes: as much as can be.
const PREFERENCE: u8 = 100;

/// The assignment in a pod's annotations; none where it isn't whole, or longer than any: anybody may write it, and it is kept for each pod.
pub fn parse<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Option<Assignment> {
    let token = Token::parse(annotation(TOKEN)?)?;
    let group = annotation(GROUP).filter(|group| group.len() <= MAX_NAME)?;
    Some(Assignment { token, slot: annotation(SLOT)?.parse().ok()?, group: group.into() })
}

/// The uid of the owner of the sequence that a pod of this controller counts in, empty if it counts in none. (The pods of a `CronJob`'s Jobs count
/// in its; what was copied from a pod of another controller would have them count elsewhere.) The uid of the controller is empty for a pod
/// without one.
pub fn sequence_owner<'a>(annotation: impl Fn(&str) -> Option<&'a str>, controller: &'a str) -> &'a str {
    let shared =
        annotation(OWNER).filter(|owner| annotation(CONTROLLER) == Some(controller) && is_uid(owner));
    shared.unwrap_or(controller)
}

/// The assignment in the annotations of a pod, if its constraints allow only nodes of the group.
pub fn from_pod(pod: &Pod<'_>, policy: &Policy) -> Option<Assignment> {
    let assignment = parse(|key| pod.annotation(key))?;
    let index = policy.index(&assignment.group)?;
    let group = policy.groups().get(index)?;
    let definition = policy.definitions().get(index)?;
    let hash = pod.annotation(GROUP_HASH).map(DefinitionHash::parse);
    let is_current = hash.is_none_or(|hash| hash == Some(definition.hash()));
    let agrees = group.preferred || definition.is_implied_by(&pod.node_alternatives());
    (is_current && agrees).then_some(assignment)
}

/// The webhook that has placed the pod, as far as that says.
pub fn placed_by(pod: &Pod<'_>) -> Option<String> {
    parse(|key| pod.annotation(key))?;
    pod.label(PLACED)
}

/// The groups that the pod's own node selector and required node affinity allow.
pub fn fitting_groups(pod: &Pod<'_>, policy: &Policy) -> GroupSet {
    let alternatives = pod.node_alternatives();
    let definitions = policy.definitions().iter().enumerate();
    definitions.filter(|(_, own)| own.allows_one_of(&alternatives)).map(|(index, _)| index).collect()
}

/// The deletion cost of a pod in this slot: the highest slot is deleted first, so that a prefix remains.
pub fn deletion_cost(slot: u32) -> String {
    (-i64::from(slot)).to_string()
}

/// The annotations of a placed pod.
#[derive(Clone, Copy, Debug)]
pub struct PlacementMetadata<'a> {
    /// Its place.
    pub assignment: &'a Assignment,
    /// The hash of the group's definition.
    pub hash: DefinitionHash,
    /// The uid of the owner that it shares the sequence of slots with others by.
    pub owner: &'a str,
    /// The uid of its controller, where that is another.
    pub controller: Option<&'a str>,
    /// Whether the place was given without the ledger, and may clash.
    pub estimated: bool,
    /// The value of [`PLACED`].
    pub webhook: &'a str,
}

/// Adds to `patch` what puts its pod into `group`, and marks it.
///
/// The author's own settings stay. Call it with a group that [`fitting_groups`] allows.
pub fn apply(patch: &mut PodPatch<'_, '_>, group: &Group, metadata: &PlacementMetadata<'_>) {
    let PlacementMetadata { assignment, hash, owner, controller, estimated, webhook } = *metadata;
    constrain(patch, group);
    patch.set_label(PLACED, webhook);
    patch.set_annotation(OWNER, owner);
    match controller {
        Some(controller) => patch.set_annotation(CONTROLLER, controller),
        None => patch.remove_annotation(CONTROLLER),
    }
    patch.set_annotation(TOKEN, &assignment.token.to_string());
    patch.set_annotation(SLOT, &assignment.slot.to_string());
    patch.set_annotation(GROUP, &assignment.group);
    patch.set_annotation(GROUP_HASH, &hash.to_string());
    if estimated {
        patch.set_annotation(ESTIMATED, "true");
    } else {
        patch.remove_annotation(ESTIMATED);
    }
    // A deletion cost that equals that of the slot in the annotations is not the author's: an earlier call wrote it, for this pod or for the
    // pod that it was copied from.
    let pod = patch.pod();
    let ours = parse(|key| pod.annotation(key)).map(|before| deletion_cost(before.slot));
    let cost = pod.annotation(DELETION_COST);
    if cost.is_none() || cost == ours.as_deref() {
        patch.set_annotation(DELETION_COST, &deletion_cost(assignment.slot));
    }
}

/// Adds to `patch` what puts its pod into the group of its leader. No ledger counts the pod.
pub fn follow(patch: &mut PodPatch<'_, '_>, group: &Group) {
    constrain(patch, group);
    patch.set_annotation(GROUP, &group.name);
}

/// Limits the pod to nodes of the group.
fn constrain(patch: &mut PodPatch<'_, '_>, group: &Group) {
    if group.preferred {
        let labels = group.node_labels.iter();
        let expressions: Vec<_> =
            labels.map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]})).collect();
        let preference = json!({"matchExpressions": expressions});
        patch.add_preferred_term(&json!({"weight": PREFERENCE, "preference": preference}));
    } else {
        for (key, value) in &group.node_labels {
            patch.set_node_selector(key, value);
        }
    }
    for toleration in &group.tolerations {
        patch.add_toleration(toleration);
    }
    patch.require_one_of(&group.node_affinity);
}

#[cfg(test)]
mod tests;

//! Admission of one pod by a webhook that places pods: from the pod, its owners and a policy to the patch that places it.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use super::allocator::SlotAllocator;
use super::annotations::{self, PlacementMetadata};
use super::definition::{Definition, DefinitionHash};
use super::identity::{GroupEvidence, UnknownNodes};
use super::ledger::{Assignment, SlotReply, SlotRequest, Token};
use super::owner_object::OwnerObject;
use super::owners::OwnerChain;
use super::policy::{Group, GroupSet, Policy};
use podshaper_core::admission::{Decision, Request};
use podshaper_core::object::{Lookup, OwnerReference};
use podshaper_core::pod::{Pod, PodPatch};

/// The annotation of an Indexed Job's pod (`batchv1.JobCompletionIndexAnnotation`).
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// The label of a `StatefulSet`'s pod (`appsv1.PodIndexLabel`).
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The outcome for a pod with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PlaceOutcome {
    /// The pod was placed.
    Placed,
    /// The pod was placed without the ledger.
    Estimated,
    /// The pod was placed before.
    Kept,
    /// Another webhook has placed it.
    Superseded,
    /// Every group that it fits into is full.
    Full,
    /// The pod's own selectors allow none of the groups.
    Unfitting,
    /// The policy is invalid.
    Invalid,
    /// Something could not be read in time.
    Undecided,
}

impl PlaceOutcome {
    /// The label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Estimated => "estimated",
            Self::Kept => "kept",
            Self::Superseded => "superseded",
            Self::Full => "full",
            Self::Unfitting => "unfitting",
            Self::Invalid => "invalid",
            Self::Undecided => "undecided",
        }
    }
}

/// Where owners are read and slots are allocated: a cluster, or files that describe one.
///
/// No call takes longer than until its `deadline`.
pub trait PlacementBackend: Send + Sync + 'static {
    /// Reads an owner.
    fn owner(
        &self,
        namespace: &str,
        owner: &OwnerReference,
        deadline: Instant,
    ) -> impl Future<Output = Lookup<OwnerObject>> + Send;
    /// A pod with this name and controller was placed in this group.
    fn placed(
        &self,
        _namespace: &str,
        _name: &str,
        _controller: Option<OwnerReference>,
        _group: &Assignment,
    ) {
    }
    /// The webhook that places the pods of the owner with this uid in place of this one ([`super::precedence`]).
    fn superseded_by(&self, _namespace: &str, _owner: &str) -> Option<String> {
        None
    }
    /// Allocates a slot for a pod; `None` if that can't be decided in time.
    fn place(
        &self,
        request: PlaceRequest<'_>,
        deadline: Instant,
    ) -> impl Future<Output = Option<SlotReply>> + Send;
}

/// A pod that needs a slot.
#[derive(Debug)]
pub struct PlaceRequest<'r> {
    /// Its namespace.
    pub namespace: &'r str,
    /// Its owners.
    pub chain: &'r OwnerChain,
    /// The allocator of its policy.
    pub allocator: &'r Arc<SlotAllocator>,
    /// The request.
    pub slot: SlotRequest,
}

/// Why a pod is admitted without a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceError {
    /// The value of the label in metrics.
    pub outcome: PlaceOutcome,
    /// The reason in a warning.
    pub reason: String,
}

impl PlaceError {
    /// An error.
    pub fn new(outcome: PlaceOutcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into() }
    }

    /// The pod is admitted as it is, with this warning.
    pub fn decision(&self, warning: String) -> Decision {
        match self.outcome {
            // Another webhook has decided about it.
            PlaceOutcome::Superseded => Decision::unchanged().with_warnings([warning]),
            _ => Decision::undecided(warning),
        }
    }
}

/// How a webhook places the pods of one workload.
#[derive(Clone, Copy, Debug)]
pub struct PlacePolicy<'r> {
    /// The webhook: the value of the label [`annotations::PLACED`].
    pub webhook: &'static str,
    /// The allocator of the policy.
    pub allocator: &'r Arc<SlotAllocator>,
    /// The groups that take pods now.
    pub open: GroupSet,
    /// A group that is not open, which the pod tries.
    pub probe: Option<usize>,
    /// The groups that the pod cannot go to for reasons outside of the pod.
    pub excluded: &'r [Exclusion],
}

/// Groups that a pod cannot go to.
#[derive(Clone, Copy, Debug)]
pub struct Exclusion {
    /// The groups.
    pub groups: GroupSet,
    /// The error about a pod that they leave no group.
    pub problem: &'static str,
}

impl PlacePolicy<'_> {
    /// The sets of groups in which a place is searched for a pod that fits into those of `fitting`, one after the other.
    ///
    /// If no group is open, all count as open: the pod waits for one of them. Stand-ins count only if no other group is open.
    fn candidates(&self, fitting: GroupSet) -> Vec<GroupSet> {
        let stand_ins = self.allocator.policy().stand_ins();
        let regular = fitting.difference(stand_ins);
        let regular = if regular.is_empty() { fitting } else { regular };
        let open = Some(regular.intersection(self.open)).filter(|groups| !groups.is_empty());
        let open = open.unwrap_or_else(|| fitting.intersection(self.open));
        let probe: GroupSet = self.probe.into_iter().collect();
        let mut candidates = vec![fitting.intersection(probe)];
        candidates.push(open);
        candidates.push(regular);
        candidates.retain(|groups| !groups.is_empty());
        candidates.dedup();
        candidates
    }
}

/// Whether a pod without a place may try the group `probe`, which is not open: it fits, and its number does not assign it to another group.
pub fn may_probe(
    request: &Request<'_, impl Sync>,
    pod: &Pod<'_>,
    chain: &OwnerChain,
    allocator: &SlotAllocator,
    probe: usize,
) -> bool {
    let fitting = annotations::fitting_groups(pod, allocator.policy());
    let of_ordinal = ordinal_slot(pod, request.name.as_deref(), chain);
    let of_ordinal = of_ordinal.and_then(|ordinal| allocator.group_of_ordinal(ordinal, fitting));
    request.dry_run != Some(true)
        && !pod.is_bound()
        && fitting.contains(probe)
        && of_ordinal.is_none_or(|group| group == probe)
        && annotations::placed_by(pod).is_none()
}

/// Finds a slot for the pod of `request` with the owners `chain`. The patch is empty if the pod keeps the slot that it has.
pub async fn place<'p, 'a>(
    backend: &impl PlacementBackend,
    request: &Request<'_, impl Sync>,
    pod: &'p Pod<'a>,
    chain: &OwnerChain,
    policy: PlacePolicy<'_>,
    deadline: Instant,
) -> Result<(PlaceOutcome, PodPatch<'p, 'a>), PlaceError> {
    let PlacePolicy { webhook, allocator, .. } = policy;
    let owner = chain.sequence_owner().map(|(owner, _)| &*owner.uid).unwrap_or_default();
    let fitting = fitting_groups(pod, chain, policy)?;
    if let Some((reference, leader)) = chain.leader() {
        return follow_leader(pod, &reference.name, leader, fitting, allocator.policy());
    }
    let namespace = request.namespace.as_deref().unwrap_or_default();
    if let Some(other) = backend.superseded_by(namespace, owner) {
        let reason = format!(
            "the Placement {other}-{owner} is older, so {other} places the pods of this owner: the pod isn't placed. If {other} no longer \
             does, delete that Placement"
        );
        return Err(PlaceError::new(PlaceOutcome::Superseded, reason));
    }
    let dry_run = request.dry_run == Some(true);
    let token = Token::of(&request.uid);
    // A dry run's token names nothing: nothing is stored under it, and two dry runs get the same answer.
    let stored_token = if dry_run { Token(0) } else { token };
    let existing = annotations::from_pod(pod, allocator.policy()).filter(|_| has_owner(pod, owner));
    let find = async |fitting| {
        if let Some(ordinal) = ordinal_slot(pod, request.name.as_deref(), chain) {
            return Some(place_ordinal(ordinal, stored_token, allocator, fitting, existing.as_ref()));
        }
        let over_time = chain.is_over_time() || is_alone_over_time(pod, chain);
        let slot = SlotRequest { token, fitting, existing: existing.clone(), dry_run, over_time };
        backend.place(PlaceRequest { namespace, chain, allocator, slot }, deadline).await
    };
    let mut reply = Some(SlotReply::Unplaced);
    for groups in policy.candidates(fitting) {
        reply = find(groups).await;
        // The groups are full. If the API server sends this request again, the ledger may already hold a slot for it in another group.
        if !matches!(reply, None | Some(SlotReply::Unplaced)) {
            break;
        }
    }
    let Some((assignment, outcome)) = placed(reply)? else {
        return Ok((PlaceOutcome::Kept, PodPatch::new(pod)));
    };
    let (group, definition) = group_of(&assignment, allocator.policy())?;
    let controller = chain.named_controller().map(|controller| &*controller.uid);
    // That of a pod without a controller is empty: the sequence is that of the policy.
    let controller = Some(controller.unwrap_or_default()).filter(|uid| *uid != owner);
    let assignment = Assignment { token: stored_token, ..assignment };
    let estimated = outcome == PlaceOutcome::Estimated;
    let mut patch = PodPatch::new(pod);
    let hash = definition.hash();
    let metadata = PlacementMetadata { assignment: &assignment, hash, owner, controller, estimated, webhook };
    annotations::apply(&mut patch, group, &metadata);
    if let Some(name) = request.name.as_deref() {
        backend.placed(namespace, name, pod.controller().map(OwnerReference::coordinates), &assignment);
    }
    Ok((outcome, patch))
}

/// Puts a worker into the group of its leader. A worker has no slot and counts in no ledger: its leader does.
fn follow_leader<'p, 'a>(
    pod: &'p Pod<'a>,
    name: &str,
    leader: &OwnerObject,
    fitting: GroupSet,
    policy: &Policy,
) -> Result<(PlaceOutcome, PodPatch<'p, 'a>), PlaceError> {
    let annotation = |key: &str| leader.annotations.get(key).map(String::as_str);
    let evidence = GroupEvidence {
        name: annotation(annotations::GROUP).map(Into::into),
        hash: annotation(annotations::GROUP_HASH).and_then(DefinitionHash::parse),
        ..GroupEvidence::default()
    };
    let by_name = || policy.index(evidence.name.as_ref()?);
    let index = evidence.hash.and_then(|_| evidence.group(policy, None, &UnknownNodes)).or_else(by_name);
    let group = index.and_then(|index| Some((index, policy.groups().get(index)?)));
    match group {
        Some((index, group)) if fitting.contains(index) => {
            let mut patch = PodPatch::new(pod);
            annotations::follow(&mut patch, group);
            Ok((PlaceOutcome::Placed, patch))
        }
        Some((_, group)) => {
            let reason = format!(
                "its leader {name} is in group {}, which it does not fit: it isn't placed",
                group.name
            );
            Err(PlaceError::new(PlaceOutcome::Unfitting, reason))
        }
        None => {
            let reason = format!("its leader {name} is in no group: it isn't placed");
            Err(PlaceError::new(PlaceOutcome::Undecided, reason))
        }
    }
}

/// The assignment in a reply; `None` if the pod keeps the slot that it has.
fn placed(reply: Option<SlotReply>) -> Result<Option<(Assignment, PlaceOutcome)>, PlaceError> {
    match reply {
        Some(SlotReply::Kept) => Ok(None),
        Some(SlotReply::Placed(assignment)) => Ok(Some((assignment, PlaceOutcome::Placed))),
        Some(SlotReply::Estimated(assignment)) => Ok(Some((assignment, PlaceOutcome::Estimated))),
        Some(SlotReply::Unplaced) => {
            let reason = "every group that the pod fits into is full: it isn't placed";
            Err(PlaceError::new(PlaceOutcome::Full, reason))
        }
        None => {
            let reason = "the ledger of the workload is not available: the pod isn't placed";
            Err(PlaceError::new(PlaceOutcome::Undecided, reason))
        }
    }
}

/// The group of an assignment, and its definition. An error if the policy no longer has the group.
fn group_of<'g>(
    assignment: &Assignment,
    policy: &'g Policy,
) -> Result<(&'g Group, &'g Definition), PlaceError> {
    let index = policy.index(&assignment.group);
    let group = index.and_then(|index| policy.groups().get(index).zip(policy.definitions().get(index)));
    group.ok_or_else(|| {
        let reason = format!("the policy no longer has group {}: the pod isn't placed", assignment.group);
        PlaceError::new(PlaceOutcome::Undecided, reason)
    })
}

/// The groups that the pod fits into, if this webhook is to place it.
fn fitting_groups(
    pod: &Pod<'_>,
    chain: &OwnerChain,
    policy: PlacePolicy<'_>,
) -> Result<GroupSet, PlaceError> {
    if pod.is_bound() {
        let reason = "the pod names its node in spec.nodeName: it isn't placed";
        return Err(PlaceError::new(PlaceOutcome::Unfitting, reason));
    }
    let sequence_owner = chain.sequence_owner().map(|(owner, _)| owner);
    let mut owners = chain.owners().iter().chain(sequence_owner);
    let is_copy = !owners.any(|owner| has_owner(pod, &owner.uid));
    let other = annotations::placed_by(pod).filter(|other| !is_copy && other != policy.webhook);
    if let Some(other) = other {
        let reason = format!("{other} has already placed the pod");
        return Err(PlaceError::new(PlaceOutcome::Superseded, reason));
    }
    let mut fitting = annotations::fitting_groups(pod, policy.allocator.policy());
    if fitting.is_empty() {
        let reason = "the pod's own node selector and affinity leave none of the groups: it isn't placed";
        return Err(PlaceError::new(PlaceOutcome::Unfitting, reason));
    }
    for Exclusion { groups, problem } in policy.excluded {
        fitting = fitting.difference(*groups);
        if fitting.is_empty() {
            return Err(PlaceError::new(PlaceOutcome::Unfitting, format!("{problem}: it isn't placed")));
        }
    }
    Ok(fitting)
}

/// Whether the placement in the pod's annotations is of this owner. If not, the pod was copied from one of another owner.
fn has_owner(pod: &Pod<'_>, owner: &str) -> bool {
    pod.annotation(annotations::OWNER) == Some(owner)
}

/// Whether a pod without a controller takes a slot over time, as the pods of Jobs do: it ends.
fn is_alone_over_time(pod: &Pod<'_>, chain: &OwnerChain) -> bool {
    chain.is_selected() && chain.named_controller().is_none() && pod.runs_to_completion()
}

/// The slot of a numbered pod, if its controller numbers its pods: such a pod needs no ledger.
fn ordinal_slot(pod: &Pod<'_>, name: Option<&str>, chain: &OwnerChain) -> Option<u32> {
    let (controller, read) = chain.controller()?;
    // Controllers that share one sequence number their own pods each.
    if chain.is_shared() {
        return None;
    }
    if controller.is_kind("batch", "Job") {
        return pod.annotation(COMPLETION_INDEX)?.parse().ok();
    }
    // Pods of these have no numbers: their label comes from a template.
    if controller.is_kind("apps", "ReplicaSet") || controller.is_kind("", "ReplicationController") {
        return None;
    }
    let of_name =
        || name.filter(|_| controller.kind == "StatefulSet")?.rsplit_once('-').map(|(_, number)| number);
    let label = pod.label(POD_INDEX);
    let ordinal: u32 = label.as_deref().or_else(of_name)?.parse().ok()?;
    ordinal.checked_sub(read.first_ordinal)
}

/// The slot of a pod that its controller numbers.
fn place_ordinal(
    ordinal: u32,
    token: Token,
    allocator: &SlotAllocator,
    fitting: GroupSet,
    existing: Option<&Assignment>,
) -> SlotReply {
    if existing.is_some_and(|existing| existing.slot == ordinal) {
        return SlotReply::Kept;
    }
    let group = allocator.group_of_ordinal(ordinal, fitting);
    match group.and_then(|group| allocator.policy().groups().get(group)) {
        Some(group) => SlotReply::Placed(Assignment { token, slot: ordinal, group: group.name.clone() }),
        None => SlotReply::Unplaced,
    }
}

/// Whether the pod comes from a template, so that its owner is unread or unnamed.
pub fn is_template(pod: &Pod<'_>, name: Option<&str>) -> bool {
    name.is_none() && pod.controller().is_none_or(|owner| owner.uid.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;
    use crate::allocator::Occupancy;
    use crate::policy::{Group, Tie};

    /// A ledger that has given this request a place in the second group.
    struct Remembers;

    impl PlacementBackend for Remembers {
        async fn owner(&self, _: &str, _: &OwnerReference, _: Instant) -> Lookup<OwnerObject> {
            Lookup::NotFound
        }

        async fn place(&self, request: PlaceRequest<'_>, _: Instant) -> Option<SlotReply> {
            let SlotRequest { token, fitting, .. } = request.slot;
            let assignment = Assignment { token, slot: 7, group: "spot".into() };
            fitting.contains(1).then_some(SlotReply::Placed(assignment))
        }
    }

    #[test]
    fn stand_in_counts_only_if_no_other_group_is_open() {
        let group = |(name, weight, stand_in): (&str, u32, bool)| Group {
            name: name.into(),
            node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
            weight,
            stand_in,
            ..Group::default()
        };
        let groups = [("a", 1, false), ("b", 1, false), ("s", 0, true)].map(group);
        let allocator = Arc::new(SlotAllocator::new(Policy::new(groups.into(), Tie::First).unwrap()));
        let set = |groups: &[usize]| groups.iter().copied().collect::<GroupSet>();
        let candidates = |open: &[usize], probe, fitting: &[usize]| {
            let policy = PlacePolicy {
                webhook: "webhook",
                allocator: &allocator,
                open: set(open),
                probe,
                excluded: &[],
            };
            policy.candidates(set(fitting))
        };
        let all = &[0, 1, 2][..];
        assert_eq!(candidates(all, None, all), [set(&[0, 1])]);
        assert_eq!(candidates(&[1, 2], None, all), [set(&[1]), set(&[0, 1])]);
        assert_eq!(candidates(&[2], None, all), [set(&[2]), set(&[0, 1])]);
        assert_eq!(candidates(&[], None, all), [set(&[0, 1])], "all are closed, so all count as open");
        assert_eq!(candidates(&[2], Some(0), all), [set(&[0]), set(&[2]), set(&[0, 1])]);
        assert_eq!(candidates(all, None, &[2]), [set(&[2])], "the pod fits into nothing else");
        assert_eq!(candidates(&[1, 2], None, &[0, 2]), [set(&[2]), set(&[0])]);
        assert_eq!(allocator.allocate(&Occupancy::default(), set(&[2])), Some((0, 2)));
        assert_eq!(allocator.desired(4), [2, 2, 0]);
    }

    #[tokio::test]
    async fn repeated_call_keeps_group_that_lost_its_nodes() {
        let group = |name: &str| Group {
            name: name.into(),
            node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(["default", "spot"].map(group).into(), Tie::First).unwrap();
        let allocator = Arc::new(SlotAllocator::new(policy));
        let request = serde_json::json!({
            "uid": "a", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "object": {"metadata": {}, "spec": {"containers": []}},
        });
        let request = request.to_string();
        let request: Request<'_, Pod<'_>> = serde_json::from_str(&request).unwrap();
        let pod = request.object.as_ref().unwrap();
        let policy = PlacePolicy {
            excluded: &[],
            webhook: "webhook",
            allocator: &allocator,
            open: [0].into_iter().collect(),
            probe: None,
        };
        let deadline = Instant::now() + Duration::from_secs(1);
        let placed = place(&Remembers, &request, pod, &OwnerChain::from(None), policy, deadline).await;
        assert_eq!(placed.unwrap().0, PlaceOutcome::Placed);
    }

    fn owner(api_version: &str, kind: &str) -> OwnerReference {
        OwnerReference::new(api_version, kind, "web", kind)
    }

    fn slot_of(
        metadata: &Value,
        name: &str,
        of: &OwnerReference,
        controller: Option<OwnerReference>,
    ) -> Option<u32> {
        let text = json!({"metadata": metadata}).to_string();
        let mut chain = OwnerChain::from(Some(of.clone()));
        let read =
            OwnerObject { uid: of.uid.clone(), controller, first_ordinal: 3, ..OwnerObject::default() };
        chain.record_read(Lookup::Found(read.into()));
        ordinal_slot(&serde_json::from_str(&text).unwrap(), Some(name), &chain)
    }

    #[test]
    fn ordinal_of_a_numbered_pod_is_its_slot() {
        let set = owner("apps/v1", "StatefulSet");
        let labelled = json!({"labels": {POD_INDEX: "7"}});
        assert_eq!(slot_of(&labelled, "web-9", &set, None), Some(4));
        assert_eq!(slot_of(&json!({}), "web-9", &set, None), Some(6), "before Kubernetes 1.28");
        assert_eq!(slot_of(&json!({}), "web-2", &set, None), None, "below the first");
        assert_eq!(slot_of(&json!({}), "web-x", &set, None), None);
        let kruise = owner("apps.kruise.io/v1beta1", "StatefulSet");
        assert_eq!(slot_of(&labelled, "web-9", &kruise, None), Some(4));
        assert_eq!(slot_of(&json!({}), "web-9", &kruise, None), Some(6));
        assert_eq!(slot_of(&labelled, "web-9", &owner("example.com/v1", "Database"), None), Some(4));
        assert_eq!(slot_of(&json!({}), "web-9", &owner("example.com/v1", "Database"), None), None);
        assert_eq!(slot_of(&labelled, "web-9", &owner("apps/v1", "ReplicaSet"), None), None);
        let job = owner("batch/v1", "Job");
        let indexed = json!({"annotations": {COMPLETION_INDEX: "5"}});
        assert_eq!(slot_of(&indexed, "", &job, None), Some(5));
        assert_eq!(slot_of(&json!({}), "", &job, None), None);
        assert_eq!(slot_of(&indexed, "", &job, Some(owner("batch/v1", "CronJob"))), None);
    }
}

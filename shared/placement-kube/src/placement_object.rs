//! A placed workload, the key of its ledger, and the `Placement` object: the ledger as the API server stores it.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use podshaper_core::object::{Object, OwnerReference, lenient};
use podshaper_crd::{CustomResource, ResourceScope};
use podshaper_kube::error::describe;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::annotations::PLACED;
use podshaper_placement::cycle::Cursor;
use podshaper_placement::ledger::{Assignment, LedgerContent, Reservation, ResourceVersion, Token};
use podshaper_placement::precedence::PlacementAge;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

const API_VERSION: &str = "podshaper.dev/v1alpha1";
pub(crate) const API: &str = "/apis/podshaper.dev/v1alpha1";
const KIND: &str = "Placement";
pub(crate) const PLURAL: &str = "placements";

/// The longest text of reservations, in characters: about 1 MiB of the 1.5 MiB that etcd takes.
const MAX_RESERVATIONS: u32 = 1 << 20;

/// The owner of a sequence of slots and a ledger, with its policy.
#[derive(Clone, Debug)]
pub struct PlacedWorkload {
    /// The namespace of its pods.
    pub namespace: String,
    /// The owner. It was read, and has this uid.
    pub owner: OwnerReference,
    /// Its path, such as `/apis/apps/v1/namespaces/NAMESPACE/replicasets/NAME`, made of checked names. `None` if the owner is a policy that
    /// selects pods by their labels: no number of it bounds them.
    pub path: Option<String>,
    /// A label selector that matches all of its pods, and perhaps others.
    pub selector: String,
    /// How many pods it may have at a time, if known.
    pub pods: Option<u32>,
    /// How many pods it has according to its status, if known.
    pub created: Option<u32>,
    /// The `resourceVersion` that both numbers are from.
    pub version: ResourceVersion,
    /// Whether the pods of several controllers share the sequence. Then no number of the owner bounds them.
    pub shared: bool,
    /// The allocator of the policy.
    pub allocator: Arc<SlotAllocator>,
}

impl PlacedWorkload {
    /// The key of its ledger.
    pub fn ledger_id(&self) -> LedgerId {
        LedgerId::new(&self.namespace, &self.owner.uid)
    }

    /// Logs an API error that concerns its ledger.
    pub(crate) fn warn(&self, error: &kube::Error, message: &str) {
        let namespace = &self.namespace;
        let kind = &self.owner.kind;
        let owner = &self.owner.name;
        tracing::warn!(namespace, kind, owner, error = describe(error), "{message}");
    }
}

/// The key of a ledger: the owner's uid, and the namespace of the pods, because a pod can name an owner of any namespace.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LedgerId(Box<str>);

impl LedgerId {
    /// The ledger of the owner with this uid in `namespace`.
    pub fn new(namespace: &str, uid: &str) -> Self {
        Self([namespace, "/", uid].concat().into())
    }

    /// The namespace of the pods.
    pub(crate) fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }
}

/// An owner, and the namespace of the pods that name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamespacedOwner {
    /// The namespace.
    pub namespace: String,
    /// The owner.
    pub owner: OwnerReference,
}

impl NamespacedOwner {
    /// The key of the ledger of its pods.
    pub fn ledger_id(&self) -> LedgerId {
        LedgerId::new(&self.namespace, &self.owner.uid)
    }
}

/// Slots that are reserved for pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct PlacementSpec {
    /// A resourceVersion of pods. A replica decides only after its watch has reached it.
    #[serde(deserialize_with = "text")]
    #[schemars(length(max = 32))]
    fence: String,
    /// Reservations for pods that no watch has delivered yet, the oldest first, one per line: token, slot, time, name of the pod (- if it
    /// has none yet), and group.
    // One text: with 500 objects of a field each, a write takes the API server five times as long.
    #[serde(deserialize_with = "text")]
    #[schemars(length(max = MAX_RESERVATIONS))]
    reservations: String,
    /// Where the pods of Jobs share the sequence of slots: a hash of the policy, and the slot of the next pod.
    #[serde(deserialize_with = "text")]
    #[schemars(length(max = 32))]
    cursor: String,
}

/// A text. A value of another type, which a user may have written, counts as empty.
fn text<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    Ok(lenient(value)?.unwrap_or_default())
}

impl From<&LedgerContent> for PlacementSpec {
    fn from(content: &LedgerContent) -> Self {
        let reservations = content.reservations.iter().map(format_reservation).collect();
        let Cursor { policy, next } = content.cursor;
        let cursor = if policy == 0 { String::new() } else { format!("{policy:08x} {next}") };
        Self { fence: content.fence.to_string(), reservations, cursor }
    }
}

impl PlacementSpec {
    /// The ledger. A line that can't be parsed is dropped: no replica has written it.
    pub(crate) fn content(&self) -> LedgerContent {
        LedgerContent {
            reservations: self.reservations.lines().filter_map(parse_reservation).collect(),
            fence: self.fence.parse().unwrap_or(0),
            cursor: parse_cursor(&self.cursor).unwrap_or_default(),
        }
    }
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let (policy, next) = text.split_once(' ')?;
    Some(Cursor { policy: u32::from_str_radix(policy, 16).ok()?, next: next.parse().ok()? })
}

/// `TOKEN SLOT TIME POD GROUP`. The pod is `-` unless it existed before and is moved; the group comes last because its name may have spaces.
fn format_reservation(Reservation { assignment, pod, at }: &Reservation) -> String {
    let Assignment { token, slot, group } = assignment;
    let at = Timestamp::from_second(*at).unwrap_or_default();
    format!("{token} {slot} {at} {} {group}\n", pod.as_deref().unwrap_or("-"))
}

fn parse_reservation(line: &str) -> Option<Reservation> {
    let mut parts = line.splitn(5, ' ');
    let mut next = || parts.next();
    let token = next()?;
    let slot = next()?;
    let at = next()?;
    let pod = next()?;
    let group = next()?;
    let assignment =
        Assignment { token: Token::parse(token)?, slot: slot.parse().ok()?, group: group.into() };
    let pod = (pod != "-").then(|| pod.into());
    Some(Reservation { assignment, pod, at: at.parse().map_or(0, Timestamp::as_second) })
}

/// Parses a `resourceVersion` (KEP-5504: resource versions are comparable integers).
pub(crate) fn parse_version(text: &str) -> Option<ResourceVersion> {
    text.parse().ok()
}

/// The path of the Placements of a namespace.
pub(crate) fn collection_path(namespace: &str) -> String {
    format!("{API}/namespaces/{namespace}/{PLURAL}")
}

/// The name of the object that `webhook` keeps for the pods of an owner.
pub(crate) fn object_name(webhook: &str, owner: &OwnerReference) -> String {
    format!("{webhook}-{}", owner.uid)
}

/// The body of a POST. The garbage collector deletes the object with its owner.
pub(crate) fn create_body(webhook: &str, workload: &PlacedWorkload, content: &LedgerContent) -> Value {
    let OwnerReference { api_version, kind, name: owner, uid, .. } = &workload.owner;
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": object_name(webhook, &workload.owner),
            "namespace": workload.namespace,
            "labels": {PLACED: webhook},
            "ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": owner, "uid": uid}],
        },
        "spec": PlacementSpec::from(content),
    })
}

/// A merge patch that conflicts unless the object still has this version.
pub(crate) fn update_body(version: ResourceVersion, content: &LedgerContent) -> Value {
    json!({"metadata": {"resourceVersion": version.to_string()}, "spec": PlacementSpec::from(content)})
}

/// A `Placement`, without its reservations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlacementObject {
    /// The owner of the pods.
    pub owner: NamespacedOwner,
    /// The object's name.
    pub name: String,
    /// Its version.
    pub version: ResourceVersion,
    /// When it was created, and by which webhook.
    pub age: PlacementAge,
    /// How many slots are reserved.
    pub reserved: usize,
    /// Whether pods have taken slots over time.
    pub over_time: bool,
    /// `status`.
    pub status: PlacementStatus,
}

/// How the workload's pods are distributed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub(crate) struct PlacementStatus {
    /// Placed pods of each group, in the order of the groups, as in 8/2.
    #[schemars(length(max = 1024))]
    pub pods: String,
    /// Desired pods of each group, as in 8/2.
    #[schemars(length(max = 1024))]
    pub desired: String,
}

impl PlacementObject {
    /// Reads an object and its ledger; `None` if it has not one owner, or another name than its webhook gives it: a user has copied it.
    pub(crate) fn parse(mut object: Object<PlacementSpec, PlacementStatus>) -> Option<(Self, LedgerContent)> {
        let webhook = object.metadata.labels.as_mut()?.remove(PLACED)?;
        let [owner]: [OwnerReference; 1] = object.metadata.owner_references?.try_into().ok()?;
        if object.metadata.name != object_name(&webhook, &owner) {
            return None;
        }
        let content = object.spec.unwrap_or_default().content();
        let placement = Self {
            owner: NamespacedOwner { namespace: object.metadata.namespace?, owner: owner.coordinates() },
            name: object.metadata.name,
            version: parse_version(&object.metadata.resource_version)?,
            age: PlacementAge { created: object.metadata.creation_timestamp.unwrap_or_default(), webhook },
            reserved: content.reservations.len(),
            over_time: content.cursor != Cursor::default(),
            status: object.status.unwrap_or_default(),
        };
        Some((placement, content))
    }
}

/// The `CustomResourceDefinition` of `Placement`.
pub fn crd() -> Value {
    CustomResource {
        api_version: API_VERSION,
        scope: ResourceScope::Namespaced,
        kind: KIND,
        plural: PLURAL,
        short_names: &[],
        description: "A Placement is the ledger of one workload: the reserved slots of its pods, which the replicas of a webhook share. The \
                      replicas maintain it, and it is deleted with the workload.",
        columns: &[
            ("Kind", "string", ".metadata.ownerReferences[0].kind"),
            ("Owner", "string", ".metadata.ownerReferences[0].name"),
            ("Pods", "string", ".status.pods"),
            ("Desired", "string", ".status.desired"),
        ],
        requires_spec: false,
    }
    .definition::<PlacementSpec, PlacementStatus>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_spec_is_read_unchanged() {
        let assignment =
            |token, slot| Assignment { token: Token(token), slot, group: "spot, the large ones".into() };
        let content = LedgerContent {
            reservations: vec![
                Reservation { assignment: assignment(u64::MAX, 7), pod: None, at: 1_700_000_000 },
                Reservation { assignment: assignment(0, 0), pod: Some("web-1".into()), at: 0 },
            ],
            fence: u64::MAX,
            cursor: Cursor { policy: 0xff, next: 7 },
        };
        let spec = PlacementSpec::from(&content);
        assert_eq!(
            spec.reservations,
            "ffffffffffffffff 7 2023-11-14T22:13:20Z - spot, the large ones\n\
             0000000000000000 0 1970-01-01T00:00:00Z web-1 spot, the large ones\n"
        );
        assert_eq!(
            serde_json::from_str::<PlacementSpec>(&json!(spec).to_string()).unwrap().content(),
            content
        );
    }

    #[test]
    fn foreign_values_in_a_spec_are_ignored() {
        for (spec, reserved) in [
            (json!({}), 0),
            (json!({"fence": 7, "reservations": [{"token": "00000000000000ff"}]}), 0),
            (json!({"fence": "x", "reservations": "\n00000000000000ff 3\n00000000000000ff 3 then - \n"}), 1),
            (json!({"reservations": "00000000000000ff -3 then - spot\nff 3 then - spot"}), 0),
        ] {
            let content = serde_json::from_value::<PlacementSpec>(spec).unwrap().content();
            assert_eq!((content.fence, content.reservations.len()), (0, reserved));
        }
    }
}

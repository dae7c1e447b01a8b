//! The `Placement` object: a ledger as the API server stores it.

use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::{LedgerId, Workload};
use podshaper_core::object::Object;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::annotations::PLACED;
use podshaper_placement::ledger::{Assignment, LedgerContent, Reservation, ResourceVersion, Token};

pub(super) const API_VERSION: &str = "podshaper.dev/v1alpha1";
pub(super) const API: &str = "/apis/podshaper.dev/v1alpha1";
pub(super) const KIND: &str = "Placement";
/// The kind's plural, as paths have it.
pub const PLURAL: &str = "placements";
/// The longest text of reservations, in characters: about 1 MiB of the 1.5 MiB that etcd takes.
const MAX_RESERVATIONS: u32 = 1 << 20;

/// Slots that are reserved for pods.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Spec {
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
}

/// A text; nothing where somebody else has put something else in its place.
fn text<'de, D: Deserializer<'de>>(value: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Found {
        Text(String),
        Other(IgnoredAny),
    }
    Ok(match Found::deserialize(value)? {
        Found::Text(text) => text,
        Found::Other(_) => String::new(),
    })
}

impl From<&LedgerContent> for Spec {
    fn from(content: &LedgerContent) -> Self {
        let mut reservations = String::with_capacity(content.reservations.len() * 64);
        for reservation in &content.reservations {
            reservations.push_str(&line(reservation));
            reservations.push('\n');
        }
        Self { fence: content.fence.to_string(), reservations }
    }
}

/// `TOKEN SLOT TIME POD GROUP`; the pod is `-` unless it was there already and is moved, and a group's name may have spaces.
fn line(Reservation { assignment, pod, at }: &Reservation) -> String {
    let Assignment { token, slot, group } = assignment;
    let at = Timestamp::from_second(*at).unwrap_or_default();
    format!("{token} {slot} {at} {} {group}", pod.as_deref().unwrap_or("-"))
}

fn parsed(line: &str) -> Option<Reservation> {
    let mut parts = line.splitn(5, ' ');
    let mut next = || parts.next();
    let (token, slot, at, pod, group) = (next()?, next()?, next()?, next()?, next()?);
    let assignment =
        Assignment { token: Token::parse(token)?, slot: slot.parse().ok()?, group: group.into() };
    let pod = (pod != "-").then(|| pod.into());
    Some(Reservation { assignment, pod, at: at.parse().map_or(0, Timestamp::as_second) })
}

impl Spec {
    /// The ledger. A line that can't be read was written by somebody else, and isn't kept.
    pub(super) fn content(&self) -> LedgerContent {
        LedgerContent {
            reservations: self.reservations.lines().filter_map(parsed).collect(),
            fence: self.fence.parse().unwrap_or(0),
        }
    }
}

/// A version as the API server writes it (KEP-5504: resource versions are comparable integers).
pub(super) fn version(text: &str) -> Option<ResourceVersion> {
    text.parse().ok()
}

/// Where the ledgers of a namespace are.
pub(super) fn collection(namespace: &str) -> String {
    format!("{API}/namespaces/{namespace}/{PLURAL}")
}

/// The name of the ledger that `webhook` keeps for this owner.
pub(super) fn name(webhook: &str, owner: &OwnerReference) -> String {
    format!("{webhook}-{}", owner.uid)
}

/// The object that is created: it goes with its owner.
pub(super) fn created(webhook: &str, workload: &Workload, content: &LedgerContent) -> Value {
    let OwnerReference { api_version, kind, name: owner, uid, .. } = &workload.owner;
    json!({
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {
            "name": name(webhook, &workload.owner),
            "namespace": workload.namespace,
            "labels": {PLACED: webhook},
            "ownerReferences": [{"apiVersion": api_version, "kind": kind, "name": owner, "uid": uid}],
        },
        "spec": Spec::from(content),
    })
}

/// What is written over the object, if it stands at this version (RFC 7386).
pub(super) fn changed(version: ResourceVersion, content: &LedgerContent) -> Value {
    json!({"metadata": {"resourceVersion": version.to_string()}, "spec": Spec::from(content)})
}

/// A ledger as its watch shows it: what the leader must look after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The namespace.
    pub namespace: String,
    /// The owner.
    pub owner: OwnerReference,
    /// The object's name.
    pub name: String,
    /// How many places are reserved.
    pub reserved: usize,
    /// What it tells people.
    pub told: Told,
}

impl Standing {
    /// Which ledger it is.
    pub fn ledger(&self) -> LedgerId {
        LedgerId::new(&self.namespace, &self.owner.uid)
    }
}

/// How the workload's pods are distributed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
pub struct Told {
    /// Placed pods of each group, in the order of the groups, as in 8/2.
    #[schemars(length(max = 1024))]
    pub pods: String,
    /// Desired pods of each group, as in 8/2.
    #[schemars(length(max = 1024))]
    pub due: String,
}

/// A ledger, and what is in it.
pub(super) fn standing(object: Object<Spec, Told>) -> Option<(Standing, LedgerContent)> {
    let [owner]: [OwnerReference; 1] = object.metadata.owner_references?.try_into().ok()?;
    let content = object.spec.unwrap_or_default().content();
    let standing = Standing {
        namespace: object.metadata.namespace?,
        owner: owner.coordinates(),
        name: object.metadata.name,
        reserved: content.reservations.len(),
        told: object.status.unwrap_or_default(),
    };
    Some((standing, content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let stamp =
            |token, slot| Assignment { token: Token(token), slot, group: "spot, the large ones".into() };
        let content = LedgerContent {
            reservations: vec![
                Reservation { assignment: stamp(u64::MAX, 7), pod: None, at: 1_700_000_000 },
                Reservation { assignment: stamp(0, 0), pod: Some("web-1".into()), at: 0 },
            ],
            fence: u64::MAX,
        };
        let spec = Spec::from(&content);
        assert_eq!(
            spec.reservations,
            "ffffffffffffffff 7 2023-11-14T22:13:20Z - spot, the large ones\n\
             0000000000000000 0 1970-01-01T00:00:00Z web-1 spot, the large ones\n"
        );
        assert_eq!(serde_json::from_str::<Spec>(&json!(spec).to_string()).unwrap().content(), content);
    }

    #[test]
    fn what_others_wrote_is_survived() {
        for (spec, reserved) in [
            (json!({}), 0),
            (json!({"fence": 7, "reservations": [{"token": "00000000000000ff"}]}), 0),
            (json!({"fence": "x", "reservations": "\n00000000000000ff 3\n00000000000000ff 3 then - \n"}), 1),
            (json!({"reservations": "00000000000000ff -3 then - spot\nff 3 then - spot"}), 0),
        ] {
            let content = serde_json::from_value::<Spec>(spec).unwrap().content();
            assert_eq!((content.fence, content.reservations.len()), (0, reserved));
        }
    }
}

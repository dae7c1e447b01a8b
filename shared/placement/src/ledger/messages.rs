//! The events and effects of a ledger.

use std::time::Duration;

use super::content::{Assignment, LedgerContent, PodName, ResourceVersion, Token};
use super::pods::{PodMap, PodRecord};
use crate::policy::GroupSet;

/// An input of a ledger.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod needs a slot, and its admission request a reply by this time.
    Requested(SlotRequest, Duration),
    /// The caller of this request no longer waits for the reply.
    Cancelled(Token),
    /// Response to [`Call::Read`]; `None`: there is no such object.
    Read(Option<(ResourceVersion, LedgerContent)>),
    /// Response to [`Call::Write`] or [`Call::Delete`]: the object's version now; `None`: it was deleted.
    Written(Option<ResourceVersion>),
    /// Response to [`Call::Write`] or [`Call::Delete`]: the object has another version, or was created or deleted meanwhile.
    Conflict,
    /// A call ended without a response: whether it had an effect is unknown.
    Failed,
    /// Response to [`Call::List`].
    Listed {
        /// The list's version.
        version: ResourceVersion,
        /// All pods of the owner.
        pods: PodMap,
        /// How many pods the owner may have at a time, read after the list; `None`: unknown.
        max_pods: Option<u32>,
    },
    /// A list without a [`Call::List`].
    PodsListed {
        /// The list's version.
        version: ResourceVersion,
        /// All pods of the owner.
        pods: PodMap,
    },
    /// Watch event of the object: its content at this version; `None`: it was deleted at this version.
    ObjectChanged(ResourceVersion, Option<LedgerContent>),
    /// Watch event of a pod.
    PodChanged(PodName, PodRecord),
    /// The watch of pods has restarted. Lists since then are needed to know which pods were deleted.
    WatchRestarted {
        /// The version that it started at.
        version: ResourceVersion,
        /// All pods of the owner with the label of the webhook.
        pods: PodMap,
    },
    /// How many pods the owner may have at a time; `None`: unknown.
    MaxPods(Option<u32>),
    /// Time has passed: the deadline of a request may have come.
    Tick,
    /// Drop reservations that are confirmed or old, resolve duplicate slots, and give slots to pods without one. One replica sends it
    /// to each ledger when something has changed.
    Reconcile,
}

/// A pod that needs a slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotRequest {
    /// The token of the admission request's uid.
    pub token: Token,
    /// The groups that the pod may go to.
    pub fitting: GroupSet,
    /// The pod's assignment, if it agrees with the pod's node selector: from an earlier call, or copied from another pod.
    pub existing: Option<Assignment>,
    /// Whether the request is a dry run: nothing may be written for it.
    pub dry_run: bool,
    /// Whether the pod takes the next slot over time instead of the lowest free one.
    pub over_time: bool,
}

/// An output of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make this call. A ledger has at most one call under way.
    Call(Call),
    /// Reply to the request with this token; if it was sent more than once, to all.
    Reply(Token, SlotReply),
    /// Give the pod this assignment if it still has this version.
    Reassign(PodName, ResourceVersion, Assignment),
}

/// A call of the API server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Read the object.
    Read,
    /// Write the object if it has this version; `None`: create it.
    Write(Option<ResourceVersion>, LedgerContent),
    /// Delete the object if it has this version.
    Delete(ResourceVersion),
    /// List the owner's pods as of this version or later; `None`: the latest, and read the owner after that.
    List(Option<ResourceVersion>),
}

/// The slot of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SlotReply {
    /// The pod gets this assignment.
    Placed(Assignment),
    /// The pod gets this assignment, which another pod may have: the ledger could not be written in time.
    Estimated(Assignment),
    /// The pod keeps the assignment that it has.
    Kept,
    /// Every group that the pod fits into is full.
    Unplaced,
}

/// The time, and how far the watch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// On a monotonic clock of this process.
    pub clock: Duration,
    /// Seconds since 1970, for [`super::Reservation::at`].
    pub wall: i64,
    /// The version of the last event or bookmark of the watch of pods.
    pub watched: ResourceVersion,
}

/// Times and limits of a ledger, the same for all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LedgerConfig {
    /// Age at which a reservation is dropped if a list doesn't contain its pod.
    pub expiry: Duration,
    /// How long a confirmed reservation is kept. By then the watches of the other replicas have delivered its pod, so they need no
    /// list.
    pub settle: Duration,
    /// Minimum time between the starts of two writes, so that a burst of requests shares them.
    pub pause: Duration,
    /// Maximum number of reservations of one ledger.
    pub max_reservations: usize,
    /// Maximum number of pods that get another slot in one write.
    pub max_moves: usize,
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            expiry: Duration::from_mins(1),
            settle: Duration::from_secs(2),
            pause: Duration::from_millis(20),
            max_reservations: 1000,
            max_moves: 64,
        }
    }
}

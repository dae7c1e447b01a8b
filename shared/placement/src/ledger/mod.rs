//! Who holds which slot of one controller's pods: a state machine without I/O.
//!
//! Every replica of a webhook has a [`Ledger`] of each controller whose pods it places. They agree through one stored object
//! ([`LedgerContent`]), written by compare-and-swap, that holds the places given to pods which nobody has seen yet.
//!
//! ```text
//! requests, watch, answers of the API, clock ──▶ Ledger::handle ──▶ reads, writes, answers to requests, stamps on pods
//! ```
//!
//! Promises, and what each rests on:
//!
//! - **A slot is taken** while a live pod that was seen, or a reservation, has it. Who decides has seen pods at least up to
//!   the fence, which rises when a reservation is dropped because its pod was seen: so between being reserved and being
//!   seen no place is ever lost from sight.
//! - **One write at a time**: requests that arrive while one is under way share the next. Who loses waits a moment for the watch
//!   to show what it has lost to, else reads it, and plans again.
//! - **A reservation ends** when its pod was seen; when more pods would be under way than their owner may have (a
//!   controller waits for a whole batch before it begins the next, so that the oldest beyond its number have failed); or
//!   when it has grown old. For the last two a list that began later doesn't show its pod.
//! - **No pod waits in vain**: one that can't be placed in time is placed by what is known here, and may clash.
//! - **Clashes are undone**: of pods with one slot all but one get another slot, of their own group if it has one. When all
//!   pods are there, those that hold other groups' slots, or higher ones than need be, move down to the first of their own:
//!   then scaling down leaves exact shares, whatever came before.
//!
//! What fails is to be reported after a pause: the machine tries again at once.

mod machine;
mod plan;
mod stored;
#[cfg(test)]
mod tests;
mod view;

use std::collections::BTreeMap;
use std::time::Duration;

pub use machine::Ledger;
pub use stored::{Assignment, LedgerContent, PodName, Reservation, ResourceVersion, Token};
pub use view::{PodPlacement, PodRecord, PodState};

use super::policy::GroupSet;

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A pod needs a slot, and its admission request an answer by this time.
    Arrived(SlotRequest, Duration),
    /// A [`Effect::Read`] found this; `None`: there is no such object.
    Read(Option<(ResourceVersion, LedgerContent)>),
    /// The watch of ledgers shows the object as of this version; `None`: it was removed then.
    Noticed(ResourceVersion, Option<LedgerContent>),
    /// A [`Effect::Write`] or [`Effect::Remove`] succeeded, and this is the version now; `None`: it was removed.
    Written(Option<ResourceVersion>),
    /// A write was refused: the object is another by now, or was created or removed meanwhile.
    Conflict,
    /// A call ended without telling whether it did anything.
    Failed,
    /// A [`Effect::List`] found these pods, as of this version.
    Listed {
        /// The list's version.
        version: ResourceVersion,
        /// All pods of the controller.
        pods: BTreeMap<PodName, PodRecord>,
        /// How many pods the owner may have at a time, read after the list was asked for; `None`: nobody knows.
        owner: Option<u32>,
    },
    /// Nobody waits for the answer to this request any more.
    Left(Token),
    /// A list that no [`Effect::List`] asked for found these pods, as of this version.
    Surveyed {
        /// The list's version.
        version: ResourceVersion,
        /// All pods of the controller.
        pods: BTreeMap<PodName, PodRecord>,
    },
    /// The watch began anew, after these pods. (What is gone can't be told without what lists have shown meanwhile.)
    Relisted {
        /// The version that it began at.
        version: ResourceVersion,
        /// All pods of the controller that are marked.
        pods: BTreeMap<PodName, PodRecord>,
    },
    /// The watch says this of a pod.
    Watched(PodName, PodRecord),
    /// The owner may have so many pods at a time; `None`: nobody knows.
    Owner(Option<u32>),
    /// Time has passed: some request's deadline may have come.
    Tick,
    /// Things are to be put in order: what is confirmed or has grown old is dropped, clashes are undone, pods that nobody
    /// placed are given slots. For one replica, now and then, and when something has changed.
    Tend,
}

/// A pod that asks for a place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SlotRequest {
    /// Of the request's uid.
    pub token: Token,
    /// The groups that it may go to.
    pub fitting: GroupSet,
    /// The assignment that it has already, if that agrees with its node selector: from an earlier call, or copied.
    pub existing: Option<Assignment>,
    /// Whether nothing may be written for it.
    pub dry_run: bool,
}

/// What is to be done. At any time one call at most is under way for a ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Read the object.
    Read,
    /// Write the object where it stands at this version; `None`: create it.
    Write(Option<ResourceVersion>, LedgerContent),
    /// Remove the object if it stands at this version.
    Remove(ResourceVersion),
    /// List the controller's pods, no older than this; `None`: as they are now, and read the owner too.
    List(Option<ResourceVersion>),
    /// Answer the request with this token; where several share it, all of them.
    Reply(Token, SlotReply),
    /// Give the pod, if it is still at this version, this place.
    Reassign(PodName, ResourceVersion, Assignment),
}

/// Where a pod goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SlotReply {
    /// To this place.
    Placed(Assignment),
    /// To this place, which may clash: the ledger couldn't be had in time.
    Estimated(Assignment),
    /// The pod keeps the assignment that it has.
    Kept,
    /// Nowhere: every group that it fits into is full.
    Unplaced,
}

/// When it is, and how far the watch has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// On a clock of this process that never goes back.
    pub clock: Duration,
    /// Seconds since 1970, for people.
    pub wall: i64,
    /// The version of the last event or bookmark of the watch of pods.
    pub watched: ResourceVersion,
}

/// Times and limits of a ledger; the same for all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LedgerConfig {
    /// Age at which a reservation is dropped, if a list doesn't have its pod.
    pub expiry: Duration,
    /// How long a confirmed reservation is kept, so that the other replicas' watches have its pod by then
    /// and they needn't list.
    pub settle: Duration,
    /// Least time between the beginnings of two writes, so that a burst of requests shares them.
    pub pause: Duration,
    /// Most reservations of one ledger.
    pub max_reservations: usize,
    /// Most pods that are given another slot in one write.
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

//! The slots of the pods of one owner: a state machine without I/O.
//!
//! Each replica of a webhook has a [`Ledger`] for each owner of placed pods. The replicas agree through one stored object
//! ([`LedgerContent`], `spec` of a Placement), written by compare-and-swap. It has the slots of pods that no list or watch has returned
//! yet.
//!
//! ```text
//! requests, watch events, responses, clock ──▶ Ledger::handle ──▶ calls, replies to requests, patches of pods
//! ```
//!
//! Guarantees and their reasons:
//!
//! - **A slot is taken** while a live pod or a reservation has it. A replica decides only when it knows all pods up to the fence. The fence
//!   rises when a reservation is dropped because its pod was observed, so that each replica knows the pod or the reservation at any time.
//! - **One write at a time**: requests that arrive during a write share the next. After a conflict the replica waits 20 ms for the
//!   watch event of the write that it lost to, or else reads the object, and decides again.
//! - **A reservation ends** when its pod was seen, when more pods are reserved than the owner may have, or when it is old. In the
//!   second case the oldest go first: a controller waits for a whole batch before it begins the next, so that the oldest surplus
//!   reservations are those of pods that failed. In the last two cases a list that began later doesn't have the pod.
//! - **Each request is answered in time**: at its deadline it gets a slot by what this replica knows, which may be taken.
//! - **Duplicate slots are resolved**: all but one of the pods with one slot get another, of their own group if it has one. When all
//!   pods exist, those in slots of other groups, or in higher slots than needed, move down to the first free slots of their own
//!   group, so that scaling down leaves exact shares.
//!
//! The machine tries again at once when a call has failed: report [`Event::Failed`] after a backoff.

mod content;
mod messages;
mod pods;
mod reassign;
mod reservations;
mod state_machine;
#[cfg(test)]
mod tests;

pub use content::{Assignment, LedgerContent, PodName, Reservation, ResourceVersion, Token};
pub use messages::{Call, Effect, Event, LedgerConfig, Now, SlotReply, SlotRequest};
pub use pods::{PodMap, PodPlacement, PodRecord, PodState};
pub use state_machine::Ledger;

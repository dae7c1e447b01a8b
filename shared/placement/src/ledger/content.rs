//! The state that replicas share through the API server.

use std::fmt;

use crate::allocator::Occupancy;
use crate::cycle::Cursor;
use crate::hash::fnv1a;
use crate::policy::{GroupName, Policy};

/// A number that the API server gave a state of the world: `resourceVersion`, which grows with every write
/// (KEP-5504: resource versions are comparable integers).
pub type ResourceVersion = u64;

/// Names one placement for ever: the pod that was placed carries it, and the ledger until that pod was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

impl Token {
    /// The token of what `name` names: an admission request's uid, which is new on each call but constant over the API
    /// server's retries of one, so that a call that was answered already is answered the same by every replica.
    pub fn of(name: &str) -> Self {
        Self(fnv1a(name))
    }

    /// Reads what is printed.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(text, 16).ok().filter(|_| digits).map(Self)
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A pod's place, as the pod carries it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Assignment {
    /// Names this placement.
    pub token: Token,
    /// Its slot.
    pub slot: u32,
    /// Its group.
    pub group: GroupName,
}

impl Assignment {
    /// Takes the slot, and counts the pod in its group.
    pub fn occupy(&self, occupancy: &mut Occupancy, policy: &Policy) {
        occupancy.take_slot(self.slot);
        if let Some(group) = policy.index(&self.group) {
            occupancy.add_pod(group);
        }
    }
}

/// A slot of a pod that no replica has observed yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reservation {
    /// The place.
    pub assignment: Assignment,
    /// The pod's name, where the pod was there already and is moved to this slot.
    pub pod: Option<PodName>,
    /// When it was given, in seconds since 1970 by the clock of who gave it: for people, nothing is decided by it.
    pub at: i64,
}

/// A pod's name.
pub type PodName = std::sync::Arc<str>;

/// The ledger as it is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LedgerContent {
    /// Unconfirmed reservations, the oldest first.
    pub reservations: Vec<Reservation>,
    /// A replica that decides by the ledger must have observed pods up to this version: reservations were dropped because their pods
    /// had been observed.
    pub fence: ResourceVersion,
    /// The slot of the next pod, where pods take slots over time. The write that reserves a slot moves it.
    pub cursor: Cursor,
}

impl LedgerContent {
    /// The tokens of all reservations.
    pub fn tokens(&self) -> impl Iterator<Item = Token> {
        self.reservations.iter().map(|reservation| reservation.assignment.token)
    }

    /// The reservation with this token.
    pub fn reservation(&self, token: Token) -> Option<&Reservation> {
        self.reservations.iter().find(|reservation| reservation.assignment.token == token)
    }
}

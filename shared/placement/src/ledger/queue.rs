//! Pods that wait for a slot: those of admission requests, and those that are to be moved.

use std::time::Duration;

use super::content::{Assignment, PodName, ResourceVersion, Token};
use super::messages::SlotRequest;
use super::pods::PodRecord;
use crate::allocator::{Occupancy, SlotAllocator};
use crate::policy::GroupName;

/// Pods that wait, in order of arrival. No two have the same token.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Queue(Vec<Waiting>);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waiting {
    Request(WaitingRequest),
    Move(Move),
}

/// An admission request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WaitingRequest {
    pub request: SlotRequest,
    pub deadline: Duration,
    /// A read of the object since the request arrived.
    read: Progress,
    /// A list of the pods as they are now, since the request arrived and the object was last read.
    list: Progress,
}

/// How far a call is that must begin after something happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    #[default]
    Due,
    UnderWay,
    Done,
}

/// A pod that is to get another slot.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Move {
    pub token: Token,
    pub pod: PodName,
    /// The version that the pod must still have.
    pub version: ResourceVersion,
    group: GroupName,
    /// The new slot; `None`: any of its group, or else any.
    to: Option<u32>,
}

impl Queue {
    /// Appends a request, unless it waits already.
    pub(super) fn push_request(&mut self, request: SlotRequest, deadline: Duration) {
        if !self.contains(request.token) {
            let (read, list) = (Progress::Due, Progress::Due);
            self.0.push(Waiting::Request(WaitingRequest { request, deadline, read, list }));
        }
    }

    /// Appends moves, but for those that wait already.
    pub(super) fn push_moves(&mut self, moves: impl IntoIterator<Item = Move>) {
        let new: Vec<_> = moves.into_iter().filter(|new| !self.contains(new.token)).collect();
        self.0.extend(new.into_iter().map(Waiting::Move));
    }

    /// Removes the request with this token.
    pub(super) fn cancel(&mut self, token: Token) {
        self.0.retain(|waiting| matches!(waiting, Waiting::Move(_)) || waiting.token() != token);
    }

    /// Removes what waits under this token; whether it was a request.
    pub(super) fn remove(&mut self, token: Token) -> bool {
        let mut removed = self.0.extract_if(.., |waiting| waiting.token() == token);
        matches!(removed.next(), Some(Waiting::Request(_)))
    }

    /// Removes the requests whose deadline has come.
    pub(super) fn take_late(&mut self, clock: Duration) -> Vec<SlotRequest> {
        let late = |waiting: &mut Waiting| waiting.request().is_some_and(|waiting| waiting.deadline <= clock);
        let late = self.0.extract_if(.., late);
        late.filter_map(
            |waiting| if let Waiting::Request(waiting) = waiting { Some(waiting.request) } else { None },
        )
        .collect()
    }

    /// Keeps those for which `keep` is true.
    pub(super) fn retain(&mut self, keep: impl FnMut(&mut Waiting) -> bool) {
        self.0.retain_mut(keep);
    }

    pub(super) fn update_reads(&mut self, update: impl Fn(&mut Progress)) {
        self.requests_mut().for_each(|waiting| update(&mut waiting.read));
    }

    pub(super) fn update_lists(&mut self, update: impl Fn(&mut Progress)) {
        self.requests_mut().for_each(|waiting| update(&mut waiting.list));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn requests(&self) -> impl Iterator<Item = &WaitingRequest> {
        self.0.iter().filter_map(Waiting::request)
    }

    /// Whether something waits under this token.
    pub(super) fn contains(&self, token: Token) -> bool {
        self.0.iter().any(|waiting| waiting.token() == token)
    }

    fn requests_mut(&mut self) -> impl Iterator<Item = &mut WaitingRequest> {
        self.0.iter_mut().filter_map(|waiting| match waiting {
            Waiting::Request(waiting) => Some(waiting),
            Waiting::Move(_) => None,
        })
    }
}

impl Waiting {
    fn token(&self) -> Token {
        match self {
            Self::Request(waiting) => waiting.request.token,
            Self::Move(to_move) => to_move.token,
        }
    }

    fn request(&self) -> Option<&WaitingRequest> {
        match self {
            Self::Request(waiting) => Some(waiting),
            Self::Move(_) => None,
        }
    }
}

impl WaitingRequest {
    /// Whether another replica may have given the pod the assignment that it has since this one read the object.
    pub(super) fn needs_read(&self) -> bool {
        self.request.existing.is_some() && self.read != Progress::Done
    }

    /// Whether the pods were listed since the request arrived.
    pub(super) fn is_listed(&self) -> bool {
        self.list == Progress::Done
    }

    /// Forgets the assignment that the pod has, if the object was read since: the pod was copied from one that has it.
    pub(super) fn forget_copied(&mut self) {
        if self.read == Progress::Done {
            self.request.existing = None;
        }
    }

    /// Whether it stands for one more pod.
    pub(super) fn adds_pod(&self) -> bool {
        !self.request.dry_run
    }
}

impl Progress {
    /// Only a call that begins from now on counts.
    pub(super) fn reset(&mut self) {
        *self = Self::Due;
    }

    pub(super) fn begin(&mut self) {
        if *self == Self::Due {
            *self = Self::UnderWay;
        }
    }

    pub(super) fn end(&mut self, succeeded: bool) {
        if *self == Self::UnderWay {
            *self = if succeeded { Self::Done } else { Self::Due };
        }
    }
}

impl Move {
    /// Moves a pod away from the slot `from`; `None` if its group is unknown.
    pub(super) fn new(pod: &PodName, record: &PodRecord, from: Option<u32>, to: Option<u32>) -> Option<Self> {
        // The same in every replica that finds the pod there, whatever its version: the format must stay.
        let token = Token::of(&format!("{pod}/{from:?}"));
        Some(Self { token, pod: pod.clone(), version: record.version, group: record.group()?.clone(), to })
    }

    /// The new assignment, if its slot is free.
    pub(super) fn assignment(&self, occupancy: &Occupancy, allocator: &SlotAllocator) -> Option<Assignment> {
        let group = allocator.policy().index(&self.group)?;
        let slot = match self.to {
            Some(to) => Some(to).filter(|to| occupancy.is_free(*to))?,
            None => allocator.slot_in(occupancy, group),
        };
        Some(Assignment { token: self.token, slot, group: self.group.clone() })
    }
}

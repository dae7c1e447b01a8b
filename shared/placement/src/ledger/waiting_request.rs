//! An admission request that waits for its slot.

use std::time::Duration;

use super::messages::SlotRequest;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct WaitingRequest {
    pub request: SlotRequest,
    pub deadline: Duration,
    /// A read of the object since the request arrived.
    pub read: Progress,
    /// A list of the pods as they are now, since the request arrived and the object was last read.
    pub list: Progress,
}

/// How far a call is that must begin after something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Progress {
    Due,
    UnderWay,
    Done,
}

impl WaitingRequest {
    pub(super) fn new(request: SlotRequest, deadline: Duration) -> Self {
        Self { request, deadline, read: Progress::Due, list: Progress::Due }
    }

    /// Whether another replica may have given the pod the assignment that it has since this one read the object.
    pub(super) fn needs_read(&self) -> bool {
        self.request.existing.is_some() && self.read != Progress::Done
    }

    /// Whether it is for an additional pod, and the pods were not listed since it arrived.
    pub(super) fn needs_list(&self) -> bool {
        !self.request.dry_run && self.list != Progress::Done
    }
}

impl Progress {
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

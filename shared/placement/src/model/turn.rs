//! What may happen next.

use super::world::{Reply, World};
use crate::ledger::Call;

/// One turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The controller's next pod comes before this replica.
    Arrive(usize),
    /// The call that the replica has under way is executed and answered.
    Serve(usize),
    /// The replica sees the next event of its watch.
    Watch(usize),
    /// The replica's watch of ledgers shows the object as it is, or as it was before its last change.
    Notice(usize, Age),
    /// The pod that this request asked for is stored.
    Persist(usize),
    /// A pod is moved.
    Move(usize),
    /// The replica puts things in order.
    Tend(usize),
    /// The controller removes what is too much.
    ScaleDown,
    /// The pod with this index has done its work.
    Succeed(usize),
    /// What may go wrong.
    Fault(Fault),
}

/// How far a watch of ledgers has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Present,
    Past,
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The replica dies, and another takes its place.
    Crash(usize),
    /// The replica dies when its write has been executed, before it knows.
    CrashAfterWrite(usize),
    /// The call is executed, and its answer is lost.
    LoseAnswer(usize),
    /// The write seems to fail, and may be executed later.
    Delay(usize),
    /// The list is executed, and its answer comes later.
    SlowList(usize),
    /// A write that seemed to fail is executed.
    LateWrite(usize),
    /// The watch breaks; what happened meanwhile is seen as its result alone.
    Relist(usize),
    /// The pod is refused after it was placed.
    Reject(usize),
    /// The connection breaks, and the request is sent again, to this replica.
    Retry(usize, usize),
    /// The pod with this index is deleted.
    Delete(usize),
    /// A minute passes: who waits is answered, and the controller gives up what isn't stored yet.
    Minute,
    /// The ledger is deleted.
    DeleteLedger,
    /// What the controller gave up never comes.
    Vanish(usize),
}

impl World {
    /// What the machinery itself may do next.
    pub(super) fn regular(&self) -> Vec<Action> {
        let replicas = || 0..self.replicas.len();
        let mut actions = Vec::new();
        let ages = || [Age::Present, Age::Past].into_iter();
        let notices = replicas().flat_map(|r| ages().map(move |age| (r, age)));
        actions.extend(
            notices.filter(|(r, age)| self.notice(*r, *age).is_some()).map(|(r, age)| Action::Notice(r, age)),
        );
        actions.extend(replicas().filter(|_| self.batch > 0).map(Action::Arrive));
        actions.extend(replicas().filter(|r| self.replicas[*r].call.is_some()).map(Action::Serve));
        actions.extend(replicas().filter(|r| self.replicas[*r].seen < self.log.len()).map(Action::Watch));
        actions.extend(
            (0..self.creations.len()).filter(|i| self.creations[*i].reply != Reply::Due).map(Action::Persist),
        );
        actions.extend((0..self.moves.len()).map(Action::Move));
        actions.extend((self.settled() && self.live() > self.wanted).then_some(Action::ScaleDown));
        actions
    }

    /// What may go wrong next, with at most so many pods that are late at once.
    pub(super) fn faults(&self, most_late: usize) -> Vec<Fault> {
        let replicas = || 0..self.replicas.len();
        let writing = |r: &usize| matches!(self.replicas[*r].call, Some(Call::Write(..)));
        let creations = || 0..self.creations.len();
        let mut faults = Vec::new();
        faults.extend(replicas().map(Fault::Crash));
        faults.extend(replicas().filter(writing).flat_map(|r| [Fault::CrashAfterWrite(r), Fault::Delay(r)]));
        faults.extend(replicas().filter(|r| self.replicas[*r].call.is_some()).map(Fault::LoseAnswer));
        let listing = |r: &usize| {
            matches!(self.replicas[*r].call, Some(Call::List(_))) && self.replicas[*r].found.is_none()
        };
        faults.extend(replicas().filter(listing).map(Fault::SlowList));
        faults.extend(replicas().filter(|r| self.replicas[*r].seen + 1 < self.log.len()).map(Fault::Relist));
        faults.extend(creations().filter(|i| self.creations[*i].reply != Reply::Due).map(Fault::Reject));
        let unanswered = creations().filter(|i| self.creations[*i].reply == Reply::Due);
        faults.extend(unanswered.flat_map(|i| replicas().map(move |r| Fault::Retry(i, r))));
        faults.extend((0..self.pods.len()).map(Fault::Delete));
        let late = self.creations.len();
        faults.extend((late > 0 && late <= most_late).then_some(Fault::Minute));
        faults.extend(self.ledger.is_some().then_some(Fault::DeleteLedger));
        faults
    }

    /// What was begun by a fault and is still to end.
    pub(super) fn loose_ends(&self) -> Vec<Fault> {
        let given_up = (0..self.creations.len()).filter(|i| self.creations[*i].given_up).map(Fault::Vanish);
        (0..self.late_writes.len()).map(Fault::LateWrite).chain(given_up).collect()
    }
}

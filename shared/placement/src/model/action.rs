//! The actions in a modelled world. Numbers are indexes: of a replica, an admission, a pod.

/// One step of a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The controller creates its next pod; this replica admits it.
    Create(usize),
    /// The API server executes the replica's call and responds.
    Respond(usize),
    /// The replica receives the next event of its watch of pods.
    WatchPod(usize),
    /// The replica receives an event of its watch of the ledger.
    WatchLedger(usize, Age),
    /// The API server stores the pod of this admission.
    Store(usize),
    /// A pod gets another assignment.
    Reassign(usize),
    /// The replica reconciles the ledger.
    Reconcile(usize),
    /// The controller deletes a surplus pod.
    ScaleDown,
    /// The pod has completed.
    Succeed(usize),
    Fault(Fault),
}

/// Which state of the ledger a watch event has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Current,
    /// Before the last change.
    Previous,
}

/// Faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The replica stops, and a new one starts.
    Crash(usize),
    /// The same, after its write was executed.
    CrashAfterWrite(usize),
    /// The call is executed, and its response is lost.
    LoseResponse(usize),
    /// The write fails, and may still be executed later.
    DelayWrite(usize),
    /// The list is executed, and its response arrives later.
    DelayList(usize),
    /// A delayed write is executed.
    ExecuteDelayedWrite(usize),
    /// The watch of pods breaks and starts anew.
    RestartWatch(usize),
    /// Another admission plugin refuses the pod.
    Refuse(usize),
    /// The connection breaks, and the API server sends the request to this replica again.
    Retry(usize, usize),
    /// Someone deletes the pod.
    DeletePod(usize),
    /// A minute passes: the deadlines of requests come, and the controller abandons pods that aren't stored.
    PassMinute,
    /// Someone deletes the ledger.
    DeleteLedger,
    /// A pod that the controller has abandoned is never stored.
    DropAbandoned(usize),
}

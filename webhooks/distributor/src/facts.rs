//! What decisions are made by, besides the pod.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use podshaper::placement::ledger::{Answer, Stamp, Token};
use podshaper::placement::owners::{Chain, Looked, OwnerRef};
use podshaper::placement::policy::GroupSet;

use crate::distributor::{Distributor, Plan};

/// A cluster, or files that stand for one.
///
/// What waits never does so past `deadline`.
pub trait Facts: Send + Sync + 'static {
    /// The distributors of a namespace.
    fn distributors(&self, namespace: &str) -> Vec<Arc<Distributor>>;
    /// What is where an owner should be.
    fn owner(
        &self,
        namespace: &str,
        owner: &OwnerRef,
        deadline: Instant,
    ) -> impl Future<Output = Looked> + Send;
    /// The groups that have a node which could take a pod with these owners. (Call it without the lock of the rules: ledgers
    /// take it while they hold their own.)
    fn available(&self, chain: &Chain, plan: &Plan) -> GroupSet;
    /// A place for a pod; none where nobody can tell.
    fn place(&self, pod: Asking<'_>, deadline: Instant) -> impl Future<Output = Option<Answer>> + Send;
    /// Hears of each pod that a distributor governs.
    fn heard(&self, _distributor: &Distributor, _outcome: Outcome) {}
    /// What to say about a pod that stands for many, being of a template.
    fn hint(&self) -> Option<&'static str> {
        None
    }
    /// Why nothing can be decided yet, if so.
    fn not_ready(&self) -> Option<String> {
        None
    }
}

/// A pod that asks for a place.
#[derive(Debug)]
pub struct Asking<'r> {
    /// Its namespace.
    pub namespace: &'r str,
    /// Its owners.
    pub chain: &'r Chain,
    /// Who goes where.
    pub plan: &'r Plan,
    /// Of the request's uid.
    pub token: Token,
    /// The groups that it may go to.
    pub fitting: GroupSet,
    /// What it bears already, if that is of its owner and agrees with its node selector.
    pub bears: Option<Stamp>,
    /// Whether nothing is going to be stored.
    pub dry_run: bool,
}

/// What became of a pod that a distributor governs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was placed.
    Placed,
    /// It was placed without the ledger.
    Estimated,
    /// It had its place already.
    Kept,
    /// Every group that it fits into is full.
    Full,
    /// Its own selectors allow none of the groups.
    Unfitting,
    /// The distributor makes no sense.
    Invalid,
    /// Something couldn't be read in time.
    Undecided,
}

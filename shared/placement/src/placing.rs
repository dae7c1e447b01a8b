//! A pod that is created gets its place: what every webhook does that places pods, once it knows by whose rules.

use std::future::Future;
use std::time::Instant;

use super::ledger::{Answer, Stamp, Token};
use super::marks::{self, Marks};
use super::ordinal;
use super::owners::{Chain, Owner};
use super::policy::GroupSet;
use super::rules::{SharedRules, locked};
use podshaper_core::admission::{Decision, Request};
use podshaper_core::lookup::Lookup;
use podshaper_core::owner_reference::OwnerReference;
use podshaper_core::pod::{Pod, PodPatch};

/// A cluster, or files that stand for one.
///
/// What waits never does so past `deadline`.
pub trait Surroundings: Send + Sync + 'static {
    /// What is where an owner should be.
    fn owner(
        &self,
        namespace: &str,
        owner: &OwnerReference,
        deadline: Instant,
    ) -> impl Future<Output = Lookup<Owner>> + Send;
    /// A place for a pod; none where nobody can tell.
    fn place(&self, pod: Asking<'_>, deadline: Instant) -> impl Future<Output = Option<Answer>> + Send;
}

/// A pod that asks for a place.
#[derive(Debug)]
pub struct Asking<'r> {
    /// Its namespace.
    pub namespace: &'r str,
    /// Its owners.
    pub chain: &'r Chain,
    /// Who goes where.
    pub rules: &'r SharedRules,
    /// Of the request's uid.
    pub token: Token,
    /// The groups that it may go to.
    pub fitting: GroupSet,
    /// What it bears already, if that is of its owner and agrees with its node selector.
    pub bears: Option<Stamp>,
    /// Whether nothing is going to be stored.
    pub dry_run: bool,
}

/// What became of a pod that somebody's rules govern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was placed.
    Placed,
    /// It was placed without the ledger.
    Estimated,
    /// It had its place already.
    Kept,
    /// Another webhook has placed it.
    Superseded,
    /// Every group that it fits into is full.
    Full,
    /// Its own selectors allow none of the groups.
    Unfitting,
    /// The rules make no sense.
    Invalid,
    /// Something couldn't be read in time.
    Undecided,
}

impl Outcome {
    /// The label of metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Placed => "placed",
            Self::Estimated => "estimated",
            Self::Kept => "kept",
            Self::Superseded => "superseded",
            Self::Full => "full",
            Self::Unfitting => "unfitting",
            Self::Invalid => "invalid",
            Self::Undecided => "undecided",
        }
    }
}

/// Why a pod gets no place, and what its creator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// In a word.
    pub outcome: Outcome,
    /// For people.
    pub reason: String,
}

impl Refusal {
    /// A refusal.
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self { outcome, reason: reason.into() }
    }

    /// The pod is admitted as it is; `told` is what is said of that.
    pub fn decision(&self, told: String) -> Decision {
        match self.outcome {
            // It was decided about, by another.
            Outcome::Superseded => Decision::unchanged().with_warnings([told]),
            _ => Decision::undecided(told),
        }
    }
}

/// By whose rules a pod is placed.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'r> {
    /// The webhook: the value of [`marks::PLACED`].
    pub webhook: &'static str,
    /// Who goes where.
    pub rules: &'r SharedRules,
    /// The groups that take pods now. Where the pod fits into none of them, or they are full, all count.
    pub open: GroupSet,
}

/// Finds the pod of `request`, whose owners `chain` are, a place by these terms. The patch is empty where it has it already.
pub async fn place<'p, 'a>(
    surroundings: &impl Surroundings,
    request: &Request<'_, impl Sync>,
    pod: &'p Pod<'a>,
    chain: &Chain,
    terms: Terms<'_>,
    deadline: Instant,
) -> Result<(Outcome, PodPatch<'p, 'a>), Refusal> {
    let Terms { webhook, rules, open } = terms;
    if pod.is_bound() {
        let reason = "the pod says itself which node it runs on: it isn't placed";
        return Err(Refusal::new(Outcome::Unfitting, reason));
    }
    let owner = chain.sharer().map(|(owner, _)| &*owner.uid).unwrap_or_default();
    let its_own = pod.annotation(marks::OWNER) == Some(owner);
    if let Some(other) = marks::placed_by(pod).filter(|other| its_own && other != webhook) {
        return Err(Refusal::new(Outcome::Superseded, format!("{other} has placed the pod: that counts")));
    }
    let (fitting, borne) = {
        let rules = locked(rules);
        (marks::fitting(pod, rules.policy()), marks::borne(pod, rules.policy()))
    };
    if fitting.is_empty() {
        let reason = "the pod's own node selector and affinity leave none of the groups: it isn't placed";
        return Err(Refusal::new(Outcome::Unfitting, reason));
    }
    let bears = borne.filter(|_| its_own);
    let dry_run = request.dry_run == Some(true);
    // That of a dry run names nothing: nothing is stored under it, and two of them are answered alike.
    let token = Token::of(&request.uid);
    let named = if dry_run { Token(0) } else { token };
    let find = async |fitting| {
        let bears = bears.clone();
        if let Some(slot) = ordinal::slot(pod, request.name.as_deref(), chain) {
            return Some(numbered(slot, named, rules, fitting, bears));
        }
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let asking = Asking { namespace, chain, rules, token, fitting, bears, dry_run };
        surroundings.place(asking, deadline).await
    };
    let open = fitting.and(open);
    let mut answer = if open.is_empty() { Some(Answer::Unplaced) } else { find(open).await };
    // It waits for a group that takes no pods now, rather than go anywhere; and when this request came for the first time it may have
    // been given a place there, which its ledger remembers.
    if matches!(answer, None | Some(Answer::Unplaced)) && open != fitting {
        answer = find(fitting).await;
    }
    let unknown = "its ledger can't be had: the pod isn't placed";
    let answer = answer.ok_or_else(|| Refusal::new(Outcome::Undecided, unknown))?;
    let mut patch = PodPatch::new(pod);
    let (stamp, outcome) = match answer {
        Answer::Kept => return Ok((Outcome::Kept, patch)),
        Answer::Unplaced => {
            let reason = "every group that the pod fits into is full: it isn't placed";
            return Err(Refusal::new(Outcome::Full, reason));
        }
        Answer::Placed(stamp) => (stamp, Outcome::Placed),
        Answer::Estimated(stamp) => (stamp, Outcome::Estimated),
    };
    let rules = locked(rules);
    let policy = rules.policy();
    let group = policy.index(&stamp.group).and_then(|index| policy.groups().get(index)).ok_or_else(|| {
        let reason = format!("group {} is no more: the pod isn't placed", stamp.group);
        Refusal::new(Outcome::Undecided, reason)
    })?;
    let stamp = Stamp { token: named, ..stamp };
    let estimated = outcome == Outcome::Estimated;
    let controller = chain.controller().map(|(controller, _)| &*controller.uid).filter(|uid| *uid != owner);
    marks::place(&mut patch, group, &Marks { stamp: &stamp, owner, controller, estimated, webhook });
    Ok((outcome, patch))
}

/// The place that a pod's number tells.
fn numbered(slot: u32, token: Token, rules: &SharedRules, fitting: GroupSet, bears: Option<Stamp>) -> Answer {
    if bears.is_some_and(|bears| bears.slot == slot) {
        return Answer::Kept;
    }
    let mut rules = locked(rules);
    let Some(group) = rules.numbered(slot, fitting) else { return Answer::Unplaced };
    match rules.policy().groups().get(group) {
        Some(group) => Answer::Placed(Stamp { token, slot, group: group.name.clone() }),
        None => Answer::Unplaced,
    }
}

/// Whether it is the pod of a template, whose owner nobody has read or has a name for yet.
pub fn is_template(pod: &Pod<'_>, name: Option<&str>) -> bool {
    name.is_none() && pod.controller().is_none_or(|owner| owner.uid.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::policy::{Group, Policy, Tie};
    use crate::rules::Rules;

    /// A ledger that has given this request a place in the second group.
    struct Remembers;

    impl Surroundings for Remembers {
        async fn owner(&self, _: &str, _: &OwnerReference, _: Instant) -> Lookup<Owner> {
            Lookup::NotFound
        }

        async fn place(&self, pod: Asking<'_>, _: Instant) -> Option<Answer> {
            let stamp = Stamp { token: pod.token, slot: 7, group: "spot".into() };
            pod.fitting.contains(1).then_some(Answer::Placed(stamp))
        }
    }

    #[tokio::test]
    async fn a_call_that_is_sent_twice_is_answered_alike_though_its_group_has_no_node_meanwhile() {
        let group = |name: &str| Group {
            name: name.into(),
            node_labels: BTreeMap::from([("type".to_owned(), name.to_owned())]),
            weight: 1,
            ..Group::default()
        };
        let policy = Policy::new(["default", "spot"].map(group).into(), Tie::First).unwrap();
        let rules = Arc::new(Mutex::new(Rules::new(policy)));
        let request = serde_json::json!({
            "uid": "a", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE",
            "object": {"metadata": {}, "spec": {"containers": []}},
        });
        let request = request.to_string();
        let request: Request<'_, Pod<'_>> = serde_json::from_str(&request).unwrap();
        let pod = request.object.as_ref().unwrap();
        let terms = Terms { webhook: "webhook", rules: &rules, open: [0].into_iter().collect() };
        let deadline = Instant::now() + Duration::from_secs(1);
        let placed = place(&Remembers, &request, pod, &Chain::from(None), terms, deadline).await;
        assert_eq!(placed.unwrap().0, Outcome::Placed);
    }
}

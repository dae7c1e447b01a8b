//! The webhook: from a pod to its place.

use std::time::Instant;

use podshaper::admission::{Decision, Request, Webhook};
use podshaper::placement::distribution::WhenUnavailable;
use podshaper::placement::ledger::{Answer, Stamp, Token};
use podshaper::placement::marks::{self, Marks};
use podshaper::placement::owners::{Chain, End};
use podshaper::placement::policy::GroupSet;
use podshaper::placement::rules::locked;
use podshaper::pod::{Pod, PodPatch};

use crate::distributor::{Distributor, Plan, governing};
use crate::facts::{Asking, Facts, Outcome};
use crate::ordinal;

/// The webhook's name, on pods and in ledgers.
pub(crate) const WEBHOOK: &str = "distributor";
/// How the original marks pods.
const MUTATED_BY: (&str, &str) = ("mutated-by", "spread-webhook-service");

/// The distributor webhook.
#[derive(Debug)]
pub struct PodDistribution<F> {
    facts: F,
}

/// Why a pod gets no place, and what its creator is told.
type Refusal = (Outcome, String);

impl<F: Facts> PodDistribution<F> {
    /// A webhook that decides by these facts.
    pub fn new(facts: F) -> Self {
        Self { facts }
    }

    /// Decides about one request.
    pub async fn decide(&self, request: &Request<'_, Pod<'_>>, deadline: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let distributors = self.facts.distributors(namespace);
        if distributors.is_empty() {
            return Decision::unchanged();
        }
        if let Some(hint) = self.facts.hint().filter(|_| is_template(pod, request.name.as_deref())) {
            return Decision::unchanged().with_warnings([format!("distributor: {hint}")]);
        }
        let mut chain = Chain::of(pod);
        let distributor = loop {
            if let Some(distributor) = governing(&distributors, &chain) {
                break distributor;
            }
            let Some(owner) = chain.wants() else {
                let about = |distributor: &Distributor| {
                    chain.unread().is_some_and(|unread| distributor.is_about(unread))
                };
                return ungoverned(&chain, distributors.iter().any(|distributor| about(distributor)));
            };
            let found = self.facts.owner(namespace, owner, deadline).await;
            chain.looked(found);
        };
        let decided = self.place(request, pod, namespace, &chain, distributor, deadline).await;
        let (outcome, decision) = decided.unwrap_or_else(|(outcome, reason)| {
            let told = format!("distributor: PodDistributor {}: {reason}", distributor.name);
            (outcome, Decision::undecided(told))
        });
        self.facts.heard(distributor, outcome);
        decision
    }

    async fn place(
        &self,
        request: &Request<'_, Pod<'_>>,
        pod: &Pod<'_>,
        namespace: &str,
        chain: &Chain,
        distributor: &Distributor,
        deadline: Instant,
    ) -> Result<(Outcome, Decision), Refusal> {
        let plan = distributor
            .plan
            .as_ref()
            .map_err(|error| (Outcome::Invalid, format!("{error}: the pod isn't placed")))?;
        let owner = chain.sharer().map(|(owner, _)| &*owner.uid).unwrap_or_default();
        let dry_run = request.dry_run == Some(true);
        let fitting = self.fitting(pod, chain, plan)?;
        let borne = marks::borne(pod, locked(&plan.rules).policy());
        let bears = borne.filter(|_| pod.annotation(marks::OWNER) == Some(owner));
        // That of a dry run names nothing: nothing is stored under it, and two of them are answered alike.
        let token = Token::of(&request.uid);
        let named = if dry_run { Token(0) } else { token };
        let answer = if let Some(slot) = ordinal::slot(pod, request.name.as_deref(), chain) {
            numbered(slot, named, plan, fitting, bears)
        } else {
            let asking = Asking { namespace, chain, plan, token, fitting, bears, dry_run };
            let answer = self.facts.place(asking, deadline).await;
            answer.ok_or_else(|| {
                (Outcome::Undecided, "its ledger can't be had: the pod isn't placed".to_owned())
            })?
        };
        let (stamp, outcome) = match answer {
            Answer::Kept => return Ok((Outcome::Kept, Decision::unchanged())),
            Answer::Unplaced => {
                let reason = "every group that the pod fits into is full: it isn't placed";
                return Err((Outcome::Full, reason.to_owned()));
            }
            Answer::Placed(stamp) => (stamp, Outcome::Placed),
            Answer::Estimated(stamp) => (stamp, Outcome::Estimated),
        };
        let rules = locked(&plan.rules);
        let policy = rules.policy();
        let group =
            policy.index(&stamp.group).and_then(|index| policy.groups().get(index)).ok_or_else(|| {
                let reason = format!("group {} is no more: the pod isn't placed", stamp.group);
                (Outcome::Undecided, reason)
            })?;
        let stamp = Stamp { token: named, ..stamp };
        let estimated = outcome == Outcome::Estimated;
        let mut patch = PodPatch::new(pod);
        marks::place(&mut patch, group, &Marks { stamp: &stamp, owner, estimated, webhook: WEBHOOK });
        patch.set_annotation(MUTATED_BY.0, MUTATED_BY.1);
        Ok((outcome, Decision::patched(patch.finish())))
    }

    /// The groups that the pod may go to: those that it fits into, and of these, if others may stand in, those with nodes.
    fn fitting(&self, pod: &Pod<'_>, chain: &Chain, plan: &Plan) -> Result<GroupSet, Refusal> {
        let fitting = marks::fitting(pod, locked(&plan.rules).policy());
        if fitting.is_empty() {
            let reason = "the pod's own node selector and affinity leave none of the groups: it isn't placed";
            return Err((Outcome::Unfitting, reason.to_owned()));
        }
        if plan.distribution.when_unavailable == WhenUnavailable::Wait {
            return Ok(fitting);
        }
        let open = fitting.and(self.facts.available(chain, plan));
        Ok(if open.is_empty() { fitting } else { open })
    }
}

/// The place that a pod's number tells.
fn numbered(slot: u32, token: Token, plan: &Plan, fitting: GroupSet, bears: Option<Stamp>) -> Answer {
    if bears.is_some_and(|bears| bears.slot == slot) {
        return Answer::Kept;
    }
    let mut rules = locked(&plan.rules);
    let whole = rules.group(slot).filter(|group| fitting.contains(*group));
    let Some(group) = whole.or_else(|| rules.sequence(fitting).group(slot)) else { return Answer::Unplaced };
    match rules.policy().groups().get(group) {
        Some(group) => Answer::Placed(Stamp { token, slot, group: group.name.clone() }),
        None => Answer::Unplaced,
    }
}

/// A pod of no distributor, as far as can be told. `about`: one is about the owner that wasn't read.
fn ungoverned(chain: &Chain, about: bool) -> Decision {
    let Some(owner) = chain.unread() else { return Decision::unchanged() };
    let owner = format!("{} {}", owner.kind, owner.name);
    match chain.end() {
        Some(End::Unknown) => {
            Decision::undecided(format!("distributor: {owner} can't be read: the pod isn't placed"))
        }
        Some(End::Forbidden) if about => Decision::undecided(format!(
            "distributor: {owner} may not be read: the pod isn't placed; the chart's distributor.owners gives the right"
        )),
        _ => Decision::unchanged(),
    }
}

/// Whether it is the pod of a template, whose owner nobody has read or has a name for yet.
fn is_template(pod: &Pod<'_>, name: Option<&str>) -> bool {
    name.is_none() && pod.controller().is_none_or(|owner| owner.uid.is_empty())
}

impl<F: Facts> Webhook for PodDistribution<F> {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, deadline: Instant) -> Decision {
        self.decide(request, deadline).await
    }

    fn not_ready(&self) -> Option<String> {
        self.facts.not_ready()
    }
}

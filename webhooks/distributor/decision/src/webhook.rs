//! The decision about a pod: its `PodDistributor`, and the slot and group that it gets.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Verdict, Webhook};
use podshaper_core::pod::Pod;
use podshaper_placement::admit::{
    Exclusion, PlaceError, PlaceOutcome, PlacePolicy, PlacementBackend, is_template, may_probe, place,
};
use podshaper_placement::annotations::fitting_groups;
use podshaper_placement::ledger::Token;
use podshaper_placement::owners::{ChainEnd, OwnerChain};
use podshaper_placement::policy::{GroupSet, Policy};

use crate::WEBHOOK;
use crate::availability::OpenGroups;
use crate::distributor::{Distributor, govern, govern_by_labels, has_unread_target};
use crate::facts::DistributorFacts;
use crate::volumes::{ExcludedGroups, excluded_groups};

/// The annotation that versprei adds to pods.
const MUTATED_BY: (&str, &str) = ("mutated-by", "spread-webhook-service");

/// The webhook `distributor`.
#[derive(Debug)]
pub struct DistributorWebhook<F> {
    facts: F,
}

impl<F: DistributorFacts> Webhook for DistributorWebhook<F> {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, deadline: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let distributors = self.facts.distributors(namespace);
        if distributors.is_empty() {
            return Decision::unchanged();
        }
        let template_warning = self.facts.template_warning();
        if let Some(warning) = template_warning.filter(|_| is_template(pod, request.name.as_deref())) {
            return Decision::unchanged().with_warnings([format!("{WEBHOOK}: {warning}")]);
        }
        let mut chain = OwnerChain::of_pod(pod);
        let distributor = loop {
            if let Some(distributor) = govern(&distributors, &mut chain) {
                break distributor;
            }
            let Some(owner) = chain.next_to_read() else {
                if let Some(distributor) = govern_by_labels(&distributors, &pod.labels(), &mut chain) {
                    break distributor;
                }
                let decision = without_distributor(&chain, has_unread_target(&distributors, &chain));
                if matches!(decision.verdict, Verdict::Undecided(_)) {
                    self.facts.record(PlaceOutcome::Undecided);
                }
                return decision;
            };
            let owner = self.facts.backend().owner(namespace, owner, deadline).await;
            chain.record_read(owner);
        };
        let placed = self.place(request, pod, &chain, distributor, deadline).await;
        let (outcome, decision) = placed.unwrap_or_else(|error| {
            let warning = format!("{WEBHOOK}: PodDistributor {}: {}", distributor.name, error.reason);
            (error.outcome, error.decision(warning))
        });
        self.facts.record(outcome);
        decision
    }

    fn not_ready(&self) -> Option<String> {
        self.facts.not_ready()
    }
}

impl<F: DistributorFacts> DistributorWebhook<F> {
    /// A webhook that decides by these facts.
    pub fn new(facts: F) -> Self {
        Self { facts }
    }

    /// The open groups that suit the pod, or all groups that suit it if the pod fits into none of those.
    fn suitable_groups(&self, pod: &Pod<'_>, policy: &Policy, open: GroupSet) -> GroupSet {
        let suitable = self.facts.suitable_groups(pod, policy);
        if suitable == policy.all() {
            return open;
        }
        let both = open.intersection(suitable);
        if both.intersection(fitting_groups(pod, policy)).is_empty() { suitable } else { both }
    }

    fn groups_excluded_by_namespace(&self, namespace: &str, policy: &Policy) -> Exclusion {
        let restrictions = self.facts.namespace_restrictions(namespace);
        let groups = restrictions.map(|restrictions| restrictions.excluded_groups(policy));
        let problem = "the annotations of the namespace exclude each group that the pod fits into";
        Exclusion { groups: groups.unwrap_or_default(), problem }
    }

    async fn place(
        &self,
        request: &Request<'_, Pod<'_>>,
        pod: &Pod<'_>,
        chain: &OwnerChain,
        distributor: &Distributor,
        deadline: Instant,
    ) -> Result<(PlaceOutcome, Decision), PlaceError> {
        let invalid =
            |error| PlaceError::new(PlaceOutcome::Invalid, format!("{error}; the pod is not placed"));
        let spec = distributor.spec.as_ref().map_err(invalid)?;
        let with_nodes = || self.facts.groups_with_nodes(distributor, spec, &pod.tolerations());
        let OpenGroups { open, probe } = OpenGroups::of(&distributor.status, spec, with_nodes);
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let by_namespace = self.groups_excluded_by_namespace(namespace, spec.allocator.policy());
        let probe = probe.filter(|probe| !by_namespace.groups.contains(*probe));
        let probe = match probe.filter(|probe| may_probe(request, pod, chain, &spec.allocator, *probe)) {
            Some(probe) => {
                let token = Token::of(&request.uid);
                self.facts.claim_probe(distributor, probe, token, deadline).await.then_some(probe)
            }
            None => None,
        };
        let open = self.suitable_groups(pod, spec.allocator.policy(), open);
        let ExcludedGroups { groups, forbidden } =
            excluded_groups(&self.facts, namespace, pod, spec.allocator.policy(), deadline).await;
        let problem = "the volumes of the pod can be mounted in none of the groups that it fits into";
        let excluded = &[by_namespace, Exclusion { groups, problem }];
        let policy = PlacePolicy { webhook: WEBHOOK, allocator: &spec.allocator, open, probe, excluded };
        let (outcome, mut patch) = place(self.facts.backend(), request, pod, chain, policy, deadline).await?;
        if outcome != PlaceOutcome::Kept {
            patch.set_annotation(MUTATED_BY.0, MUTATED_BY.1);
        }
        let decision = Decision::from(patch.finish());
        Ok((outcome, decision.with_warnings(forbidden.as_deref().map(unread_volume))))
    }
}

fn unread_volume(claim: &str) -> String {
    format!(
        "{WEBHOOK}: reading PersistentVolumeClaim {claim} or its volume is forbidden; the pod may be in a group where the volume can't be \
         mounted. The chart value {WEBHOOK}.owners allows it"
    )
}

/// The decision about a pod for which no distributor was found. `targeted` says whether a distributor may target the owner that was not read,
/// or an owner of that.
fn without_distributor(chain: &OwnerChain, targeted: bool) -> Decision {
    let Some(owner) = chain.unread() else { return Decision::unchanged() };
    let owner = format!("{} {}", owner.kind, owner.name);
    match chain.end() {
        Some(ChainEnd::Unknown) => {
            Decision::undecided(format!("{WEBHOOK}: cannot read {owner}; the pod is not placed"))
        }
        Some(ChainEnd::Forbidden) if targeted => Decision::undecided(format!(
            "{WEBHOOK}: reading {owner} is forbidden; the pod is not placed. The chart value {WEBHOOK}.owners allows it"
        )),
        _ => Decision::unchanged(),
    }
}

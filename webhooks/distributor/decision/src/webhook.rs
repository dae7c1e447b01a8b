//! The webhook: from a pod to its place.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::pod::Pod;
use podshaper_placement::admit::{
    PlaceError, PlaceOutcome, PlacePolicy, PlacementBackend, is_template, place,
};
use podshaper_placement::owners::{ChainEnd, OwnerChain};

use crate::WEBHOOK;
use crate::distributor::{Distributor, governing};
use crate::facts::Facts;
use crate::spec::WhenUnavailable;

/// How the original marks pods.
const MUTATED_BY: (&str, &str) = ("mutated-by", "spread-webhook-service");

/// The distributor webhook.
#[derive(Debug)]
pub struct PodDistribution<F> {
    facts: F,
}

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
        let mut chain = OwnerChain::of_pod(pod);
        let distributor = loop {
            if let Some(distributor) = governing(&distributors, &chain) {
                break distributor;
            }
            let Some(owner) = chain.wants() else {
                let about = |distributor: &Distributor| {
                    chain.unread().is_some_and(|unread| distributor.targets(unread))
                };
                return ungoverned(&chain, distributors.iter().any(|distributor| about(distributor)));
            };
            let found = self.facts.surroundings().owner(namespace, owner, deadline).await;
            chain.looked(found);
        };
        let decided = self.place(request, pod, &chain, distributor, deadline).await;
        let (outcome, decision) = decided.unwrap_or_else(|refusal| {
            let told = format!("distributor: PodDistributor {}: {}", distributor.name, refusal.reason);
            (refusal.outcome, refusal.decision(told))
        });
        self.facts.heard(distributor, outcome);
        decision
    }

    async fn place(
        &self,
        request: &Request<'_, Pod<'_>>,
        pod: &Pod<'_>,
        chain: &OwnerChain,
        distributor: &Distributor,
        deadline: Instant,
    ) -> Result<(PlaceOutcome, Decision), PlaceError> {
        let spec = distributor.spec.as_ref().map_err(|error| {
            PlaceError::new(PlaceOutcome::Invalid, format!("{error}: the pod isn't placed"))
        })?;
        let open = match spec.fields.when_unavailable {
            WhenUnavailable::Wait => spec.allocator.policy().all(),
            WhenUnavailable::UseOthers => self.facts.available(&distributor.namespace, chain, spec),
        };
        let terms = PlacePolicy { webhook: WEBHOOK, allocator: &spec.allocator, open };
        let (outcome, mut patch) =
            place(self.facts.surroundings(), request, pod, chain, terms, deadline).await?;
        if outcome != PlaceOutcome::Kept {
            patch.set_annotation(MUTATED_BY.0, MUTATED_BY.1);
        }
        Ok((outcome, patch.finish().into()))
    }
}

/// A pod of no distributor, as far as can be told. `about`: one is about the owner that wasn't read.
fn ungoverned(chain: &OwnerChain, about: bool) -> Decision {
    let Some(owner) = chain.unread() else { return Decision::unchanged() };
    let owner = format!("{} {}", owner.kind, owner.name);
    match chain.end() {
        Some(ChainEnd::Unknown) => {
            Decision::undecided(format!("distributor: {owner} can't be read: the pod isn't placed"))
        }
        Some(ChainEnd::Forbidden) if about => Decision::undecided(format!(
            "distributor: {owner} may not be read: the pod isn't placed; the chart's distributor.owners gives the right"
        )),
        _ => Decision::unchanged(),
    }
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

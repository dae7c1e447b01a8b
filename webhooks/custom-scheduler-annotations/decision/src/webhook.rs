//! The webhook: from a pod to its place, and from a workload to what is wrong with its strategy.

use std::sync::Arc;
use std::time::Instant;

use podshaper_core::admission::{Decision, Operation, Request, Webhook};
use podshaper_core::pod::Pod;
use podshaper_placement::admit::{PlaceError, PlaceOutcome, PlacePolicy, PlacementBackend, place};
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::owners::{ChainEnd, OwnerChain};
use podshaper_placement::strategy::StrategyError;
use serde_json::value::RawValue;

use crate::WEBHOOK;
use crate::annotations::{
    StrategyAnnotation, StrategySource, knows_sequence, of_owners, set_target, strategy_of,
};
use crate::facts::{Facts, PodOutcome};
use crate::strategies::Strategies;
use crate::workload::Workload;

/// The settings of the administrators.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Namespaces that the webhook ignores, regardless of their labels.
    pub blocklist: Arc<[String]>,
    /// Whether a workload with a bad strategy is refused; else it is warned of.
    pub validate: bool,
}

/// The custom-scheduler-annotations webhook.
#[derive(Debug)]
pub struct Annotated<F> {
    facts: F,
    settings: Settings,
    strategies: Arc<Strategies>,
}

impl<F: Facts> Annotated<F> {
    /// A webhook that decides by these facts.
    pub fn new(facts: F, settings: Settings, strategies: Arc<Strategies>) -> Self {
        Self { facts, settings, strategies }
    }

    async fn decide(&self, request: &Request<'_, &RawValue>, deadline: Instant) -> Decision {
        let Some(object) = request.object.as_deref().copied() else { return Decision::unchanged() };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        let blocked = self.settings.blocklist.iter().any(|blocked| blocked == namespace);
        if request.creates_pod() {
            return match serde_json::from_str::<Pod<'_>>(object.get()) {
                _ if blocked => Decision::unchanged().with_warnings(self.blocked()),
                Ok(pod) => self.pod(request, namespace, &pod, deadline).await,
                Err(error) => Decision::undecided(format!("the pod can't be read: {error}")),
            };
        }
        let whole = request.sub_resource.as_deref().is_none_or(str::is_empty);
        let changes = matches!(request.operation, Operation::Create | Operation::Update);
        if !whole || !changes || &*request.kind.kind == "Pod" || (blocked && !self.facts.explains()) {
            return Decision::unchanged();
        }
        self.workload(request, object, blocked)
    }

    /// The pod's place, where a strategy governs it.
    async fn pod(
        &self,
        request: &Request<'_, &RawValue>,
        namespace: &str,
        pod: &Pod<'_>,
        deadline: Instant,
    ) -> Decision {
        let own = strategy_of(|key| pod.annotation(key)).map(|strategy| (StrategySource::Template, strategy));
        let mut chain = OwnerChain::of_pod(pod);
        // The pod shares the strategy with the other pods of its owner.
        let enough = |chain: &OwnerChain| {
            if own.is_some() { knows_sequence(chain) } else { of_owners(chain).is_some() }
        };
        while let Some(owner) = chain.next_to_read().filter(|_| !enough(&chain)) {
            let found = self.facts.backend().owner(namespace, owner, deadline).await;
            chain.record_read(found);
        }
        let Some((source, strategy)) = own.or_else(|| of_owners(&chain)) else {
            return without_strategy(&chain);
        };
        let place = match source {
            StrategySource::Template => strategy.annotation.to_owned(),
            StrategySource::Owner(owner) => {
                format!("{} of {} {}", strategy.annotation, owner.kind, owner.name)
            }
        };
        let allocator = self.strategies.allocator(strategy.text);
        let mut targeted = chain.clone();
        set_target(&mut targeted, source);
        let placed = match &allocator {
            Ok(allocator) => self.place(request, pod, &targeted, allocator, deadline).await,
            Err(error) => {
                Err(PlaceError::new(PlaceOutcome::Invalid, format!("{error}: the pod isn't placed")))
            }
        };
        let (outcome, reason, decision) = match placed {
            Ok((outcome, decision)) => (outcome, String::new(), decision),
            Err(refusal) => {
                let reason = format!("{place}: {}", refusal.reason);
                let decision = refusal.decision(format!("{WEBHOOK}: {reason}"));
                let shown = allocator.err().map(|error| pointing(&error, strategy)).unwrap_or_default();
                (refusal.outcome, reason, decision.with_warnings(shown))
            }
        };
        let workload = chain.read().last().map(|(owner, _)| owner);
        let dry_run = request.dry_run == Some(true);
        self.facts.record_outcome(&PodOutcome { namespace, workload, outcome, reason: &reason, dry_run });
        decision
    }

    async fn place(
        &self,
        request: &Request<'_, &RawValue>,
        pod: &Pod<'_>,
        chain: &OwnerChain,
        allocator: &Arc<SlotAllocator>,
        deadline: Instant,
    ) -> Result<(PlaceOutcome, Decision), PlaceError> {
        if chain.controller().is_none() {
            return Err(PlaceError::new(
                PlaceOutcome::Undecided,
                format!("{}: the pod isn't placed", unread(chain)),
            ));
        }
        // A group without nodes is open: a waiting pod makes an autoscaler add a node.
        let open = allocator.policy().all();
        let terms = PlacePolicy { webhook: WEBHOOK, allocator, open, probe: None, excluded: &[] };
        let placed = place(self.facts.backend(), request, pod, chain, terms, deadline).await;
        placed.map(|(outcome, patch)| (outcome, patch.finish().into()))
    }

    /// The admission warnings about the strategy of a workload.
    fn workload(&self, request: &Request<'_, &RawValue>, object: &RawValue, blocked: bool) -> Decision {
        let workload = Workload::read(object);
        if workload.is_controlled() {
            return Decision::unchanged();
        }
        let all = workload.strategies();
        let wrong = all
            .iter()
            .filter_map(|strategy| Some((*strategy, self.strategies.allocator(strategy.text).err()?)));
        let wrong: Vec<(StrategyAnnotation<'_>, StrategyError)> = wrong.collect();
        let lines = wrong.iter().flat_map(|(strategy, error)| {
            let first = format!("{WEBHOOK}: {}: {error}", strategy.annotation);
            [first].into_iter().chain(pointing(error, *strategy))
        });
        let lines: Vec<String> = lines.collect();
        // An invalid strategy from before does not refuse other changes, for example of the status or a finalizer.
        let before = request.old_object.as_deref().map(|old| Workload::read(old));
        let is_new = |strategy: &StrategyAnnotation<'_>| {
            before.as_ref().is_none_or(|before| !before.strategies().contains(strategy))
        };
        if self.settings.validate && wrong.iter().any(|(strategy, _)| is_new(strategy)) {
            return Decision::denied(lines.join("\n"));
        }
        let decision = Decision::unchanged().with_warnings(lines);
        match all.first().filter(|_| wrong.is_empty() && self.facts.explains()) {
            Some(_) if blocked => decision.with_warnings(self.blocked()),
            Some(strategy) => decision.with_notes(self.explain(strategy, workload.pods())),
            None => decision,
        }
    }

    /// The warning for an ignored namespace.
    fn blocked(&self) -> Option<String> {
        let warning = || format!("{WEBHOOK}: the namespace is on the blocklist: its pods aren't placed");
        self.facts.explains().then(warning)
    }

    /// The description of a strategy.
    fn explain(&self, strategy: &StrategyAnnotation<'_>, pods: u32) -> Option<String> {
        let allocator = self.strategies.allocator(strategy.text).ok()?;
        let due = allocator.desired(pods);
        let groups = allocator.policy().groups().iter().zip(due);
        let groups: Vec<String> = groups.map(|(group, pods)| format!("{pods} to {}", group.name)).collect();
        let annotation = strategy.annotation;
        Some(format!("{annotation}: of {pods} pods {}; `plan` shows their order", groups.join(", ")))
    }
}

/// A pod without a strategy.
fn without_strategy(chain: &OwnerChain) -> Decision {
    match chain.end() {
        Some(ChainEnd::Unknown) => {
            Decision::undecided(format!("{WEBHOOK}: {}: the pod isn't placed", unread(chain)))
        }
        // Whether the owner has a strategy is unknown.
        Some(ChainEnd::Forbidden) => {
            Decision::unchanged().with_warnings([format!("{WEBHOOK}: {}", unread(chain))])
        }
        _ => Decision::unchanged(),
    }
}

/// Why the chain goes no further.
fn unread(chain: &OwnerChain) -> String {
    let Some(owner) = chain.unread() else { return "the pod has no controller".to_owned() };
    let owner = format!("{} {}", owner.kind, owner.name);
    match chain.end() {
        Some(ChainEnd::Forbidden) => {
            format!("{owner} may not be read; the chart's {WEBHOOK}.owners gives the right")
        }
        Some(ChainEnd::Gone) => format!("{owner} no longer exists"),
        _ => format!("{owner} can't be read"),
    }
}

/// The strategy with a mark below what is wrong, each a line.
fn pointing(error: &StrategyError, strategy: StrategyAnnotation<'_>) -> Vec<String> {
    if strategy.text.is_empty() {
        Vec::new()
    } else {
        error.pointing(strategy.text).map(|line| format!("  {line}")).into()
    }
}

impl<F: Facts> Webhook for Annotated<F> {
    const WORKLOADS: bool = true;

    type Object<'a> = &'a RawValue;

    async fn decide<'a>(&self, request: &Request<'a, &'a RawValue>, deadline: Instant) -> Decision {
        self.decide(request, deadline).await
    }

    fn not_ready(&self) -> Option<String> {
        self.facts.not_ready()
    }
}

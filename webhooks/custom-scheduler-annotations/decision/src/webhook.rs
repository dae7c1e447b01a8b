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
use crate::annotations::{Told, Whose, of_owners, told};
use crate::facts::{Facts, News};
use crate::strategies::Strategies;
use crate::workload::Workload;

/// What is up to the cluster's administrators.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Namespaces that are left alone, whatever their labels.
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
        let own = told(|key| pod.annotation(key)).map(|told| (Whose::Template, told));
        let mut chain = OwnerChain::of_pod(pod);
        // Whatever tells the strategy, the pod shares it with its owner's others.
        let enough = |chain: &OwnerChain| {
            if own.is_some() { chain.controller().is_some() } else { of_owners(chain).is_some() }
        };
        while let Some(owner) = chain.wants().filter(|_| !enough(&chain)) {
            let found = self.facts.surroundings().owner(namespace, owner, deadline).await;
            chain.looked(found);
        }
        let Some((whose, told)) = own.or_else(|| of_owners(&chain)) else { return untold(&chain) };
        let told_by = match whose {
            Whose::Template => told.annotation.to_owned(),
            Whose::Owner(owner) => format!("{} of {} {}", told.annotation, owner.kind, owner.name),
        };
        let allocator = self.strategies.allocator(told.text);
        let placed = match &allocator {
            Ok(allocator) => self.place(request, pod, &chain, allocator, deadline).await,
            Err(error) => {
                Err(PlaceError::new(PlaceOutcome::Invalid, format!("{error}: the pod isn't placed")))
            }
        };
        let (outcome, reason, decision) = match placed {
            Ok((outcome, decision)) => (outcome, String::new(), decision),
            Err(refusal) => {
                let reason = format!("{told_by}: {}", refusal.reason);
                let decision = refusal.decision(format!("{WEBHOOK}: {reason}"));
                let shown = allocator.err().map(|error| pointing(&error, told)).unwrap_or_default();
                (refusal.outcome, reason, decision.with_warnings(shown))
            }
        };
        let workload = chain.read().last().map(|(owner, _)| owner);
        let dry_run = request.dry_run == Some(true);
        self.facts.heard(&News { namespace, workload, outcome, reason: &reason, dry_run });
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
        // Pods wait for nodes that there aren't yet: that is what an autoscaler makes them for.
        let terms = PlacePolicy { webhook: WEBHOOK, allocator, open: allocator.policy().all() };
        let placed = place(self.facts.surroundings(), request, pod, chain, terms, deadline).await;
        placed.map(|(outcome, patch)| (outcome, patch.finish().into()))
    }

    /// What is wrong with a workload's strategy, told to who applies it.
    fn workload(&self, request: &Request<'_, &RawValue>, object: &RawValue, blocked: bool) -> Decision {
        let workload = Workload::read(object);
        if workload.is_controlled() {
            return Decision::unchanged();
        }
        let all = workload.told();
        let wrong = all.iter().filter_map(|told| Some((*told, self.strategies.allocator(told.text).err()?)));
        let wrong: Vec<(Told<'_>, StrategyError)> = wrong.collect();
        let lines = wrong.iter().flat_map(|(told, error)| {
            let first = format!("{WEBHOOK}: {}: {error}", told.annotation);
            [first].into_iter().chain(pointing(error, *told))
        });
        let lines: Vec<String> = lines.collect();
        // What was wrong before is no reason to refuse what else changes: a status, a finalizer.
        let before = request.old_object.as_deref().map(|old| Workload::read(old));
        let is_new = |told: &Told<'_>| before.as_ref().is_none_or(|before| !before.told().contains(told));
        if self.settings.validate && wrong.iter().any(|(told, _)| is_new(told)) {
            return Decision::denied(lines.join("\n"));
        }
        let explained = match all.first().filter(|_| wrong.is_empty() && self.facts.explains()) {
            Some(_) if blocked => self.blocked(),
            Some(told) => self.explain(told, workload.pods()),
            None => None,
        };
        Decision::unchanged().with_warnings(lines.into_iter().chain(explained))
    }

    /// What is said of a namespace that is left alone.
    fn blocked(&self) -> Option<String> {
        let told = || format!("{WEBHOOK}: the namespace is on the blocklist: its pods aren't placed");
        self.facts.explains().then(told)
    }

    /// What a strategy comes to.
    fn explain(&self, told: &Told<'_>, pods: u32) -> Option<String> {
        let allocator = self.strategies.allocator(told.text).ok()?;
        let due = allocator.desired(pods);
        let groups = allocator.policy().groups().iter().zip(due);
        let groups: Vec<String> = groups.map(|(group, pods)| format!("{pods} to {}", group.name)).collect();
        let annotation = told.annotation;
        Some(format!(
            "{WEBHOOK}: {annotation}: of {pods} pods {}; `plan` shows their order",
            groups.join(", ")
        ))
    }
}

/// A pod that nobody's strategy is found for.
fn untold(chain: &OwnerChain) -> Decision {
    match chain.end() {
        Some(ChainEnd::Unknown) => {
            Decision::undecided(format!("{WEBHOOK}: {}: the pod isn't placed", unread(chain)))
        }
        // Whether it says something isn't known.
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
        Some(ChainEnd::Gone) => format!("{owner} is no more"),
        _ => format!("{owner} can't be read"),
    }
}

/// The strategy with a mark below what is wrong, each a line.
fn pointing(error: &StrategyError, told: Told<'_>) -> Vec<String> {
    if told.text.is_empty() {
        Vec::new()
    } else {
        error.pointing(told.text).map(|line| format!("  {line}")).into()
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

//! The policy and configuration of a modelled world, and the mechanism that it does without.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::allocator::SlotAllocator;
use crate::ledger::{Call, Effect, Event, Ledger, LedgerConfig, Now};
use crate::policy::{Group, Policy, Tie};

/// A mechanism that exact placement rests on. The model must find a history that fails without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mechanism {
    /// A replica knows the pods of all dropped reservations before it decides.
    Fence,
    /// Reservations beyond the owner's number of pods are found by a list.
    SurplusCheck,
    /// Pods that share a slot are given others.
    Reassignment,
    /// A group with its maximum of pods takes no more.
    Limit,
}

/// The settings that all replicas of a world share.
#[derive(Debug)]
pub(super) struct Setup {
    pub(super) allocator: SlotAllocator,
    config: LedgerConfig,
    without: Option<Mechanism>,
}

impl Setup {
    /// Groups with these bases and weights, named by their index. Writes follow each other without a pause.
    pub(super) fn new(groups: &[(u32, u32)]) -> Self {
        Self::with_limits(&groups.iter().map(|(base, weight)| (*base, *weight, None)).collect::<Vec<_>>())
    }

    /// Groups with these bases, weights and maxima.
    pub(super) fn with_limits(groups: &[(u32, u32, Option<u32>)]) -> Self {
        let group = |(index, (base, weight, max)): (usize, &(u32, u32, Option<u32>))| Group {
            name: index.to_string().into(),
            node_labels: BTreeMap::from([("group".to_owned(), index.to_string())]),
            base: *base,
            weight: *weight,
            max: *max,
            ..Group::default()
        };
        let policy = Policy::new(groups.iter().enumerate().map(group).collect(), Tie::First).unwrap();
        let config =
            LedgerConfig { settle: Duration::ZERO, pause: Duration::ZERO, ..LedgerConfig::default() };
        Self { allocator: SlotAllocator::new(policy), config, without: None }
    }

    /// The same without one of the mechanisms.
    pub(super) fn without(mut self, mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Reassignment => self.config.max_moves = 0,
            Mechanism::Limit => self.allocator = SlotAllocator::new(self.allocator.policy().without_max()),
            Mechanism::Fence | Mechanism::SurplusCheck => {}
        }
        self.without = Some(mechanism);
        self
    }

    /// The ledger of a replica that has just started.
    pub(super) fn ledger(&self) -> Ledger {
        Ledger::new(self.config)
    }

    /// The effects of the ledger on `event`, without the disabled mechanism.
    pub(super) fn handle(&self, ledger: &mut Ledger, mut event: Event, now: &Now) -> Vec<Effect> {
        if self.without == Some(Mechanism::SurplusCheck)
            && let Event::MaxPods(pods) | Event::Listed { max_pods: pods, .. } = &mut event
        {
            *pods = None;
        }
        let mut effects = ledger.handle(event, &self.allocator, now);
        if self.without == Some(Mechanism::Fence) {
            for effect in &mut effects {
                if let Effect::Call(Call::Write(_, content)) = effect {
                    content.fence = 0;
                }
            }
        }
        effects
    }
}

//! What is known of the pods of all ledgers.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::LedgerId;
use super::driver::{Entry, Ledgers, State};
use super::pods::{Health, Origin};
use podshaper_core::owner_reference::OwnerReference;
use podshaper_placement::allocator::SlotAllocator;
use podshaper_placement::ledger::{PodName, PodRecord};
use podshaper_placement::policy::GroupName;
use podshaper_placement::spread::Spread;

/// What is known of one owner's pods.
#[derive(Clone, Debug)]
pub struct Census {
    /// Whose they are.
    pub ledger: LedgerId,
    /// Where the chain of its pods' owners begins.
    pub origin: Origin,
    /// Its pods that count.
    pub pods: Vec<Counted>,
    /// How many places are reserved for pods that nobody has seen.
    pub reserved: usize,
}

/// One pod of a census.
#[derive(Clone, Debug)]
pub struct Counted {
    /// Its name.
    pub name: PodName,
    /// Its slot, if it was placed.
    pub slot: Option<u32>,
    /// Its group, if that is known.
    pub group: Option<GroupName>,
    /// How it is getting on.
    pub health: Health,
}

impl Census {
    /// How the pods are spread over the groups.
    pub fn spread(&self, allocator: &SlotAllocator) -> Spread {
        let pods = self.pods.iter().map(|pod| (pod.group.as_deref(), pod.health == Health::Ready));
        Spread::of(pods, allocator)
    }
}

impl Ledgers {
    /// What is known of all pods.
    pub fn census(&self) -> Vec<Census> {
        let entries: Vec<_> =
            self.all().iter().map(|(ledger, entry)| (ledger.clone(), Arc::clone(entry))).collect();
        entries.into_iter().filter_map(|(ledger, entry)| entry.lock().census(ledger)).collect()
    }

    /// Groups of this owner's pods of which one has been unschedulable since `before` (seconds since 1970).
    pub fn stuck(&self, namespace: &str, owner: &OwnerReference, before: i64) -> Vec<GroupName> {
        let Some(entry) = self.known(namespace, owner) else { return Vec::new() };
        let state = entry.lock();
        let long = state
            .unready
            .iter()
            .filter(|(_, health)| matches!(health, Health::Unschedulable(since) if *since <= before));
        long.filter_map(|(name, _)| state.ledger.pods().get(name)?.group().cloned()).collect()
    }

    /// Whose pods clash, where nobody has put that in order: all of them were placed without a ledger, and there is none.
    pub(super) fn clashing(&self) -> Vec<Origin> {
        let entries: Vec<_> = self.all().values().map(Arc::clone).collect();
        let clashing = |entry: Arc<Entry>| {
            let state = entry.lock();
            let mut slots = BTreeSet::new();
            let mut stamps = state.ledger.pods().values().filter_map(PodRecord::assignment);
            (state.changed && stamps.any(|stamp| !slots.insert(stamp.slot))).then(|| state.origin.clone())?
        };
        entries.into_iter().filter_map(clashing).collect()
    }
}

impl State {
    fn census(&self, ledger: LedgerId) -> Option<Census> {
        let counted = |(name, pod): (&PodName, &PodRecord)| Counted {
            name: Arc::clone(name),
            slot: pod.assignment().map(|stamp| stamp.slot),
            group: pod.group().cloned(),
            health: self.unready.get(name).copied().unwrap_or(Health::Ready),
        };
        let pods = self.ledger.pods().iter().map(counted).collect();
        Some(Census { ledger, origin: self.origin.clone()?, pods, reserved: self.ledger.reserved() })
    }
}

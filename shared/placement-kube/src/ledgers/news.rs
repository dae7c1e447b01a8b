//! What the watches of pods and of ledgers show, brought to the ledgers that it is about.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::driver::Ledgers;
use super::object;
use super::pods::{Health, Listed, Owned};
use super::{LedgerId, Standing};
use podshaper_placement::ledger::{Event, LedgerContent, PodPlacement, PodRecord, PodState, ResourceVersion};

impl Ledgers {
    /// The watch shows a pod.
    pub(super) fn watched(self: &Arc<Self>, owned: Owned) {
        let Owned { owner, name, pod, health, origin, .. } = owned;
        let entry = self.entry(LedgerId::new(&origin.namespace, &owner));
        let mut state = entry.lock();
        state.changed = true;
        if pod.state != PodState::Gone || state.origin.is_none() {
            // Of a CronJob's Jobs the first are gone.
            state.origin = Some(origin);
        }
        if pod.state == PodState::Gone || health == Health::Ready {
            state.unready.remove(&name);
        } else {
            state.unready.insert(Arc::clone(&name), health);
        }
        self.handle(&entry, &mut state, Event::PodChanged(name, pod));
    }

    /// The watch shows a pod that doesn't belong to this owner, if it ever did.
    pub(super) fn released(self: &Arc<Self>, ledger: &LedgerId, pod: &str, version: ResourceVersion) {
        let Some(entry) = self.all().get(ledger).cloned() else { return };
        let mut state = entry.lock();
        if !state.ledger.pods().contains_key(pod) {
            return;
        }
        state.changed = true;
        state.unready.remove(pod);
        let gone = PodRecord {
            version,
            state: PodState::Gone,
            placement: PodPlacement::Unknown,
            costed: false,
            marked: true,
        };
        self.handle(&entry, &mut state, Event::PodChanged(pod.into(), gone));
    }

    /// The watch of ledgers shows one as of this version; none: it was removed. One that was copied from another isn't its owner's.
    pub(super) fn noticed(
        self: &Arc<Self>,
        standing: &Standing,
        version: ResourceVersion,
        content: Option<LedgerContent>,
    ) {
        let Some(entry) = self.known(&standing.namespace, &standing.owner) else { return };
        if standing.name != object::name(self.webhook(), &standing.owner) {
            return;
        }
        self.handle(&entry, &mut entry.lock(), Event::ObjectChanged(version, content));
    }

    /// The watch began anew, after these pods.
    pub(super) fn relisted(self: &Arc<Self>, version: ResourceVersion, mut all: HashMap<LedgerId, Listed>) {
        let known: Vec<LedgerId> = self.all().keys().cloned().collect();
        for ledger in known {
            all.entry(ledger).or_default();
        }
        for (ledger, Listed { pods, unready, origin, .. }) in all {
            let entry = self.entry(ledger);
            let mut state = entry.lock();
            state.changed = true;
            state.unready = unready;
            state.origin = origin.or_else(|| state.origin.take());
            self.handle(&entry, &mut state, Event::WatchRestarted { version, pods });
        }
        self.reached(version);
        self.filled.store(true, Ordering::Release);
    }

    /// Everything up to this version was told to the ledgers.
    pub(super) fn reached(&self, version: ResourceVersion) {
        self.watched.fetch_max(version, Ordering::AcqRel);
    }
}

//! The API server: the stored ledger, the pods, and what watches show of them.

use std::collections::BTreeMap;

use super::action::Age;
use crate::ledger::{
    Call, Event, LedgerContent, PodName, PodPlacement, PodRecord, PodState, ResourceVersion,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ApiServer {
    pub(super) ledger: Option<(ResourceVersion, LedgerContent)>,
    /// The ledger's versions have a count of their own.
    pub(super) ledger_version: ResourceVersion,
    /// The ledger before its last change.
    pub(super) previous_ledger: Option<(ResourceVersion, Option<LedgerContent>)>,
    pub(super) pods: BTreeMap<PodName, PodRecord>,
    pub(super) pod_version: ResourceVersion,
    /// Watch events of pods, in order.
    pub(super) events: Vec<(PodName, PodRecord)>,
    /// All replicas have received all events up to this version, and the events are not kept.
    pub(super) compacted: ResourceVersion,
}

impl ApiServer {
    pub(super) fn new() -> Self {
        Self {
            ledger: None,
            ledger_version: 0,
            previous_ledger: None,
            pods: BTreeMap::new(),
            pod_version: 1,
            events: Vec::new(),
            compacted: 0,
        }
    }

    /// Executes a call; `max_pods` is what the owner says.
    pub(super) fn execute(&mut self, call: Call, max_pods: u32) -> Event {
        match call {
            Call::Read => Event::Read(self.ledger.clone()),
            Call::Write(version, content) => {
                if self.write(version, content) {
                    Event::Written(Some(self.ledger_version))
                } else {
                    Event::Conflict
                }
            }
            Call::Delete(version) if self.ledger.as_ref().is_some_and(|(at, _)| *at == version) => {
                self.set_ledger(None);
                Event::Written(None)
            }
            Call::Delete(_) => Event::Conflict,
            Call::List(at_least) => {
                // As old as it may be.
                let end = match at_least {
                    Some(version) => {
                        let reached = self.events.iter().position(|(_, pod)| pod.version >= version);
                        reached.map_or(self.events.len(), |last| last + 1)
                    }
                    None => self.events.len(),
                };
                let version = at_least.unwrap_or(self.pod_version);
                let pods = self.snapshot(end);
                Event::Listed { version, pods, max_pods: Some(max_pods) }
            }
        }
    }

    /// Writes the ledger, if it has this version.
    pub(super) fn write(&mut self, version: Option<ResourceVersion>, content: LedgerContent) -> bool {
        let matches = self.ledger.as_ref().map(|(at, _)| *at) == version;
        if matches {
            self.set_ledger(Some(content));
        }
        matches
    }

    pub(super) fn set_ledger(&mut self, content: Option<LedgerContent>) {
        let previous = self.ledger.take().map(|(_, content)| content);
        self.previous_ledger = Some((self.ledger_version, previous));
        self.ledger_version += 1;
        self.ledger = content.map(|content| (self.ledger_version, content));
    }

    /// A watch event of the ledger.
    pub(super) fn ledger_event(&self, age: Age) -> Option<(ResourceVersion, Option<LedgerContent>)> {
        let previous = self.previous_ledger.as_ref()?;
        Some(match age {
            Age::Previous => previous.clone(),
            Age::Current => (self.ledger_version, self.ledger.as_ref().map(|(_, content)| content.clone())),
        })
    }

    pub(super) fn store_pod(&mut self, name: PodName, placement: PodPlacement, state: PodState) {
        self.pod_version += 1;
        let pod = PodRecord { version: self.pod_version, state, placement, costed: false, marked: true };
        self.pods.insert(name.clone(), pod.clone());
        self.events.push((name, pod));
    }

    pub(super) fn delete_pod(&mut self, name: &PodName) {
        self.pod_version += 1;
        let pod = self.pods.remove(name).unwrap();
        self.events
            .push((name.clone(), PodRecord { version: self.pod_version, state: PodState::Gone, ..pod }));
    }

    /// The pods after the first `end` events.
    pub(super) fn snapshot(&self, end: usize) -> BTreeMap<PodName, PodRecord> {
        let mut pods = BTreeMap::new();
        for (name, pod) in &self.events[..end] {
            match pod.state {
                PodState::Gone => pods.remove(name),
                _ => pods.insert(name.clone(), pod.clone()),
            };
        }
        pods
    }

    /// The version of the last of the first `end` events.
    pub(super) fn version_at(&self, end: usize) -> ResourceVersion {
        end.checked_sub(1).map_or(0, |last| self.events[last].1.version).max(self.compacted)
    }

    /// Drops the events, which all replicas have received, but for one of each pod.
    pub(super) fn compact(&mut self) {
        self.events = self.pods.iter().map(|(name, pod)| (name.clone(), pod.clone())).collect();
        self.events.sort_by_key(|(_, pod)| pod.version);
        self.compacted = self.pod_version;
    }

    /// How many pods are active.
    pub(super) fn active(&self) -> usize {
        self.pods.values().filter(|pod| pod.state == PodState::Active).count()
    }

    /// The indexes of active pods among all pods.
    pub(super) fn active_indexes(&self) -> impl Iterator<Item = usize> {
        let pods = self.pods.values().enumerate();
        pods.filter(|(_, pod)| pod.state == PodState::Active).map(|(index, _)| index)
    }
}

//! What the API server does with a replica's calls, and shows to its watch.

use std::collections::BTreeMap;

use super::setup::Setup;
use super::turn::Age;
use super::world::World;
use crate::ledger::{Call, Event, LedgerContent, PodName, PodRecord, PodState, ResourceVersion};

impl World {
    /// Executes the call under way and answers it.
    pub(super) fn serve(&mut self, r: usize, setup: &Setup) -> Result<(), String> {
        let event = self.execute(r);
        self.answered(r, event, setup)
    }

    pub(super) fn answered(&mut self, r: usize, event: Event, setup: &Setup) -> Result<(), String> {
        self.replicas[r].call = None;
        self.replicas[r].found = None;
        self.handle(r, event, setup)
    }

    pub(super) fn execute(&mut self, r: usize) -> Event {
        match self.replicas[r].call.clone().unwrap() {
            Call::Read => Event::Read(self.ledger.clone()),
            Call::Write(version, content) => {
                if self.write(version, content) {
                    Event::Written(Some(self.edition))
                } else {
                    Event::Conflict
                }
            }
            Call::Delete(version) => {
                if self.ledger.as_ref().is_none_or(|(at, _)| *at != version) {
                    return Event::Conflict;
                }
                self.change(None);
                Event::Written(None)
            }
            Call::List(at_least) => {
                // As old as it may be.
                let seen = match at_least {
                    Some(version) => {
                        let reached = self.log.iter().position(|(_, pod)| pod.version >= version);
                        reached.map_or(self.log.len(), |last| last + 1)
                    }
                    None => self.log.len(),
                };
                let now = || (at_least.unwrap_or(self.version), self.snapshot(seen));
                let (version, pods) = self.replicas[r].found.clone().unwrap_or_else(now);
                Event::Listed { version, pods, max_pods: Some(u32::try_from(self.wanted).unwrap()) }
            }
        }
    }

    pub(super) fn write(&mut self, version: Option<ResourceVersion>, content: LedgerContent) -> bool {
        let stands = self.ledger.as_ref().map(|(version, _)| *version);
        let fits = stands == version;
        if fits {
            self.change(Some(content));
        }
        fits
    }

    pub(super) fn change(&mut self, content: Option<LedgerContent>) {
        let before = self.ledger.take().map(|(_, content)| content);
        self.before = Some((self.edition, before));
        self.edition += 1;
        self.ledger = content.map(|content| (self.edition, content));
    }

    /// What the replica's watch of ledgers may show it: news.
    pub(super) fn notice(&self, r: usize, age: Age) -> Option<(ResourceVersion, Option<LedgerContent>)> {
        let before = self.before.as_ref()?;
        let news = match age {
            Age::Past => before.clone(),
            Age::Present => (self.edition, self.ledger.as_ref().map(|(_, content)| content.clone())),
        };
        Some(news).filter(|(version, _)| *version > self.replicas[r].ledger.latest_version())
    }

    /// The version of what the replica's watch has shown it last.
    pub(super) fn watched(&self, r: usize) -> ResourceVersion {
        let seen = self.replicas[r].seen;
        seen.checked_sub(1).map_or(0, |last| self.log[last].1.version).max(self.forgotten)
    }

    /// The pods after so many entries of the log.
    pub(super) fn snapshot(&self, seen: usize) -> BTreeMap<PodName, PodRecord> {
        let mut pods = BTreeMap::new();
        for (name, pod) in &self.log[..seen] {
            match pod.state {
                PodState::Gone => pods.remove(name),
                _ => pods.insert(name.clone(), pod.clone()),
            };
        }
        pods
    }
}

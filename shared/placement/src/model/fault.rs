//! What goes wrong, and what of it nobody can make good.

use std::time::Duration;

use super::setup::Setup;
use super::turn::Fault;
use super::world::{Creation, Reply, World};
use crate::ledger::{Call, Event, Now};

impl World {
    pub(super) fn fail(&mut self, fault: Fault, setup: &Setup) -> Result<(), String> {
        match fault {
            Fault::Crash(r) => self.crash(r, setup),
            Fault::CrashAfterWrite(r) => {
                self.execute(r);
                self.crash(r, setup);
            }
            Fault::LoseAnswer(r) => {
                self.execute(r);
                self.answered(r, Event::Failed, setup)?;
            }
            Fault::Delay(r) => {
                if let Some(Call::Write(version, content)) = self.replicas[r].call.clone() {
                    self.late_writes.push((version, content));
                }
                self.answered(r, Event::Failed, setup)?;
            }
            Fault::SlowList(r) => {
                if let Event::Listed { version, pods, .. } = self.execute(r) {
                    self.replicas[r].found = Some((version, pods));
                }
            }
            Fault::LateWrite(i) => {
                let (version, content) = self.late_writes.remove(i);
                self.write(version, content);
            }
            Fault::Relist(r) => {
                self.replicas[r].seen = self.log.len();
                let (version, pods) = (self.version, self.pods.clone());
                self.handle(r, Event::WatchRestarted { version, pods }, setup)?;
            }
            Fault::Reject(i) => {
                self.creations.remove(i);
                self.control();
            }
            Fault::Retry(i, r) => {
                let Creation { token, existing, .. } = self.creations[i].clone();
                for other in 0..self.replicas.len() {
                    self.handle(other, Event::Cancelled(token), setup)?;
                }
                self.arrive(r, token, existing, setup)?;
            }
            Fault::Delete(i) => {
                let name = self.pods.keys().nth(i).unwrap().clone();
                self.delete(&name);
                // One that nobody replaces leaves a hole.
                self.excused += usize::from(self.live() >= self.wanted);
                self.control();
            }
            Fault::Minute => {
                self.clock += Duration::from_secs(61);
                self.excused += self.creations.len() + self.batch;
                for r in 0..self.replicas.len() {
                    self.handle(r, Event::Tick, setup)?;
                }
                for creation in &mut self.creations {
                    creation.given_up = true;
                }
                self.control();
            }
            Fault::DeleteLedger => {
                let (_, content) = self.ledger.clone().unwrap();
                self.change(None);
                // Reservations are forgotten, and so is how far replicas must have seen. And who had found no ledger before
                // there was one can create it now.
                self.excused += content.reservations.len() + self.lag() + self.creations.len();
            }
            Fault::Vanish(i) => {
                self.creations.remove(i);
            }
        }
        Ok(())
    }

    /// How many pods' events some replica hasn't seen.
    pub(super) fn lag(&self) -> usize {
        self.replicas.iter().map(|replica| self.log.len() - replica.seen).max().unwrap_or(0)
    }

    pub(super) fn crash(&mut self, r: usize, setup: &Setup) {
        let replica = &mut self.replicas[r];
        // Pods whose calls break off are admitted unplaced, but what was reserved for them stands for a while.
        replica.call = None;
        replica.found = None;
        replica.ledger = setup.ledger();
        let now = Now { clock: self.clock, wall: 0, watched: self.watched(r) };
        let known = self.snapshot(self.replicas[r].seen);
        let ledger = &mut self.replicas[r].ledger;
        let wanted = u32::try_from(self.wanted).unwrap();
        setup.handle(ledger, Event::MaxPods(Some(wanted)), &now);
        setup.handle(ledger, Event::WatchRestarted { version: now.watched, pods: known }, &now);
        let mut lost = 0;
        let replicas = &self.replicas;
        for creation in self.creations.iter_mut().filter(|creation| creation.reply == Reply::Due) {
            if replicas.iter().all(|replica| !replica.ledger.awaits(creation.token)) {
                creation.reply = Reply::Unplaced;
                lost += 1;
            }
        }
        self.excused += lost;
    }
}

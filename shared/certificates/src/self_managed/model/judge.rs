//! What has to hold: after each step, after each look of a replica, at each change of a leaf, and at rest.

use std::collections::HashSet;

use super::super::bundle::Bundle;
use super::super::secret::Chain;
use super::world::{Action, CALL, HOLD, HOUR, SKEW, Secret, World};

impl World {
    /// Everything, on the way through `actions` and when it has come to rest.
    pub(super) fn judge_all<'a>(mut self, actions: impl IntoIterator<Item = &'a Action>) {
        for action in actions {
            self.act(action);
            self.judge();
        }
        self.judge_rest();
    }

    /// A change from one leaf to another, on the ground of the caBundles that were `read` then, never takes trust away, whatever others
    /// did.
    pub(super) fn judge_change(&self, before: Option<&Chain>, after: &Chain, then: u64, read: &[Bundle]) {
        let Some(before) = before.filter(|before| !before.leaf.expired(self.now())) else { return };
        if read.iter().all(|bundle| !bundle.contains(&before.ca.der)) {
            // What others took out everywhere is lost already.
            return;
        }
        for lag in [0, HOLD / 2, HOLD - CALL] {
            // In the same second others may have changed them since.
            for bundle in if lag == 0 { read } else { self.seen(then, lag) } {
                assert!(
                    !bundle.contains(&before.ca.der) || bundle.contains(&after.ca.der),
                    "an API server {lag} s late trusts the leaf before, not the one after"
                );
            }
        }
    }

    /// Whoever looks puts back what others took out, if only the Secret knows of a leaf that needs it.
    pub(super) fn judge_sync(&self) {
        let Some(Secret { stored, .. }) = &self.secret else { return };
        let soon = self.now() + SKEW;
        for chain in self.in_service().iter().filter(|chain| !chain.leaf.expired(soon)) {
            // Where the Secret was wiped, all that is told of a CA can be a leaf that has expired.
            let known = stored.authority.iter().any(|authority| authority.certificate == chain.ca)
                || stored.retired.iter().any(|other| other.ca == chain.ca && !other.leaf.expired(soon));
            let stands = self.bundles().iter().all(|bundle| bundle.contains(&chain.ca.der));
            assert!(!known || stands, "a CA in use wasn't put back");
        }
    }

    /// Every leaf in service is trusted by every API server that sees the caBundles within the hold.
    fn judge(&self) {
        let foreign = &self.history[0].1[0].certificates;
        if !self.reset {
            for bundle in self.bundles() {
                assert!(
                    foreign.iter().all(|ca| bundle.contains(&ca.der)),
                    "took out a CA of somebody else's"
                );
            }
            for chain in self.in_service() {
                for lag in [0, HOLD / 2, HOLD] {
                    let seen = self.seen(self.elapsed, lag);
                    // Where no leaf was served there is nothing to break.
                    let nothing = foreign.is_empty() && self.elapsed - self.began <= lag;
                    let trusted = seen.iter().all(|bundle| bundle.contains(&chain.ca.der));
                    assert!(nothing || trusted, "an API server {lag} s late doesn't trust a leaf in service");
                }
            }
        }
    }

    /// Replicas do what they do, undisturbed; returns how much they wrote in the last step.
    fn rest(&mut self, steps: usize, seconds: u64) -> usize {
        let mut last = 0;
        for _ in 0..steps {
            self.act(&Action::Advance(seconds));
            last = self.writes;
            let mut before = usize::MAX;
            while std::mem::replace(&mut before, self.writes) != self.writes {
                for r in 0..self.replicas.len() {
                    self.act(&Action::Sync(r));
                    self.judge();
                }
            }
        }
        self.writes - last
    }

    /// A quiet system comes to one generation, which everyone serves, and then rests.
    fn judge_rest(&mut self) {
        let writes = self.rest(20, 20);
        assert_eq!(writes, 0, "nothing is left to write");
        let stored = self.stored();
        assert!(stored.next.is_none() && stored.rotate.is_none(), "every rotation has ended");
        let (leaf, ca) = (stored.leaf.unwrap().certificate, stored.authority.unwrap().certificate);
        for process in &self.replicas {
            assert_eq!(process.served, Some(Chain { leaf: leaf.clone(), ca: ca.clone() }));
        }
        assert_eq!(self.secret.as_ref().unwrap().object["data"]["foreign"], "eA==");

        // In the end only CAs that are needed are left, and those of others, and those nobody can know.
        self.rest(24, HOUR / 2);
        let stored = self.stored();
        let ours = HashSet::from([stored.authority.unwrap().certificate.der]);
        let foreign = self.history[0].1[0].certificates.len();
        for bundle in self.bundles() {
            assert!(ours.iter().all(|ca| bundle.contains(ca)));
            let most = ours.len()
                + foreign
                + self.orphans
                + stored.retired.len()
                + usize::from(stored.next.is_some());
            assert!(bundle.certificates.len() <= most, "{} > {most}", bundle.certificates.len());
        }
        assert!(stored.retired.len() <= 2, "{}", stored.retired.len());
    }
}

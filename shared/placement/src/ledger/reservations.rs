//! The stored object as one replica knows it, and the status of each reservation in it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::content::{Assignment, LedgerContent, Reservation, ResourceVersion, Token};
use super::messages::LedgerConfig;
use super::pods::PodView;

/// Age of a reservation after which the replica that reconciles has dropped it, unless the API server is unavailable.
const FORGOTTEN: Duration = Duration::from_mins(10);

/// The reservations of a ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reservations {
    object: Object,
    /// The highest known version of the object, which may no longer exist.
    latest: ResourceVersion,
    /// Slots that were given without the ledger, and when.
    estimates: Vec<(Reservation, Duration)>,
    /// The status of each reservation in the object.
    status: BTreeMap<Token, Status>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Status {
    /// When the reservation was first read here.
    first_read: Duration,
    /// At which version its pod was seen, and when.
    confirmed: Option<(ResourceVersion, Duration)>,
    /// Its pod will not be created.
    is_lost: bool,
}

/// The object, as last read or written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Object {
    /// Not read, or changed since.
    #[default]
    Unknown,
    Absent,
    At(ResourceVersion, LedgerContent),
}

impl Reservations {
    /// The object has this content at this version; `None`: there is no object.
    pub(super) fn set(
        &mut self,
        version: ResourceVersion,
        content: Option<LedgerContent>,
        pods: &PodView,
        clock: Duration,
    ) {
        self.latest = self.latest.max(version);
        let mut status = std::mem::take(&mut self.status);
        for token in content.iter().flat_map(LedgerContent::tokens) {
            let new = Status { first_read: clock, confirmed: None, is_lost: false };
            self.status.insert(token, status.remove(&token).unwrap_or(new));
        }
        self.object = content.map_or(Object::Absent, |content| Object::At(version, content));
        for (token, version) in
            pods.pods().values().filter_map(|pod| Some((pod.assignment()?.token, pod.version)))
        {
            self.set_confirmed(token, version, clock);
        }
    }

    /// The object was written: without what was lost, and the token of a lost reservation may have a new slot.
    pub(super) fn clear_lost(&mut self) {
        self.status.values_mut().for_each(|status| status.is_lost = false);
    }

    /// The object has changed, and must be read.
    pub(super) fn invalidate(&mut self) {
        self.object = Object::Unknown;
    }

    /// A pod was seen with this token.
    pub(super) fn confirm(&mut self, token: Token, version: ResourceVersion, clock: Duration) {
        if self.content().is_some() {
            self.set_confirmed(token, version, clock);
        }
        self.estimates.retain(|(estimate, _)| estimate.assignment.token != token);
    }

    fn set_confirmed(&mut self, token: Token, version: ResourceVersion, clock: Duration) {
        if let Some(status) = self.status.get_mut(&token) {
            status.confirmed.get_or_insert((version, clock));
        }
    }

    /// After a list that began at `since`: old reservations without a listed pod are lost.
    ///
    /// No reservation was read while the list was under way, so that each is older than the list.
    pub(super) fn lose_overdue(&mut self, since: Duration, expiry: Duration) {
        let overdue: Vec<_> = self.overdue(since, expiry).collect();
        self.lose(&overdue);
    }

    /// The oldest reservations of new pods are lost.
    pub(super) fn lose_oldest(&mut self, count: usize) {
        let oldest: Vec<_> =
            self.pending_new_pods().take(count).map(|oldest| oldest.assignment.token).collect();
        self.estimates.retain(|(estimate, _)| !oldest.contains(&estimate.assignment.token));
        self.lose(&oldest);
    }

    fn lose(&mut self, tokens: &[Token]) {
        for token in tokens {
            if let Some(status) = self.status.get_mut(token) {
                status.is_lost = true;
            }
        }
    }

    /// Records a slot that the object doesn't have.
    pub(super) fn push_estimate(&mut self, estimate: Reservation, clock: Duration, config: &LedgerConfig) {
        if self.estimates.len() < config.max_reservations {
            self.estimates.push((estimate, clock));
        }
    }

    /// How many slots were given without the object.
    pub(super) fn estimates(&self) -> usize {
        self.estimates.len()
    }

    pub(super) fn expire_estimates(&mut self, clock: Duration, expiry: Duration) {
        self.estimates.retain(|(_, since)| clock < *since + expiry);
    }

    /// The object; `None` if there is none, or it is unknown.
    pub(super) fn content(&self) -> Option<&LedgerContent> {
        match &self.object {
            Object::At(_, content) => Some(content),
            Object::Unknown | Object::Absent => None,
        }
    }

    /// The object's version; `None` if there is none, or it is unknown.
    pub(super) fn version(&self) -> Option<ResourceVersion> {
        match &self.object {
            Object::At(version, _) => Some(*version),
            Object::Unknown | Object::Absent => None,
        }
    }

    pub(super) fn is_unknown(&self) -> bool {
        self.object == Object::Unknown
    }

    pub(super) fn latest(&self) -> ResourceVersion {
        self.latest
    }

    /// The stored assignment of this token, if its pod may still be created.
    pub(super) fn assignment(&self, token: Token) -> Option<&Assignment> {
        let reservation = self.content()?.reservation(token)?;
        let is_lost = self.status.get(&token).is_some_and(|status| status.is_lost);
        (!is_lost).then_some(&reservation.assignment)
    }

    pub(super) fn is_confirmed(&self, token: Token) -> bool {
        self.status.get(&token).is_some_and(|status| status.confirmed.is_some())
    }

    /// Reservations of pods that may still be created and weren't observed yet.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Reservation> {
        self.pending_in(self.content())
    }

    /// Pending reservations of new pods, not of pods that are moved.
    pub(super) fn pending_new_pods(&self) -> impl Iterator<Item = &Reservation> {
        self.pending().filter(|reservation| reservation.pod.is_none())
    }

    /// Pending reservations if this is the object.
    pub(super) fn pending_in<'a>(
        &'a self,
        content: Option<&'a LedgerContent>,
    ) -> impl Iterator<Item = &'a Reservation> {
        let stored = content.map_or(&[][..], |content| &content.reservations);
        let is_pending = |status: &Status| status.confirmed.is_none() && !status.is_lost;
        let pending = stored
            .iter()
            .filter(move |reservation| self.status.get(&reservation.assignment.token).is_none_or(is_pending));
        // A set, because there may be as many estimates as reservations.
        let tokens: BTreeSet<Token> = match self.estimates[..] {
            [] => BTreeSet::new(),
            _ => stored.iter().map(|reservation| reservation.assignment.token).collect(),
        };
        let estimates = self.estimates.iter().map(|(estimate, _)| estimate);
        pending.chain(estimates.filter(move |estimate| !tokens.contains(&estimate.assignment.token)))
    }

    /// Pending reservations that were first read `expiry` or more before `clock`: their pods should exist.
    pub(super) fn overdue(&self, clock: Duration, expiry: Duration) -> impl Iterator<Item = Token> {
        let is_old = move |token: &Token| {
            self.status.get(token).is_some_and(|status| status.first_read + expiry <= clock)
        };
        self.pending().map(|reservation| reservation.assignment.token).filter(is_old)
    }

    /// The object without reservations that are lost or were confirmed long enough ago.
    pub(super) fn unsettled(&self, clock: Duration, config: &LedgerConfig) -> LedgerContent {
        let mut content = self.content().cloned().unwrap_or_default();
        let is_half_full = content.reservations.len() * 2 >= config.max_reservations;
        let is_settled = |since: Duration| is_half_full || since + config.settle <= clock;
        let mut fence = content.fence;
        content.reservations.retain(|reservation| {
            let Some(status) = self.status.get(&reservation.assignment.token) else { return true };
            match status.confirmed {
                Some((version, since)) if is_settled(since) => {
                    fence = fence.max(version);
                    false
                }
                Some(_) => true,
                None => !status.is_lost,
            }
        });
        content.fence = fence;
        content
    }

    /// Whether the ledger can be dropped from memory: all of its reservations are so old that the leader has dropped them.
    pub(super) fn can_be_dropped(&self, clock: Duration) -> bool {
        let estimates = self.estimates.iter().map(|(_, since)| *since);
        let read = self.status.values().map(|status| status.first_read);
        read.chain(estimates).all(|since| since + FORGOTTEN <= clock)
    }
}

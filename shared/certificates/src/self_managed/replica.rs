//! The state machine of one replica. It does no I/O, so tests can drive it through every interleaving.
//!
//! Replicas have no leader. Each reads the Secret and the caBundles, plans, and writes with optimistic concurrency. After a
//! conflict it reads again. The Secret goes through these changes:
//!
//! ```text
//!           PrepareCa                  the hold, with `next` in every caBundle               PromoteCa
//! authority ─────────▶ authority + next ────────────────────────────────────────▶ authority := next, its first leaf
//!     ▲  └─RenewLeaf─▶ a new leaf of the same CA                                  retired   += the old leaf and its CA
//!     └────────────────────────────────────────────────────────────────────────────────────┘
//! ForgetRetired: a retired leaf has expired, and no caBundle contains its CA
//! ```
//!
//! The invariants hold while clocks differ by less than [`BACKDATE`] and API servers see a caBundle within the hold:
//!
//! - A leaf is served only when its CA has been in every caBundle for the hold. Each process measures the hold with its own
//!   monotonic clock, when it promotes a CA and when it switches to a leaf of another CA. A process that serves nothing yet
//!   relies on the process that promoted the CA.
//! - The first CA takes over at once if no caBundle contains another CA, because nothing can break.
//! - A CA stays in every caBundle, and is restored when another writer removes it, until the last leaf that the Secret lists
//!   under it has expired. After the Secret was deleted, replicas list the leaves that they serve. A replica that doesn't
//!   reconcile for a third of a leaf's lifetime isn't waited for.
//! - CAs of other writers are never removed.

use tokio::time::{Duration, Instant};

use super::authority::{BACKDATE, CertificateAuthority, LeafCertificate, WebhookService, seconds};
use super::secret::{CertificateSecret, LeafAndCa, Rotation};
use super::webhook_configuration::WebhookConfiguration;
use crate::ca_hold::CaHold;
use crate::certificate::Certificate;

/// The longest time between two reads.
const RESYNC: Duration = Duration::from_mins(1);
/// No CA rotation starts while as many replaced CAs are trusted, so that the caBundle and the Secret stay small.
const MAX_RETIRED: usize = 8;

/// The durations of a rotation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetimes {
    hold: Duration,
    leaf: Duration,
    ca: Duration,
}

impl Lifetimes {
    /// `hold` is how long a CA is in the caBundles before one of its leaves is served. The error says which flags don't
    /// leave enough time for a rotation.
    pub(crate) fn new(hold: Duration, leaf: Duration, ca: Duration) -> Result<Self, &'static str> {
        if leaf > ca {
            Err("--leaf-lifetime is longer than --ca-lifetime")
        } else if ca / 6 < hold || leaf < Duration::from_secs(10) {
            Err("--ca-lifetime must be at least six times --cert-hold, and --leaf-lifetime at least 10s")
        } else {
            Ok(Self { hold, leaf, ca })
        }
    }
}

/// The Secret and the configuration as a replica has read them.
#[derive(Clone, Copy)]
pub(super) struct Snapshot<'a> {
    secret: &'a CertificateSecret,
    secret_exists: bool,
    configuration: &'a WebhookConfiguration,
    /// The wall clock, in Unix seconds.
    now: i64,
    clock: Instant,
}

impl<'a> Snapshot<'a> {
    /// Without a Secret, the CA of the leaf in service still has to stay trusted.
    pub(super) fn new(
        secret: Option<&'a CertificateSecret>,
        configuration: &'a WebhookConfiguration,
        now: i64,
        clock: Instant,
    ) -> Self {
        static EMPTY: CertificateSecret = CertificateSecret::empty();
        let secret_exists = secret.is_some();
        Self { secret: secret.unwrap_or(&EMPTY), secret_exists, configuration, now, clock }
    }
}

/// An action that the caller takes.
#[derive(Debug)]
pub(super) enum ReplicaAction {
    /// Serve this leaf, which this CA signed.
    Serve(LeafCertificate, Certificate),
    WriteBundles {
        /// By the index of their webhook.
        bundles: Vec<(usize, String)>,
        /// Whether another writer removed a CA that is still needed.
        restores_ca: bool,
    },
    ChangeSecret(SecretChange),
    /// A CA rotation is requested while too many replaced CAs are trusted.
    PostponeRotation,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretChange {
    PrepareCa,
    PromoteCa,
    RenewLeaf,
    ForgetRetired,
}

/// The state of one process.
#[derive(Debug)]
pub(super) struct Replica {
    service: WebhookService,
    lifetimes: Lifetimes,
    served: Option<LeafAndCa>,
    /// Over the CAs that every caBundle contains.
    hold: CaHold,
    /// The uid and generation of the configuration that was read last.
    observed: Option<(String, i64)>,
}

impl Replica {
    pub(super) fn new(service: WebhookService, lifetimes: Lifetimes) -> Self {
        Self { service, lifetimes, served: None, hold: CaHold::new(lifetimes.hold), observed: None }
    }

    /// Returns the actions that follow from `snapshot`, in their order, and the time after which to read again even if
    /// neither object changes.
    pub(super) fn plan(&mut self, snapshot: &Snapshot<'_>) -> (Vec<ReplicaAction>, Duration) {
        let secret = snapshot.secret;
        let mut actions = Vec::new();
        let trusted_before = self.observe(snapshot);
        if let Some((leaf, ca)) = self.leaf_to_serve(snapshot) {
            self.served = Some(LeafAndCa::new(leaf.certificate().clone(), ca.clone()));
            actions.push(ReplicaAction::Serve(leaf.clone(), ca.clone()));
        }
        let required = self.required_cas(snapshot);
        let obsolete = self.obsolete_cas(snapshot, &required);
        let bundles = snapshot.configuration.edited_bundles(&required, &obsolete);
        if !bundles.is_empty() {
            let restores_ca =
                required.iter().any(|ca| trusted_before.contains(ca) && !self.hold.contains(ca));
            actions.push(ReplicaAction::WriteBundles { bundles, restores_ca });
        }
        let full = secret.retired().len() >= MAX_RETIRED;
        if full && secret.rotation() == Some(Rotation::Ca) && secret.next().is_none() {
            actions.push(ReplicaAction::PostponeRotation);
        }
        if snapshot.secret_exists
            && let Some(change) = self.secret_change(snapshot)
        {
            actions.push(ReplicaAction::ChangeSecret(change));
        }
        (actions, self.next_read(snapshot))
    }

    /// Returns the Secret after `change`.
    pub(super) fn apply(
        &self,
        change: SecretChange,
        snapshot: &Snapshot<'_>,
    ) -> Result<CertificateSecret, rcgen::Error> {
        let Snapshot { secret, configuration, now, .. } = *snapshot;
        let Lifetimes { leaf: leaf_lifetime, ca: ca_lifetime, .. } = self.lifetimes;
        let leaf_of = |ca: Option<&CertificateAuthority>| {
            let ca = ca.ok_or(rcgen::Error::CouldNotParseCertificate)?;
            self.service.issue_leaf(ca, now, leaf_lifetime)
        };
        let mut after = secret.clone();
        match change {
            SecretChange::PrepareCa => after.prepare(self.service.issue_ca(now, ca_lifetime)?),
            SecretChange::PromoteCa => after.promote(leaf_of(secret.next())?),
            SecretChange::RenewLeaf => after.renew(leaf_of(secret.authority())?),
            SecretChange::ForgetRetired => after.keep_retired(|retired| !self.is_obsolete(retired, snapshot)),
        }
        // The Secret may not list the leaf in service, because another writer has emptied it.
        let leaf = after.leaf().map(LeafCertificate::certificate);
        if let Some(served) = self.served.as_ref().filter(|served| leaf != Some(served.leaf())) {
            after.retire(served.clone());
        }
        // An expired leaf is kept only until its CA has left the caBundles.
        let current = after.authority().map(|authority| authority.certificate().clone());
        after.keep_retired(|retired| {
            let replaced = Some(retired.ca()) != current.as_ref() && configuration.trusts(retired.ca());
            !retired.leaf().is_expired(now) || secret.retired().contains(retired) || replaced
        });
        Ok(after)
    }

    /// Records the CAs that every caBundle contains, and returns the record before.
    fn observe(&mut self, snapshot: &Snapshot<'_>) -> CaHold {
        let before = self.hold.clone();
        let uid = snapshot.configuration.uid();
        let generation = snapshot.configuration.generation();
        // After more than one change a CA may have been absent in between.
        let in_sequence = self
            .observed
            .as_ref()
            .is_some_and(|(observed, last)| observed == uid && (*last..=last + 1).contains(&generation));
        if !in_sequence {
            self.hold.reset();
        }
        self.observed = Some((uid.to_owned(), generation));
        self.hold.observe(snapshot.configuration.common_cas(), snapshot.clock);
        before
    }

    /// The Secret's leaf, if it isn't served yet and is safe to serve now.
    fn leaf_to_serve<'a>(&self, snapshot: &Snapshot<'a>) -> Option<(&'a LeafCertificate, &'a Certificate)> {
        let Snapshot { secret, configuration, now, clock, .. } = *snapshot;
        let leaf = secret.leaf()?;
        let ca = secret.authority()?.certificate();
        let trusted = self.hold.contains(ca);
        let allowed = match &self.served {
            None => trusted,
            Some(served) if served.leaf() == leaf.certificate() => false,
            Some(served) => {
                let useless = served.leaf().is_expired(now) || !configuration.trusts(served.ca());
                served.ca() == ca || self.hold.is_over(ca, clock) || (trusted && useless)
            }
        };
        (allowed && self.is_usable(leaf, ca, now)).then_some((leaf, ca))
    }

    fn is_usable(&self, leaf: &LeafCertificate, ca: &Certificate, now: i64) -> bool {
        let chain = std::slice::from_ref(leaf.certificate().der());
        !ca.is_expired(now) && ca.verifies(chain, Some(&self.service.host()), now)
    }

    /// The CAs that every caBundle has to contain.
    fn required_cas<'a>(&'a self, snapshot: &Snapshot<'a>) -> Vec<&'a Certificate> {
        let Snapshot { secret, now, .. } = *snapshot;
        let valid = secret.cas().filter(|ca| !ca.is_expired(now));
        let served = secret.retired().iter().chain(&self.served);
        let served = served.filter(|served| !served.leaf().is_expired(now)).map(LeafAndCa::ca);
        let mut required = Vec::new();
        for ca in valid.chain(served) {
            if !required.contains(&ca) {
                required.push(ca);
            }
        }
        required
    }

    /// The CAs of this Service that no caBundle needs: those of expired leaves, and those that have expired themselves.
    fn obsolete_cas<'a>(&self, snapshot: &Snapshot<'a>, required: &[&Certificate]) -> Vec<&'a Certificate> {
        let Snapshot { secret, configuration, now, .. } = *snapshot;
        let complete = self.lists_every_leaf(secret, now);
        let retired = secret.retired().iter().filter(|retired| complete && self.is_past(retired.leaf(), now));
        let subject = required.first().and_then(|ca| ca.subject());
        let expired = configuration
            .cas()
            .filter(|ca| self.is_past(ca, now) && subject.is_some() && ca.subject() == subject);
        retired.map(LeafAndCa::ca).chain(expired).filter(|ca| !required.contains(ca)).collect()
    }

    /// Whether the Secret is old enough for every replica to have listed the leaf that it serves. If another writer emptied
    /// the Secret, the leaf that is listed under a CA may not be the last one before that. (Otherwise a CA is always older
    /// than this when leaves of another CA expire.)
    fn lists_every_leaf(&self, secret: &CertificateSecret, now: i64) -> bool {
        let issued = secret.cas().map(|ca| ca.not_before() + BACKDATE).min();
        issued.is_some_and(|issued| issued + seconds(self.lifetimes.leaf) / 3 + self.skew() <= now)
    }

    /// Whether `certificate` has expired by the clock of every replica, so that replicas don't undo each other's changes.
    fn is_past(&self, certificate: &Certificate, now: i64) -> bool {
        certificate.not_after() + self.skew() <= now
    }

    /// The assumed difference between clocks, in seconds.
    fn skew(&self) -> i64 {
        BACKDATE.min(seconds(self.lifetimes.leaf) / 10)
    }

    fn secret_change(&self, snapshot: &Snapshot<'_>) -> Option<SecretChange> {
        let Snapshot { secret, configuration, now, clock, .. } = *snapshot;
        let is_valid = |ca: &&CertificateAuthority| !ca.certificate().is_expired(now);
        // Clients don't accept a CA from the future, which a wrong clock has issued.
        let authority = secret.authority().filter(|ca| is_valid(ca) && ca.certificate().not_before() <= now);
        let signing = authority.filter(|authority| authority.key().is_some());

        if let Some(next) = secret.next().filter(is_valid) {
            let ca = next.certificate();
            let only_ca = configuration.cas().all(|other| other == ca || other.is_expired(now));
            let is_first = authority.is_none() && self.hold.contains(ca) && only_ca;
            if is_first || self.hold.is_over(ca, clock) {
                return Some(SecretChange::PromoteCa);
            }
        } else {
            let requested = secret.rotation() == Some(Rotation::Ca) && secret.retired().len() < MAX_RETIRED;
            if requested || signing.is_none_or(|authority| renewal_time(authority.certificate()) <= now) {
                return Some(SecretChange::PrepareCa);
            }
        }
        if let Some(authority) = signing {
            let due = |leaf: &LeafCertificate| {
                !self.is_usable(leaf, authority.certificate(), now) || renewal_time(leaf.certificate()) <= now
            };
            if secret.rotation() == Some(Rotation::Leaf) || secret.leaf().is_none_or(due) {
                return Some(SecretChange::RenewLeaf);
            }
        }
        let forget = secret.retired().iter().any(|retired| self.is_obsolete(retired, snapshot));
        forget.then_some(SecretChange::ForgetRetired)
    }

    /// Whether the caBundles need no change because of `retired` any more.
    fn is_obsolete(&self, retired: &LeafAndCa, snapshot: &Snapshot<'_>) -> bool {
        let trusted = snapshot.configuration.trusts(retired.ca());
        self.is_past(retired.leaf(), snapshot.now)
            && (!trusted || self.required_cas(snapshot).contains(&retired.ca()))
    }

    /// The time until the next change that follows from the clock alone.
    fn next_read(&self, snapshot: &Snapshot<'_>) -> Duration {
        let Snapshot { secret, now, clock, .. } = *snapshot;
        let holds = secret.cas().filter_map(|ca| self.hold.remaining(ca, clock));
        let leaf = secret.leaf().map(LeafCertificate::certificate);
        let renewals = secret.cas().chain(leaf).map(renewal_time);
        let ends = secret.retired().iter().map(|retired| retired.leaf().not_after() + self.skew());
        let expiry = self.served.iter().map(|served| served.leaf().not_after());
        let times = renewals.chain(ends).chain(expiry).filter_map(|time| u64::try_from(time - now).ok());
        let waits = holds.chain(times.map(Duration::from_secs)).filter(|wait| !wait.is_zero());
        waits.min().map_or(RESYNC, |wait| wait.min(RESYNC))
    }
}

/// A certificate is renewed after two thirds of its lifetime.
fn renewal_time(certificate: &Certificate) -> i64 {
    let issued = certificate.not_before() + BACKDATE;
    issued + (certificate.not_after() - issued) * 2 / 3
}

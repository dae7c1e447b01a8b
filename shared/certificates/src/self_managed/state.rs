//! What one replica does next, given what it reads: no I/O, so that tests can drive it through every turn.
//!
//! Replicas have no leader. Each reads the Secret and the caBundles, plans, and writes by compare-and-swap; who loses
//! reads again. The Secret goes through these changes:
//!
//! ```text
//!            Prepare                    the hold, with `next` in every caBundle                Promote
//! authority ─────────▶ authority + next ────────────────────────────────────────▶ authority := next, its first leaf
//!     ▲  └─RenewLeaf─▶ a new leaf under the same CA                               retired   += the old leaf and its CA
//!     └────────────────────────────────────────────────────────────────────────────────────┘
//! Forget: a retired leaf has expired, and no caBundle holds its CA any more
//! ```
//!
//! Promises, each of which holds with clocks that differ by less than [`BACKDATE`] and API servers that see a caBundle
//! within the hold:
//!
//! - A leaf is served only when its CA has stood in every caBundle for the hold. Every process measures that by its own
//!   monotonic clock: the one that promotes, and each that changes from a leaf to one under another CA. A process that
//!   serves nothing yet relies on the one that promoted.
//! - At first there is nothing to break: when no caBundle holds another CA, the first one takes over at once.
//! - A CA stays in every caBundle, and is put back if somebody takes it out, until the last leaf under it has expired: the last
//!   that the Secret knows of. Where somebody has deleted the Secret, processes tell it what they serve; one that doesn't look
//!   for a third of a leaf's life isn't waited for.
//! - CAs that aren't ours are never removed.

use tokio::time::{Duration, Instant};

use super::bundle::Bundle;
use super::issue::{Authority, BACKDATE, Leaf, Service, seconds};
use super::secret::{Chain, Rotate, Stored};
use crate::certificate::{Certificate, verify};
use crate::standing::Standing;

/// The longest time between two looks.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
/// With so many replaced CAs still trusted, no operator is given another: the caBundle and the Secret stay small.
const MAX_RETIRED: usize = 8;

#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) service: Service,
    /// How long a CA stands in the caBundles before a leaf under it is served.
    pub(crate) hold: Duration,
    pub(crate) leaf_lifetime: Duration,
    pub(crate) ca_lifetime: Duration,
}

/// What matters of the `MutatingWebhookConfiguration`; without any bundle it is as good as absent.
#[derive(Clone, Debug, Default)]
pub(super) struct Configuration {
    pub(super) uid: String,
    /// Counts the changes of its webhooks.
    pub(super) generation: i64,
    pub(super) bundles: Vec<Bundle>,
}

/// What one process remembers.
#[derive(Debug)]
pub(super) struct Replica {
    settings: Settings,
    served: Option<Chain>,
    standing: Standing,
    seen: Option<(String, i64)>,
}

/// What to do now.
#[derive(Debug)]
pub(super) struct Plan {
    /// Serve this leaf from now on.
    pub(super) serve: Option<(Leaf, Certificate)>,
    /// Give the webhook at this index this caBundle.
    pub(super) bundles: Vec<(usize, String)>,
    /// Whether a CA has to be put back that stood there before.
    pub(super) lost: bool,
    pub(super) change: Option<Change>,
    /// A CA was asked for that can't be given yet.
    pub(super) refused: bool,
    /// Look again after this time, even if nothing seems to have changed.
    pub(super) again: Duration,
}

/// A change of the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Prepare,
    Promote,
    RenewLeaf,
    Forget,
}

impl Replica {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, served: None, standing: Standing::default(), seen: None }
    }

    /// Plans for what was read. Without a Secret (it is missing) whatever is served is kept alive.
    pub(super) fn plan(
        &mut self,
        stored: Option<&Stored>,
        configuration: &Configuration,
        now: i64,
        clock: Instant,
    ) -> Plan {
        let none = Stored::default();
        let (secret, stored) = (stored.is_some(), stored.unwrap_or(&none));
        let stood = self.observe(configuration, clock);
        let serve = self.leaf_to_serve(stored, configuration, now, clock);
        if let Some((leaf, ca)) = &serve {
            self.served = Some(Chain { leaf: leaf.certificate.clone(), ca: ca.clone() });
        }
        let wanted = self.wanted(stored, now);
        let unwanted = self.unwanted(stored, configuration, &wanted, now);
        let edited = |(i, bundle): (usize, &Bundle)| Some((i, bundle.edited(&wanted, &unwanted)?));
        let full = stored.rotate == Some(Rotate::Ca) && stored.retired.len() >= MAX_RETIRED;
        Plan {
            bundles: configuration.bundles.iter().enumerate().filter_map(edited).collect(),
            lost: wanted.iter().any(|ca| stood.contains(&ca.der) && !self.standing.contains(&ca.der)),
            change: if secret { self.change(stored, configuration, now, clock) } else { None },
            refused: full && stored.next.is_none(),
            again: self.again(stored, now, clock),
            serve,
        }
    }

    /// The Secret's content after `change`.
    pub(super) fn apply(
        &self,
        change: Change,
        stored: &Stored,
        configuration: &Configuration,
        now: i64,
    ) -> Result<Stored, rcgen::Error> {
        let Settings { service, leaf_lifetime, ca_lifetime, .. } = &self.settings;
        let mut after = stored.clone();
        let asked = |rotate| stored.rotate.filter(|asked| *asked != rotate);
        match change {
            Change::Prepare => {
                after.next = Some(service.new_authority(now, *ca_lifetime)?);
                after.rotate = asked(Rotate::Ca);
            }
            Change::Promote | Change::RenewLeaf => {
                if change == Change::Promote {
                    after.authority = after.next.take();
                }
                let authority = after.authority.as_ref().ok_or(rcgen::Error::CouldNotParseCertificate)?;
                after.leaf = Some(service.new_leaf(authority, now, *leaf_lifetime)?);
                after.rotate = asked(Rotate::Leaf);
                if let (Some(authority), Some(leaf)) = (&stored.authority, &stored.leaf) {
                    after.retire(Chain { leaf: leaf.certificate.clone(), ca: authority.certificate.clone() });
                }
            }
            Change::Forget => {
                after.retired.retain(|chain| !self.forgettable(chain, stored, configuration, now));
            }
        }
        // What this process serves may be something that the Secret doesn't know, because it was wiped.
        let leaf = after.leaf.as_ref().map(|leaf| &leaf.certificate);
        if let Some(served) = self.served.as_ref().filter(|served| leaf != Some(&served.leaf)) {
            after.retire(served.clone());
        }
        // What has expired is of use only as long as a caBundle has to be cleared of its CA.
        let current = after.authority.as_ref().map(|authority| &authority.certificate);
        let stands = |ca: &Certificate| configuration.bundles.iter().any(|bundle| bundle.contains(&ca.der));
        after.retired.retain(|chain| {
            let replaced = Some(&chain.ca) != current && stands(&chain.ca);
            !chain.leaf.expired(now) || stored.retired.contains(chain) || replaced
        });
        Ok(after)
    }

    /// Notes which CAs stand in every caBundle, and returns which did at the last look.
    fn observe(&mut self, configuration: &Configuration, clock: Instant) -> Standing {
        let before = self.standing.clone();
        let Configuration { uid, generation, bundles } = configuration;
        // More than one change since the last look: a CA may have been away in between.
        if !self
            .seen
            .as_ref()
            .is_some_and(|(seen, last)| seen == uid && (*last..=last + 1).contains(generation))
        {
            self.standing.clear();
        }
        self.seen = Some((uid.clone(), *generation));
        let (first, others) = bundles
            .split_first()
            .map_or((&[][..], bundles.as_slice()), |(first, others)| (first.certificates.as_slice(), others));
        let everywhere = first.iter().filter(|ca| others.iter().all(|bundle| bundle.contains(&ca.der)));
        self.standing.observe(everywhere.map(|ca| &ca.der), clock);
        before
    }

    fn held(&self, ca: &Certificate, clock: Instant) -> bool {
        self.standing.remaining(&ca.der, self.settings.hold, clock) == Some(Duration::ZERO)
    }

    /// The Secret's leaf, if it is another than the one served and may be served now.
    fn leaf_to_serve(
        &self,
        stored: &Stored,
        configuration: &Configuration,
        now: i64,
        clock: Instant,
    ) -> Option<(Leaf, Certificate)> {
        let (leaf, ca) = (stored.leaf.as_ref()?, &stored.authority.as_ref()?.certificate);
        let stands = self.standing.contains(&ca.der);
        let may = match &self.served {
            None => stands,
            Some(served) if served.leaf == leaf.certificate => false,
            Some(served) => {
                let trusted = configuration.bundles.iter().any(|bundle| bundle.contains(&served.ca.der));
                let useless = served.leaf.expired(now) || !trusted;
                served.ca == *ca || self.held(ca, clock) || (stands && useless)
            }
        };
        (may && self.usable(leaf, ca, now)).then(|| (leaf.clone(), ca.clone()))
    }

    fn usable(&self, leaf: &Leaf, ca: &Certificate, now: i64) -> bool {
        let chain = [leaf.certificate.der.clone()];
        !ca.expired(now) && verify(&chain, ca, Some(&self.settings.service.host()), now).is_ok()
    }

    /// The CAs that have to stand in every caBundle.
    fn wanted<'a>(&'a self, stored: &'a Stored, now: i64) -> Vec<&'a Certificate> {
        let authorities =
            [&stored.authority, &stored.next].into_iter().flatten().map(|authority| &authority.certificate);
        let chains = stored.retired.iter().chain(&self.served).filter(|chain| !chain.leaf.expired(now));
        let mut wanted = Vec::new();
        for ca in authorities.filter(|ca| !ca.expired(now)).chain(chains.map(|chain| &chain.ca)) {
            if !wanted.contains(&ca) {
                wanted.push(ca);
            }
        }
        wanted
    }

    /// The CAs of ours that no caBundle needs any more: those of retired leaves, and those that have expired themselves.
    fn unwanted<'a>(
        &self,
        stored: &'a Stored,
        configuration: &'a Configuration,
        wanted: &[&Certificate],
        now: i64,
    ) -> Vec<&'a Certificate> {
        let lapsed = stored.retired.iter().filter(|chain| self.lapsed(&chain.leaf, now));
        let lapsed = lapsed.filter(|_| self.all_have_told(stored, now)).map(|chain| &chain.ca);
        let ours = wanted.first().and_then(|ca| ca.subject());
        let certificates = configuration.bundles.iter().flat_map(|bundle| &bundle.certificates);
        let expired =
            certificates.filter(|ca| self.lapsed(ca, now) && ours.is_some() && ca.subject() == ours);
        lapsed.chain(expired).filter(|ca| !wanted.contains(ca)).collect()
    }

    /// Whether the Secret is old enough for every process to have told it what it serves: somebody may have wiped it, and what was told
    /// since may not be the last leaf under its CA. (Where nobody has, a CA is older than that when leaves under another expire.)
    fn all_have_told(&self, stored: &Stored, now: i64) -> bool {
        let authorities = [&stored.authority, &stored.next].into_iter().flatten();
        let issued = authorities.map(|authority| authority.certificate.not_before + BACKDATE).min();
        issued.is_some_and(|issued| issued + seconds(self.settings.leaf_lifetime) / 3 + self.grace() <= now)
    }

    /// Whether `certificate` has expired by everybody's clock, so that replicas don't undo each other's changes.
    fn lapsed(&self, certificate: &Certificate, now: i64) -> bool {
        certificate.not_after + self.grace() <= now
    }

    fn grace(&self) -> i64 {
        BACKDATE.min(seconds(self.settings.leaf_lifetime) / 10)
    }

    fn change(
        &self,
        stored: &Stored,
        configuration: &Configuration,
        now: i64,
        clock: Instant,
    ) -> Option<Change> {
        let valid = |authority: &&Authority| !authority.certificate.expired(now);
        // A CA of the future is the work of a clock gone wrong: no client takes it.
        let authority = stored.authority.as_ref().filter(|ca| valid(ca) && ca.certificate.not_before <= now);
        let signing = authority.filter(|authority| authority.key.is_some());

        if let Some(next) = stored.next.as_ref().filter(valid) {
            let ca = &next.certificate;
            let first = authority.is_none() && self.standing.contains(&ca.der) && {
                let mut trusted = configuration.bundles.iter().flat_map(|bundle| &bundle.certificates);
                trusted.all(|other| other == ca || other.expired(now))
            };
            if first || self.held(ca, clock) {
                return Some(Change::Promote);
            }
        } else {
            let asked = stored.rotate == Some(Rotate::Ca) && stored.retired.len() < MAX_RETIRED;
            if asked || signing.is_none_or(|authority| due(&authority.certificate) <= now) {
                return Some(Change::Prepare);
            }
        }
        if let Some(authority) = signing {
            let ca = &authority.certificate;
            let bad = |leaf: &Leaf| !self.usable(leaf, ca, now) || due(&leaf.certificate) <= now;
            if stored.rotate == Some(Rotate::Leaf) || stored.leaf.as_ref().is_none_or(bad) {
                return Some(Change::RenewLeaf);
            }
        }
        let forget = stored.retired.iter().any(|chain| self.forgettable(chain, stored, configuration, now));
        forget.then_some(Change::Forget)
    }

    /// Whether nothing is left to do for the sake of a retired leaf.
    fn forgettable(&self, chain: &Chain, stored: &Stored, configuration: &Configuration, now: i64) -> bool {
        let trusted = configuration.bundles.iter().any(|bundle| bundle.contains(&chain.ca.der));
        self.lapsed(&chain.leaf, now) && (!trusted || self.wanted(stored, now).contains(&&chain.ca))
    }

    /// When something is next to be done that nobody will tell us.
    fn again(&self, stored: &Stored, now: i64, clock: Instant) -> Duration {
        let authorities =
            [&stored.authority, &stored.next].into_iter().flatten().map(|authority| &authority.certificate);
        let holds =
            authorities.clone().filter_map(|ca| self.standing.remaining(&ca.der, self.settings.hold, clock));
        let renewals = authorities.chain(stored.leaf.as_ref().map(|leaf| &leaf.certificate)).map(due);
        let ends = stored.retired.iter().map(|chain| chain.leaf.not_after + self.grace());
        let expiry = self.served.iter().map(|served| served.leaf.not_after);
        let times = renewals.chain(ends).chain(expiry).filter_map(|time| u64::try_from(time - now).ok());
        let waits = holds.chain(times.map(Duration::from_secs)).filter(|wait| !wait.is_zero());
        waits.min().map_or(LOOK_AGAIN, |wait| wait.min(LOOK_AGAIN))
    }
}

/// When a certificate is renewed: after two thirds of its life.
fn due(certificate: &Certificate) -> i64 {
    let issued = certificate.not_before + BACKDATE;
    issued + (certificate.not_after - issued) * 2 / 3
}

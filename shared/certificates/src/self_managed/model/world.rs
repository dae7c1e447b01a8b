//! Replicas, the Secret and the caBundles, changed one action at a time.

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::super::authority::WebhookService;
use super::super::ca_bundle::CaBundle;
use super::super::replica::{Lifetimes, Replica, ReplicaAction, Snapshot};
use super::super::secret::{CertificateSecret, LeafAndCa, ROTATE};
use super::super::webhook_configuration::WebhookConfiguration;

pub(super) const WEBHOOKS: usize = 2;
pub(super) const HOLD: u64 = 60;
/// A read that takes longer has timed out.
pub(super) const CALL_TIMEOUT: u64 = 10;
pub(super) const SKEW: i64 = 600;
pub(super) const HOUR: u64 = 3600;
/// Less than a third of a leaf's lifetime. A replica that hasn't planned for longer may serve a leaf that the Secret doesn't
/// list.
const CUT_OFF: u64 = 3 * HOUR;
pub(super) const START: i64 = 2_000_000_000;

#[derive(Clone, Debug)]
pub(super) enum Action {
    Advance(u64),
    ReadSecret(usize),
    ReadConfiguration(usize),
    Plan(usize),
    WriteBundles(usize),
    WriteSecret(usize),
    /// The five actions above, one after the other.
    Sync(usize),
    Crash(usize),
    Rotate(&'static str),
    WipeSecret,
    DeleteSecret,
    /// Another writer gives a webhook the caBundle that it had some changes ago.
    ResetBundle(usize, usize),
}

/// A replica that switches from one leaf to another, or serves its first.
pub(super) struct LeafChange {
    pub(super) before: Option<LeafAndCa>,
    pub(super) after: LeafAndCa,
    /// When the replica read the configuration, and the caBundles in it.
    pub(super) read_at: u64,
    pub(super) bundles: Vec<CaBundle>,
}

pub(super) struct World {
    pub(super) elapsed: u64,
    clock: Instant,
    version: u64,
    pub(super) secret: Option<Secret>,
    /// The version and the generation of the configuration.
    configuration: (u64, i64),
    /// The caBundles and since when. The last are the current ones.
    pub(super) history: Vec<(u64, Vec<CaBundle>)>,
    pub(super) replicas: Vec<Process>,
    /// Whether another writer has reset a caBundle. Then a leaf can be untrusted, and only changes are checked.
    pub(super) reset: bool,
    /// The number of CAs that no replica can know, because another writer has emptied the Secret.
    pub(super) orphans: usize,
    pub(super) writes: usize,
    /// When a leaf was last served while no other was: the first, or the first after all had expired.
    pub(super) began: u64,
}

pub(super) struct Secret {
    version: u64,
    pub(super) object: Value,
    pub(super) content: CertificateSecret,
}

pub(super) struct Process {
    skew: i64,
    replica: Replica,
    pub(super) served: Option<LeafAndCa>,
    planned_at: u64,
    /// When the Secret was read, and its version and content.
    secret: Option<(u64, Option<(u64, CertificateSecret)>)>,
    /// When the configuration was read, and its version, generation and caBundles.
    configuration: Option<(u64, u64, i64, Vec<CaBundle>)>,
    bundles: Option<(u64, Vec<(usize, String)>)>,
    patch: Option<(u64, Value)>,
    create: bool,
}

pub(super) fn service() -> WebhookService {
    WebhookService::new("peerpods".into(), "podshaper".into())
}

impl Process {
    fn new(skew: i64) -> Self {
        let hours = |hours| Duration::from_secs(hours * HOUR);
        let lifetimes = Lifetimes::new(Duration::from_secs(HOLD), hours(10), hours(40)).unwrap();
        Self {
            skew,
            replica: Replica::new(service(), lifetimes),
            served: None,
            planned_at: 0,
            secret: None,
            configuration: None,
            bundles: None,
            patch: None,
            create: false,
        }
    }
}

impl World {
    pub(super) fn new(skews: &[i64], bundle: &str) -> Self {
        let bundle = CaBundle::new(bundle.as_bytes().to_vec());
        Self {
            elapsed: 0,
            clock: Instant::now(),
            version: 1,
            secret: Some(Secret::new(1, empty())),
            configuration: (1, 1),
            history: vec![(0, vec![bundle; WEBHOOKS])],
            replicas: skews.iter().map(|skew| Process::new(*skew)).collect(),
            reset: false,
            orphans: 0,
            writes: 0,
            began: 0,
        }
    }

    pub(super) fn now(&self) -> i64 {
        START + self.elapsed.cast_signed()
    }

    pub(super) fn bundles(&self) -> &[CaBundle] {
        &self.history[self.history.len() - 1].1
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn set_bundles(&mut self, bundles: Vec<CaBundle>) {
        self.configuration = (self.next_version(), self.configuration.1 + 1);
        self.history.push((self.elapsed, bundles));
    }

    /// The caBundles that an API server sees at `time` if it is `lag` seconds late.
    pub(super) fn seen(&self, time: u64, lag: u64) -> &[CaBundle] {
        let then = time.checked_sub(lag);
        let seen = self.history.iter().rev().find(|(time, _)| then.is_some_and(|then| *time <= then));
        seen.map_or(&self.history[0].1, |(_, bundles)| bundles)
    }

    /// Returns the change of a served leaf that follows.
    pub(super) fn act(&mut self, action: &Action) -> Option<LeafChange> {
        match *action {
            Action::Advance(seconds) => {
                self.elapsed += seconds;
                self.clock += Duration::from_secs(seconds);
            }
            Action::ReadSecret(r) => {
                let read = self.secret.as_ref().map(|secret| (secret.version, secret.content.clone()));
                self.replicas[r].secret = Some((self.elapsed, read));
            }
            Action::ReadConfiguration(r) => {
                let (version, generation) = self.configuration;
                let bundles = self.bundles().to_vec();
                self.replicas[r].configuration = Some((self.elapsed, version, generation, bundles));
            }
            Action::Plan(r) => return self.plan(r),
            Action::WriteBundles(r) => self.write_bundles(r),
            Action::WriteSecret(r) => self.write_secret(r),
            Action::Sync(r) => {
                self.act(&Action::ReadSecret(r));
                self.act(&Action::ReadConfiguration(r));
                let change = self.plan(r);
                self.write_bundles(r);
                self.write_secret(r);
                return change;
            }
            Action::Crash(r) => self.replicas[r] = Process::new(self.replicas[r].skew),
            Action::Rotate(what) => {
                let version = self.next_version();
                if let Some(Secret { mut object, .. }) = self.secret.take() {
                    object["metadata"]["annotations"][ROTATE] = what.into();
                    self.secret = Some(Secret::new(version, object));
                }
            }
            Action::WipeSecret | Action::DeleteSecret => {
                let known = self.secret.as_ref().map_or(0, |secret| {
                    secret.content.retired().len() + usize::from(secret.content.next().is_some())
                });
                self.orphans += known + 1;
                let version = self.next_version();
                self.secret = matches!(action, Action::WipeSecret).then(|| Secret::new(version, empty()));
            }
            Action::ResetBundle(webhook, changes) => {
                self.reset = true;
                let mut bundles = self.bundles().to_vec();
                bundles[webhook] =
                    self.history[self.history.len().saturating_sub(changes + 1)].1[webhook].clone();
                self.orphans += bundles[webhook].certificates().len();
                self.set_bundles(bundles);
            }
        }
        None
    }

    fn plan(&mut self, r: usize) -> Option<LeafChange> {
        let now = self.now();
        let clock = self.clock;
        let elapsed = self.elapsed;
        let none_served = self.in_service().is_empty();
        let process = &mut self.replicas[r];
        let (secret_read_at, secret) = process.secret.as_ref()?;
        let (read_at, version, generation, bundles) = process.configuration.clone()?;
        if elapsed - secret_read_at > CALL_TIMEOUT || elapsed - read_at > CALL_TIMEOUT {
            return None;
        }
        let configuration =
            WebhookConfiguration::new("uid".into(), generation, version.to_string(), bundles.clone());
        let content = secret.as_ref().map(|(_, content)| content);
        let snapshot = Snapshot::new(content, &configuration, now + process.skew, clock);
        let (actions, _) = process.replica.plan(&snapshot);
        process.planned_at = elapsed;
        process.create = secret.is_none();
        (process.bundles, process.patch) = (None, None);
        let mut change = None;
        for action in actions {
            match action {
                ReplicaAction::Serve(leaf, ca) => {
                    let after = LeafAndCa::new(leaf.certificate().clone(), ca);
                    let before = process.served.replace(after.clone());
                    change = Some(LeafChange { before, after, read_at, bundles: bundles.clone() });
                    if none_served {
                        self.began = elapsed;
                    }
                }
                ReplicaAction::WriteBundles { bundles, .. } => process.bundles = Some((version, bundles)),
                ReplicaAction::ChangeSecret(change) => {
                    let (version, _) = secret.as_ref().unwrap();
                    let after = process.replica.apply(change, &snapshot).unwrap();
                    process.patch = Some((*version, after.patch()));
                }
                ReplicaAction::PostponeRotation => {}
            }
        }
        change
    }

    fn write_bundles(&mut self, r: usize) {
        let Some((version, bundles)) = self.replicas[r].bundles.take() else { return };
        if version != self.configuration.0 {
            return;
        }
        self.writes += 1;
        let before = self.bundles().to_vec();
        let mut after = before.clone();
        for (webhook, text) in bundles {
            after[webhook] = CaBundle::new(text.into_bytes());
        }
        self.set_bundles(after.clone());
        for served in self.in_service() {
            for (before, after) in before.iter().zip(&after) {
                assert!(
                    !before.contains(served.ca()) || after.contains(served.ca()),
                    "removed a CA in use from a caBundle"
                );
            }
        }
    }

    fn write_secret(&mut self, r: usize) {
        let new = self.next_version();
        if std::mem::take(&mut self.replicas[r].create) && self.secret.is_none() {
            self.secret = Some(Secret::new(new, empty()));
        }
        let Some((version, patch)) = self.replicas[r].patch.take() else { return };
        if let Some(secret) = self.secret.as_mut().filter(|secret| secret.version == version) {
            self.writes += 1;
            json_patch::merge(&mut secret.object, &patch);
            *secret = Secret::new(new, secret.object.take());
        }
    }

    /// The leaves that processes serve and that haven't expired, except for those of a process that has been cut off for long
    /// from a Secret that doesn't list them.
    pub(super) fn in_service(&self) -> Vec<LeafAndCa> {
        let served = self.replicas.iter().filter_map(|process| {
            let served = process.served.as_ref()?;
            (self.elapsed - process.planned_at <= CUT_OFF || self.lists(served)).then(|| served.clone())
        });
        served.filter(|served| !served.leaf().is_expired(self.now())).collect()
    }

    /// Whether the Secret lists this leaf.
    fn lists(&self, served: &LeafAndCa) -> bool {
        self.secret.as_ref().is_some_and(|Secret { content, .. }| {
            content.leaf().is_some_and(|leaf| leaf.certificate() == served.leaf())
                || content.retired().contains(served)
        })
    }

    pub(super) fn stored(&self) -> CertificateSecret {
        self.secret.as_ref().unwrap().content.clone()
    }
}

impl Secret {
    fn new(version: u64, mut object: Value) -> Self {
        object["metadata"]["resourceVersion"] = version.to_string().into();
        let content: CertificateSecret = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(content.problems(), [""; 0]);
        Self { version, object, content }
    }
}

/// A Secret with a value of another writer only.
fn empty() -> Value {
    json!({ "metadata": {}, "data": { "foreign": "eA==" } })
}

//! Replicas, the Secret and the caBundles, and what can happen to them one step at a time.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::super::bundle::Bundle;
use super::super::issue::Service;
use super::super::secret::{Chain, ROTATE, Stored};
use super::super::state::{Configuration, Replica, Settings};

pub(super) const WEBHOOKS: usize = 2;
pub(super) const HOLD: u64 = 60;
/// A read that takes longer than a call may has failed.
pub(super) const CALL: u64 = 10;
pub(super) const SKEW: i64 = 600;
pub(super) const HOUR: u64 = 3600;
/// Less than a third of a leaf's life: who hasn't looked for longer may serve a leaf that nobody knows of any more.
pub(super) const CUT_OFF: u64 = 3 * HOUR;
pub(super) const START: i64 = 2_000_000_000;

#[derive(Clone, Debug)]
pub(super) enum Action {
    Advance(u64),
    ReadSecret(usize),
    ReadConfiguration(usize),
    Plan(usize),
    WriteBundles(usize),
    WriteSecret(usize),
    /// All of the above at once.
    Sync(usize),
    Crash(usize),
    Rotate(&'static str),
    WipeSecret,
    DeleteSecret,
    /// Somebody gives a webhook the caBundle that it had some changes ago.
    ResetBundle(usize, usize),
}

pub(super) struct World {
    pub(super) elapsed: u64,
    clock: Instant,
    version: u64,
    pub(super) secret: Option<Secret>,
    /// The version and the generation of the configuration.
    configuration: (u64, i64),
    /// When the caBundles became what; the last is now.
    pub(super) history: Vec<(u64, Vec<Bundle>)>,
    pub(super) replicas: Vec<Process>,
    /// Whether a caBundle was ever reset: then a leaf can be without its CA, and only changes are judged.
    pub(super) reset: bool,
    /// How many CAs no one may know any more, because the Secret was wiped.
    pub(super) orphans: usize,
    pub(super) writes: usize,
    /// When a leaf was last served where none was: at first, or because all had expired.
    pub(super) began: u64,
}

pub(super) struct Secret {
    version: u64,
    pub(super) object: Value,
    pub(super) stored: Stored,
}

pub(super) struct Process {
    skew: i64,
    replica: Replica,
    pub(super) served: Option<Chain>,
    /// When it last looked.
    looked: u64,
    secret: Option<(u64, Option<(u64, Stored)>)>,
    configuration: Option<(u64, u64, Configuration)>,
    bundles: Option<(u64, Vec<(usize, String)>)>,
    patch: Option<(u64, Value)>,
    create: bool,
}

pub(super) fn settings() -> Settings {
    Settings {
        service: Service { name: "peerpods".into(), namespace: "podshaper".into() },
        hold: Duration::from_secs(HOLD),
        leaf_lifetime: Duration::from_secs(10 * HOUR),
        ca_lifetime: Duration::from_secs(40 * HOUR),
    }
}

impl Process {
    fn new(skew: i64) -> Self {
        let replica = Replica::new(settings());
        let (secret, configuration, bundles, patch) = (None, None, None, None);
        Self { skew, replica, served: None, looked: 0, secret, configuration, bundles, patch, create: false }
    }
}

impl World {
    pub(super) fn new(skews: &[i64], bundle: &str) -> Self {
        let bundle = Bundle::new(bundle.as_bytes().to_vec());
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

    pub(super) fn bundles(&self) -> &[Bundle] {
        &self.history[self.history.len() - 1].1
    }

    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn set_bundles(&mut self, bundles: Vec<Bundle>) {
        self.configuration = (self.next_version(), self.configuration.1 + 1);
        self.history.push((self.elapsed, bundles));
    }

    /// The caBundles as an API server sees them at `time` that is `lag` seconds late.
    pub(super) fn seen(&self, time: u64, lag: u64) -> &[Bundle] {
        let then = time.checked_sub(lag);
        let seen = self.history.iter().rev().find(|(time, _)| then.is_some_and(|then| *time <= then));
        seen.map_or(&self.history[0].1, |(_, bundles)| bundles)
    }

    pub(super) fn act(&mut self, action: &Action) {
        match *action {
            Action::Advance(seconds) => {
                self.elapsed += seconds;
                self.clock += Duration::from_secs(seconds);
            }
            Action::ReadSecret(r) => {
                let read = self.secret.as_ref().map(|secret| (secret.version, secret.stored.clone()));
                self.replicas[r].secret = Some((self.elapsed, read));
            }
            Action::ReadConfiguration(r) => {
                let (version, generation) = self.configuration;
                let content =
                    Configuration { uid: "uid".into(), generation, bundles: self.bundles().to_vec() };
                self.replicas[r].configuration = Some((self.elapsed, version, content));
            }
            Action::Plan(r) => self.plan(r),
            Action::WriteBundles(r) => self.write_bundles(r),
            Action::WriteSecret(r) => self.write_secret(r),
            Action::Sync(r) => {
                for step in [
                    Action::ReadSecret,
                    Action::ReadConfiguration,
                    Action::Plan,
                    Action::WriteBundles,
                    Action::WriteSecret,
                ] {
                    self.act(&step(r));
                }
                self.judge_sync();
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
                    secret.stored.retired.len() + usize::from(secret.stored.next.is_some())
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
                self.orphans += bundles[webhook].certificates.len();
                self.set_bundles(bundles);
            }
        }
    }

    fn plan(&mut self, r: usize) {
        let (now, clock, elapsed) = (self.now(), self.clock, self.elapsed);
        let none_served = self.in_service().is_empty();
        let process = &mut self.replicas[r];
        let (Some((read, secret)), Some((seen, version, configuration))) =
            (&process.secret, &process.configuration)
        else {
            return;
        };
        if elapsed - read > CALL || elapsed - seen > CALL {
            return;
        }
        let stored = secret.as_ref().map(|(_, stored)| stored);
        let now = now + process.skew;
        let plan = process.replica.plan(stored, configuration, now, clock);
        process.looked = elapsed;
        process.bundles = (!plan.bundles.is_empty()).then_some((*version, plan.bundles));
        process.patch = plan.change.zip(secret.as_ref()).map(|(change, (version, stored))| {
            let after = process.replica.apply(change, stored, configuration, now).unwrap();
            (*version, after.patch(&version.to_string()))
        });
        process.create = secret.is_none();
        if let Some((leaf, ca)) = plan.serve {
            let chain = Chain { leaf: leaf.certificate, ca };
            let (before, read) = (process.served.replace(chain.clone()), *seen);
            let bundles = configuration.bundles.clone();
            if none_served {
                self.began = elapsed;
            }
            self.judge_change(before.as_ref(), &chain, read, &bundles);
        }
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
            after[webhook] = Bundle::new(text.into_bytes());
        }
        self.set_bundles(after.clone());
        for chain in self.in_service() {
            for (before, after) in before.iter().zip(&after) {
                assert!(
                    !before.contains(&chain.ca.der) || after.contains(&chain.ca.der),
                    "took out a CA in use"
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

    /// The chains that processes serve and that haven't expired, but those of a process which has been cut off for long from a
    /// Secret that has forgotten them.
    pub(super) fn in_service(&self) -> Vec<Chain> {
        let served = self.replicas.iter().filter_map(|process| {
            let chain = process.served.as_ref()?;
            (self.elapsed - process.looked <= CUT_OFF || self.knows(chain)).then(|| chain.clone())
        });
        served.filter(|chain| !chain.leaf.expired(self.now())).collect()
    }

    /// Whether the Secret does.
    fn knows(&self, chain: &Chain) -> bool {
        self.secret.as_ref().is_some_and(|Secret { stored, .. }| {
            stored.leaf.as_ref().is_some_and(|leaf| leaf.certificate == chain.leaf)
                || stored.retired.contains(chain)
        })
    }

    pub(super) fn stored(&self) -> Stored {
        self.secret.as_ref().unwrap().stored.clone()
    }
}

impl Secret {
    fn new(version: u64, object: Value) -> Self {
        let map = |value: &Value| serde_json::from_value::<BTreeMap<_, _>>(value.clone()).unwrap_or_default();
        let (stored, problems) =
            Stored::decode(&map(&object["data"]), &map(&object["metadata"]["annotations"]));
        assert_eq!(problems, [""; 0]);
        Self { version, object, stored }
    }
}

/// A Secret that holds nothing of ours.
fn empty() -> Value {
    json!({ "metadata": {}, "data": { "foreign": "eA==" } })
}

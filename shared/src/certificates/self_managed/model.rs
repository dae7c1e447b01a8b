//! The state machine in a world of its own: replicas that read and write at any moment, conflict, crash and differ in
//! their clocks, operators who ask for rotations, others who wipe things, and API servers that see a caBundle late.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::bundle::Bundle;
use super::issue::Service;
use super::secret::{Chain, ROTATE, Stored};
use super::state::{Configuration, Replica, Settings};
use crate::certificates::certificate::Certificate;

const REPLICAS: usize = 3;
const WEBHOOKS: usize = 2;
const HOLD: u64 = 60;
/// A read that takes longer than a call may has failed.
const CALL: u64 = 10;
const SKEW: i64 = 600;
const HOUR: u64 = 3600;
/// Less than a third of a leaf's life: who hasn't looked for longer may serve a leaf that nobody knows of any more.
const CUT_OFF: u64 = 3 * HOUR;
const START: i64 = 2_000_000_000;

#[derive(Clone, Debug)]
enum Action {
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

struct World {
    elapsed: u64,
    clock: Instant,
    version: u64,
    secret: Option<Secret>,
    /// The version and the generation of the configuration.
    configuration: (u64, i64),
    /// When the caBundles became what; the last is now.
    history: Vec<(u64, Vec<Bundle>)>,
    replicas: Vec<Process>,
    /// Whether a caBundle was ever reset: then a leaf can be without its CA, and only changes are judged.
    reset: bool,
    /// How many CAs no one may know any more, because the Secret was wiped.
    orphans: usize,
    writes: usize,
    /// When a leaf was last served where none was: at first, or because all had expired.
    began: u64,
}

struct Secret {
    version: u64,
    object: Value,
    stored: Stored,
}

struct Process {
    skew: i64,
    replica: Replica,
    served: Option<Chain>,
    /// When it last looked.
    looked: u64,
    secret: Option<(u64, Option<(u64, Stored)>)>,
    configuration: Option<(u64, u64, Configuration)>,
    bundles: Option<(u64, Vec<(usize, String)>)>,
    patch: Option<(u64, Value)>,
    create: bool,
}

fn settings() -> Settings {
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
    fn new(skews: &[i64], bundle: &str) -> Self {
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

    fn now(&self) -> i64 {
        START + self.elapsed.cast_signed()
    }

    fn bundles(&self) -> &[Bundle] {
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
    fn seen(&self, time: u64, lag: u64) -> &[Bundle] {
        let then = time.checked_sub(lag);
        let seen = self.history.iter().rev().find(|(time, _)| then.is_some_and(|then| *time <= then));
        seen.map_or(&self.history[0].1, |(_, bundles)| bundles)
    }

    fn act(&mut self, action: &Action) {
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
            merge(&mut secret.object, &patch);
            *secret = Secret::new(new, secret.object.take());
        }
    }

    /// The chains that processes serve and that haven't expired, but those of a process which has been cut off for long from a
    /// Secret that has forgotten them.
    fn in_service(&self) -> Vec<Chain> {
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

    /// A change from one leaf to another, on the ground of the caBundles that were `read` then, never takes trust away, whatever others
    /// did.
    fn judge_change(&self, before: Option<&Chain>, after: &Chain, then: u64, read: &[Bundle]) {
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

    /// Whoever looks puts back what others took out, if only the Secret knows it.
    fn judge_sync(&self) {
        let Some(Secret { stored, .. }) = &self.secret else { return };
        for chain in self.in_service().iter().filter(|chain| !chain.leaf.expired(self.now() + SKEW)) {
            let known = stored.authority.iter().any(|authority| authority.certificate == chain.ca)
                || stored.retired.iter().any(|retired| retired.ca == chain.ca);
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

    fn stored(&self) -> Stored {
        self.secret.as_ref().unwrap().stored.clone()
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

/// RFC 7386.
pub(super) fn merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], value);
        }
    }
}

fn actions(others: bool) -> impl Strategy<Value = Vec<Action>> {
    let replica = || 0..REPLICAS;
    let calm = prop_oneof![
        6 => (1..HOLD + 20).prop_map(Action::Advance),
        1 => (1..5 * HOUR).prop_map(Action::Advance),
        4 => replica().prop_map(Action::ReadSecret),
        4 => replica().prop_map(Action::ReadConfiguration),
        4 => replica().prop_map(Action::Plan),
        4 => replica().prop_map(Action::WriteBundles),
        4 => replica().prop_map(Action::WriteSecret),
        16 => replica().prop_map(Action::Sync),
        2 => replica().prop_map(Action::Crash),
        2 => prop_oneof![Just("ca"), Just("leaf")].prop_map(Action::Rotate),
        1 => Just(Action::WipeSecret),
        1 => Just(Action::DeleteSecret),
    ];
    let reset = (0..WEBHOOKS, prop_oneof![0..4_usize, 4..100_usize])
        .prop_map(|(i, back)| Action::ResetBundle(i, back));
    let action = prop_oneof![12 => calm, u32::from(others) => reset];
    prop::collection::vec(action, 1..80)
}

fn foreign() -> impl Strategy<Value = String> {
    let ca = || -> Certificate {
        settings().service.new_authority(START, Duration::from_secs(1000 * HOUR)).unwrap().certificate
    };
    prop_oneof![3 => Just(String::new()), 1 => Just(format!("# somebody else's\n{}", ca().pem()))]
}

fn skews() -> impl Strategy<Value = Vec<i64>> {
    prop::collection::vec(-SKEW..SKEW, REPLICAS)
}

proptest! {
    #[test]
    fn no_leaf_is_ever_served_untrusted(actions in actions(false), skews in skews(), bundle in foreign()) {
        let mut world = World::new(&skews, &bundle);
        for action in &actions {
            world.act(action);
            world.judge();
        }
        world.judge_rest();
    }

    #[test]
    fn whatever_others_do_to_the_bundles_no_change_makes_it_worse(
        actions in actions(true), skews in skews(), bundle in foreign(),
    ) {
        let mut world = World::new(&skews, &bundle);
        for action in &actions {
            world.act(action);
            world.judge();
        }
        world.judge_rest();
    }
}

/// Nobody looked from the preparation of a CA until the last leaf under the old one had expired.
#[test]
fn a_ca_that_was_replaced_too_late_leaves_the_bundles() {
    let mut world = World::new(&[-219, 474, 0], "");
    let [zero, one] = [0, 1].map(Action::Sync);
    let late = [Action::Advance(16_100), Action::Advance(16_739), one.clone()];
    let before = [
        zero.clone(),
        zero.clone(),
        zero.clone(),
        Action::Advance(2468),
        Action::Rotate("ca"),
        zero.clone(),
        zero,
        one,
    ];
    for action in before.iter().chain(&late) {
        world.act(action);
        world.judge();
    }
    world.judge_rest();
}

#[test]
fn the_first_certificate_comes_without_a_hold() {
    let mut world = World::new(&[0, 0], "\n");
    for _ in 0..4 {
        world.act(&Action::Sync(0));
        world.act(&Action::Sync(1));
    }
    let served: Vec<_> = world.replicas.iter().map(|process| process.served.clone().unwrap()).collect();
    assert_eq!(served[0], served[1]);
    assert_eq!(world.elapsed, 0);
    assert_eq!(world.stored().retired, []);
}

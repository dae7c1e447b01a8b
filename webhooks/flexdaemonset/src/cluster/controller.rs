//! What the leader does: it counts, writes status, and refits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper_kube::discovery::serves;
use podshaper_kube::events::{Events, Note, Regarding};
use podshaper_kube::lease::{Leadership, while_leading};
use podshaper_kube::store::Store;
use tokio::sync::watch;

use flexdaemonset_decision::facts::{Owner, TemplateFact};
use flexdaemonset_decision::node::Node;
use flexdaemonset_decision::range::Range;
use flexdaemonset_decision::refit::{Difference, Remedy};
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::template::Refit;

use super::attempts::{Attempts, Way};
use super::metrics::Metrics;
use super::pace::Pace;
use super::pods::{Pods, Resize, RunningPod};
use super::refit;
use super::state::{State, state};
use super::status::{Counts, status};

/// Changes come in bursts: so long is waited for more of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Without a change it looks again after this.
const LONGEST: Duration = Duration::from_secs(30);
/// After so many pods others get their turn: admission must not wait for counting.
const BATCH: usize = 32;

/// How running pods follow their template, where it says that they do.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Refit")]
pub struct RefitOptions {
    /// Changes of at most so many percent of a figure aren't worth a resize
    #[arg(long, env = "FLEXDAEMONSET_REFIT_HYSTERESIS", value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub refit_hysteresis: u8,
    /// So many resizes may be under way at once
    #[arg(long, env = "FLEXDAEMONSET_REFIT_IN_FLIGHT", value_name = "N", default_value_t = 5)]
    pub refit_in_flight: u32,
    /// So many pods are resized or evicted in a minute; 0: none, whatever templates say
    #[arg(long, env = "FLEXDAEMONSET_REFIT_PER_MINUTE", value_name = "N", default_value_t = 60)]
    pub refit_per_minute: u32,
}

pub(super) struct Controller {
    pub(super) client: Client,
    pub(super) nodes: Arc<Store<Node>>,
    pub(super) templates: Arc<Store<TemplateFact>>,
    pub(super) owners: Arc<Store<Owner>>,
    pub(super) ranges: Arc<Store<Range>>,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    pub(super) options: RefitOptions,
}

/// What is remembered from one look to the next.
struct Run {
    changes: [watch::Receiver<u64>; 4],
    pods: Pods,
    resizable: bool,
    pace: Pace,
    attempts: Attempts,
}

/// A `DaemonSet` by its key.
type Named = (Box<str>, Arc<Owner>);

/// A pod that is to follow.
struct Candidate {
    key: Box<str>,
    pod: Arc<RunningPod>,
    /// The key of its `DaemonSet`.
    owner: Box<str>,
    difference: Difference,
    way: Way,
    /// What it is to remember, where it doesn't yet.
    memory: Option<String>,
}

/// What is collected over all templates.
#[derive(Default)]
struct Seen {
    candidates: Vec<Candidate>,
    in_flight: u32,
    /// Pods that don't work, no more or not yet, by the key of their `DaemonSet` and their uid.
    unready: BTreeSet<(Box<str>, Box<str>)>,
}

impl Controller {
    /// Works while this replica leads.
    pub(super) async fn run(self, leadership: Leadership) {
        let changed = |leads: bool| {
            self.metrics.leads.set(leads.into());
            self.metrics.counted([]);
        };
        while_leading(leadership, || self.lead(), changed).await;
    }

    async fn lead(&self) {
        let resizable = loop {
            match serves(&self.client, "pods/resize").await {
                Ok(serves) => break serves,
                Err(error) => {
                    tracing::warn!(%error, "can't discover what the API server serves, trying again");
                }
            }
            tokio::time::sleep(PAUSE).await;
        };
        let changes =
            [self.nodes.changes(), self.templates.changes(), self.owners.changes(), self.ranges.changes()];
        let mut run = Run {
            changes,
            pods: Pods::new(self.client.clone()),
            resizable,
            pace: Pace::new(self.options.refit_per_minute),
            attempts: Attempts::default(),
        };
        loop {
            // Marked before everything is looked at: nothing that changes meanwhile is missed.
            run.changes().for_each(watch::Receiver::mark_unchanged);
            let tried = self.look(&mut run).await;
            let change = select_all(run.changes().map(|change| Box::pin(change.changed())));
            let _ = tokio::time::timeout(if tried { PAUSE } else { LONGEST }, change).await;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Looks at everything once; whether anything was tried, so that it's worth to look again soon.
    async fn look(&self, run: &mut Run) -> bool {
        if !(self.nodes.filled() && self.templates.filled() && self.owners.filled() && self.ranges.filled()) {
            return false;
        }
        let mut by_template: BTreeMap<Box<str>, Vec<Named>> = BTreeMap::new();
        let mut named = Vec::new();
        for (key, owner) in self.owners.all() {
            if let Some(template) = &owner.template {
                by_template.entry(template.clone()).or_default().push((key.clone(), Arc::clone(&owner)));
                named.push((key, owner));
            }
        }
        run.pods.follow(&named);
        run.attempts.pass();

        let mut seen = Seen::default();
        let mut counted = Vec::new();
        for (name, template) in self.templates.all() {
            let owners = by_template.remove(&name).unwrap_or_default();
            if let Some(counts) = self.count(&name, &template, owners, run, &mut seen).await {
                counted.push((name, template, counts));
            }
        }
        self.metrics.counted(counted.iter().map(|(name, _, counts)| (&**name, counts)));
        let now = format!("{:.0}", Timestamp::now());
        for (name, template, counts) in counted {
            let status = status(&template, &counts, &now);
            if status != template.status
                && let Err(error) = refit::write_status(&self.client, &name, &status).await
            {
                tracing::warn!(template = &*name, %error, "can't write the status, trying again");
            }
        }
        self.refit(run, seen).await
    }

    /// Counts the pods of a template; none while some haven't been read.
    async fn count(
        &self,
        name: &str,
        template: &TemplateFact,
        owners: Vec<Named>,
        run: &Run,
        seen: &mut Seen,
    ) -> Option<Counts> {
        let refits = self.options.refit_per_minute > 0;
        let mut counts = Counts { resizable: run.resizable, refits, ..Counts::default() };
        let mut short = BTreeSet::new();
        for (owner, _) in owners {
            counts.daemon_sets += 1;
            let namespace = owner.split('/').next().unwrap_or_default();
            let range = super::range(&self.ranges, namespace);
            let pods = run.pods.of(&owner)?;
            let missing = run.attempts.missing(&owner, &pods);
            seen.unready.extend(missing.map(|uid| (owner.clone(), uid.clone())));
            for (index, (key, pod)) in pods.into_iter().enumerate() {
                if index % BATCH == BATCH - 1 {
                    tokio::task::yield_now().await;
                }
                if pod.gone || !pod.ready {
                    seen.unready.insert((owner.clone(), pod.uid.clone()));
                }
                // A pod of an earlier pod template may name another.
                if pod.gone || pod.template.as_deref().is_some_and(|own| own != name) {
                    continue;
                }
                let written = run.attempts.is_written(&pod);
                seen.in_flight += u32::from(written || pod.resize == Some(Resize::InProgress));
                let Ok(rules) = &template.rules else {
                    counts.pending += 1;
                    continue;
                };
                match self.stand(name, rules, &range, &pod) {
                    None => counts.pending += 1,
                    Some(mut state) => {
                        let way = if refits { run.way(rules.refit, &pod, &state) } else { None };
                        let change = state.difference.as_ref().map(|difference| &*difference.words);
                        let refusal =
                            change.and_then(|change| run.attempts.refusal(&owner, &pod, way, change));
                        let waits = written || refusal.is_some();
                        if let Some(refusal) = refusal {
                            state.held = Some(refusal.to_owned());
                        }
                        if state.short {
                            short.insert(pod.node.clone());
                        }
                        counts.tally(&key, &state);
                        if let (Some(difference), Some(way), false) = (state.difference, way, waits) {
                            let (owner, memory) = (owner.clone(), state.memory);
                            seen.candidates.push(Candidate { key, pod, owner, difference, way, memory });
                        }
                    }
                }
            }
        }
        counts.nodes_short = u32::try_from(short.len()).unwrap_or(u32::MAX);
        Some(counts)
    }

    fn stand(&self, name: &str, rules: &Template, range: &Range, pod: &RunningPod) -> Option<State> {
        let node = self.nodes.get(&pod.node)?;
        state((name, rules), &node, range, pod, self.options.refit_hysteresis)
    }

    async fn refit(&self, run: &mut Run, seen: Seen) -> bool {
        let Seen { candidates, mut in_flight, mut unready } = seen;
        let mut tried = false;
        for Candidate { key, pod, owner, difference, way, memory } in candidates {
            let (action, done) = if let (Way::Resize, Remedy::Resize(patch)) = (way, &difference.remedy) {
                if in_flight >= self.options.refit_in_flight || !run.pace.take() {
                    continue;
                }
                in_flight += 1;
                ("resized", self.resize(&key, &pod, memory.as_deref(), patch).await)
            } else {
                // One at a time of each DaemonSet, and only while all others work.
                let others = unready.iter().any(|(other, uid)| *other == owner && *uid != pod.uid);
                if others || !run.pace.take() {
                    continue;
                }
                unready.insert((owner.clone(), pod.uid.clone()));
                ("evicted", refit::evict(&self.client, &key, &pod.uid).await)
            };
            tried = true;
            let change = difference.words;
            let (warning, action, message) = match done {
                Ok(()) => {
                    let message = format!("{action} to follow its template: {change}");
                    run.attempts.made(&owner, &pod, way, change);
                    (false, action, message)
                }
                Err(error) => {
                    let reason = match error {
                        kube::Error::Api(status) => status.message.clone(),
                        other => other.to_string(),
                    };
                    let message = format!("can't follow its template ({change}): {reason}");
                    run.attempts.refuse(&pod, change, reason);
                    (true, "refused", message)
                }
            };
            tracing::info!(pod = &*key, action, message, "refit");
            self.metrics.refitted(action);
            let reason = if warning { "RefitFailed" } else { "Refit" };
            let regarding = regarding(&key, &pod.uid);
            self.events.send(Note { regarding, warning, reason, action: "Refit", message });
        }
        tried
    }

    async fn resize(
        &self,
        key: &str,
        pod: &RunningPod,
        memory: Option<&str>,
        patch: &serde_json::Value,
    ) -> kube::Result<()> {
        if let Some(memory) = memory {
            refit::remember(&self.client, key, &pod.uid, memory).await?;
        }
        refit::resize(&self.client, key, patch).await
    }
}

impl Counts {
    fn tally(&mut self, key: &str, state: &State) {
        match (state.sized, &state.difference) {
            (false, _) => self.pending += 1,
            (true, None) => self.sized += 1,
            (true, Some(_)) => self.outdated += 1,
        }
        let recreate = |difference: &Difference| matches!(difference.remedy, Remedy::Recreate(_));
        if state.difference.as_ref().is_some_and(recreate) {
            self.anew += 1;
        }
        if let Some(reason) = &state.held {
            self.infeasible += 1;
            self.example = Some(format!("{key}: {reason}"));
        } else if let (Some(difference), None) = (&state.difference, &self.example) {
            let how = match &difference.remedy {
                Remedy::Resize(_) => String::new(),
                Remedy::Recreate(reason) => format!(" (needs a new pod: {reason})"),
            };
            self.example = Some(format!("{key}: {}{how}", difference.words));
        }
    }
}

impl Run {
    /// How the pod is to follow, if it differs and its template has it follow.
    fn way(&self, refit: Refit, pod: &RunningPod, state: &State) -> Option<Way> {
        let remedy = &state.difference.as_ref()?.remedy;
        match refit {
            Refit::Off | Refit::DryRun => None,
            _ if self.resizable && pod.bound && matches!(remedy, Remedy::Resize(_)) => Some(Way::Resize),
            Refit::InPlaceOrRecreate => Some(Way::Evict),
            Refit::InPlace => None,
        }
    }

    fn changes(&mut self) -> impl Iterator<Item = &mut watch::Receiver<u64>> {
        self.changes.iter_mut().chain(self.pods.changes())
    }
}

fn regarding(key: &str, uid: &str) -> Regarding {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    Regarding {
        api_version: "v1".into(),
        kind: "Pod".into(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    }
}

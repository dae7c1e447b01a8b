//! What the leader does: it counts, writes status, and refits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::select_all;
use kube::Client;
use podshaper::cluster::{Events, Leadership, Note, Regarding, Store, serves};
use tokio::sync::watch;

use crate::facts::{Owner, TemplateFact};
use crate::node::Node;
use crate::range::Range;
use crate::refit::Remedy;
use crate::rules::Template;
use crate::template::Refit;

use super::metrics::Metrics;
use super::pods::{Pods, Resize, RunningPod};
use super::refit;
use super::state::{State, state};
use super::status::{Counts, status};

/// Changes come in bursts: so long is waited for more of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Without a change it looks again after this.
const LONGEST: Duration = Duration::from_secs(30);
/// What the API server refused is tried again after this.
const REFUSED: Duration = Duration::from_mins(5);
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
    /// So many pods are resized or evicted in a minute
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
    /// Pods that were written to, and when: what the watch doesn't show yet isn't done twice.
    written: HashMap<Box<str>, Instant>,
    /// Pods whose change was refused, by uid.
    refused: HashMap<Box<str>, Refusal>,
}

/// Why the API server refused to change a pod. The same change isn't tried again for some time.
struct Refusal {
    /// The change, in words.
    change: String,
    reason: String,
    at: Instant,
}

/// A `DaemonSet` by its key.
type Named = (Box<str>, Arc<Owner>);

/// Pods that don't work yet, with the key of their `DaemonSet`.
type Unready = BTreeSet<(Box<str>, Box<str>)>;

/// A token bucket.
struct Pace {
    tokens: u32,
    per_minute: u32,
    filled: Instant,
}

/// A pod that could follow.
struct Candidate {
    key: Box<str>,
    pod: Arc<RunningPod>,
    state: State,
    /// The key of its `DaemonSet`.
    owner: Box<str>,
    mode: Refit,
}

impl Controller {
    /// Works while this replica leads.
    pub(super) async fn run(self, mut leadership: Leadership) {
        loop {
            if leadership.wait_for(|leads| *leads).await.is_err() {
                return;
            }
            self.metrics.leads.set(1);
            tokio::select! {
                () = self.lead() => {},
                _ = leadership.wait_for(|leads| !*leads) => {},
            }
            self.metrics.leads.set(0);
            self.metrics.forget();
        }
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
        let pace = Pace {
            tokens: self.options.refit_per_minute,
            per_minute: self.options.refit_per_minute,
            filled: Instant::now(),
        };
        let changes =
            [self.nodes.changes(), self.templates.changes(), self.owners.changes(), self.ranges.changes()];
        let mut run = Run {
            changes,
            pods: Pods::new(self.client.clone()),
            resizable,
            pace,
            written: HashMap::new(),
            refused: HashMap::new(),
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
        run.written.retain(|_, at| at.elapsed() < LONGEST);
        run.refused.retain(|_, refusal| refusal.at.elapsed() < REFUSED);

        let mut candidates = Vec::new();
        let mut in_flight = 0;
        let mut unready = BTreeSet::new();
        self.metrics.forget();
        for (name, template) in self.templates.all() {
            let owners = by_template.remove(&name).unwrap_or_default();
            let Some(counts) = self
                .count(&name, &template, owners, run, &mut candidates, &mut in_flight, &mut unready)
                .await
            else {
                continue;
            };
            self.metrics.counted(&name, &counts);
            let status = status(&template, &counts);
            if status != template.status
                && let Err(error) = refit::write_status(&self.client, &name, &status).await
            {
                tracing::warn!(template = &*name, %error, "can't write the status, trying again");
            }
        }
        self.refit(run, candidates, in_flight, &mut unready).await
    }

    /// Counts the pods of a template; none while some haven't been read.
    #[expect(clippy::too_many_arguments, reason = "what is collected over all templates")]
    async fn count(
        &self,
        name: &str,
        template: &TemplateFact,
        owners: Vec<Named>,
        run: &Run,
        candidates: &mut Vec<Candidate>,
        in_flight: &mut u32,
        unready: &mut Unready,
    ) -> Option<Counts> {
        let mut counts = Counts { resizable: run.resizable, ..Counts::default() };
        let mut short = BTreeSet::new();
        for (owner, _) in owners {
            counts.daemon_sets += 1;
            let namespace = owner.split('/').next().unwrap_or_default();
            let range = super::range(&self.ranges, namespace);
            for (index, (key, pod)) in run.pods.of(&owner)?.into_iter().enumerate() {
                if index % BATCH == BATCH - 1 {
                    tokio::task::yield_now().await;
                }
                if !pod.ready {
                    unready.insert((owner.clone(), pod.uid.clone()));
                }
                *in_flight += u32::from(
                    matches!(pod.resize, Some(Resize::InProgress)) || run.written.contains_key(&*pod.uid),
                );
                let Ok(rules) = &template.rules else {
                    counts.pending += 1;
                    continue;
                };
                match self.stand(name, rules, &range, &pod) {
                    None => counts.pending += 1,
                    Some(mut state) => {
                        if let Some(refusal) = run.refusal(&pod, &state) {
                            state.held = Some(refusal.to_owned());
                        }
                        if state.short {
                            short.insert(pod.node.clone());
                        }
                        counts.tally(&key, &state);
                        let follows = matches!(rules.refit, Refit::InPlace | Refit::InPlaceOrRecreate);
                        if state.difference.is_some() && follows {
                            let (owner, mode) = (owner.clone(), rules.refit);
                            candidates.push(Candidate { key, pod, state, owner, mode });
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

    async fn refit(
        &self,
        run: &mut Run,
        candidates: Vec<Candidate>,
        mut in_flight: u32,
        unready: &mut Unready,
    ) -> bool {
        let mut tried = false;
        for Candidate { key, pod, state, owner, mode } in candidates {
            if run.written.contains_key(&*pod.uid) || run.refusal(&pod, &state).is_some() {
                continue;
            }
            let Some(difference) = state.difference else { continue };
            let (action, done) = match &difference.remedy {
                Remedy::Resize(patch) if run.resizable && pod.bound => {
                    if in_flight >= self.options.refit_in_flight || !run.pace.take() {
                        continue;
                    }
                    in_flight += 1;
                    let memory = state.memory.as_deref();
                    ("resized", self.resize(&key, &pod, memory, patch).await)
                }
                Remedy::Resize(_) | Remedy::Recreate(_) if mode == Refit::InPlaceOrRecreate => {
                    // One at a time of each DaemonSet, and only while all others work.
                    let others = unready.iter().any(|(other, uid)| *other == owner && *uid != pod.uid);
                    if others || !run.pace.take() {
                        continue;
                    }
                    unready.insert((owner, pod.uid.clone()));
                    ("evicted", refit::evict(&self.client, &key, &pod.uid).await)
                }
                Remedy::Resize(_) | Remedy::Recreate(_) => continue,
            };
            tried = true;
            let change = difference.words;
            let (warning, action, message) = match done {
                Ok(()) => {
                    run.written.insert(pod.uid.clone(), Instant::now());
                    (false, action, format!("{action} to follow its template: {change}"))
                }
                Err(error) => {
                    let reason = match error {
                        kube::Error::Api(status) => status.message.clone(),
                        other => other.to_string(),
                    };
                    let message = format!("can't follow its template ({change}): {reason}");
                    run.refused.insert(pod.uid.clone(), Refusal { change, reason, at: Instant::now() });
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
    /// Why what the pod needs was refused, if it was.
    fn refusal(&self, pod: &RunningPod, state: &State) -> Option<&str> {
        let refusal = self.refused.get(&pod.uid)?;
        let change = &state.difference.as_ref()?.words;
        (refusal.change == *change).then_some(&*refusal.reason)
    }

    fn changes(&mut self) -> impl Iterator<Item = &mut watch::Receiver<u64>> {
        self.changes.iter_mut().chain(self.pods.changes())
    }
}

impl Pace {
    fn take(&mut self) -> bool {
        let each = Duration::from_mins(1) / self.per_minute.max(1);
        while self.tokens < self.per_minute && self.filled.elapsed() >= each {
            self.tokens += 1;
            self.filled += each;
        }
        if self.tokens == self.per_minute {
            self.filled = Instant::now();
        }
        let some = self.tokens > 0;
        self.tokens -= u32::from(some);
        some
    }
}

fn regarding(key: &str, uid: &str) -> Regarding {
    let (namespace, name) = key.split_once('/').unwrap_or_default();
    Regarding {
        api_version: "v1",
        kind: "Pod",
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
    }
}

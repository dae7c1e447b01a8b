//! The leader's work: it counts pods, writes the status of templates, and refits pods.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use podshaper_kube::error::describe;
use podshaper_kube::events::{EventType, Events, ObjectReference};
use podshaper_kube::lease::{Leadership, while_leading};
use podshaper_kube::request::{MediaType, send};
use serde_json::json;
use tokio::sync::watch;

use flexdaemonset_decision::daemon_set::DaemonSet;
use flexdaemonset_decision::namespace_limits::NamespaceLimits;
use flexdaemonset_decision::rules::Template;
use flexdaemonset_decision::selection::{SelectedPod, Selection};
use flexdaemonset_decision::size_range::SizeRange;
use flexdaemonset_decision::template::{API_VERSION, KIND, PLURAL};
use flexdaemonset_decision::template_object::TemplateObject;

use super::drift::{Drift, RefitHold};
use super::metrics::FlexDaemonsetMetrics;
use super::refit::{RefitOptions, RefitPlan, Refitter};
use super::refit_history::RefitCause;
use super::refusals::Refusals;
use super::resize_support::ResizeSupport;
use super::running_pods::{Listing, RunningPod, RunningPods};
use super::status::{TemplateCounts, template_status};
use super::watches::Watches;

/// Changes come in bursts: a reconciliation waits this long for more of them.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// Time to the next reconciliation without a change.
const RESYNC: Duration = Duration::from_secs(30);
/// Pods between two yields to the runtime, which also answers admission reviews.
const BATCH: usize = 32;

/// A DaemonSet with its key.
type KeyedDaemonSet = (Box<str>, Arc<DaemonSet>);

/// Reconciles all templates.
pub(super) struct TemplateController {
    client: Client,
    watches: Watches,
    events: Events,
    metrics: FlexDaemonsetMetrics,
    options: RefitOptions,
    selection: Selection,
}

/// The leader's state between reconciliations.
struct LeaderState {
    changes: Vec<watch::Receiver<u64>>,
    pods: RunningPods,
    resize_support: ResizeSupport,
    refusals: Refusals,
    refitter: Refitter,
}

impl TemplateController {
    pub(super) fn new(
        client: Client,
        watches: Watches,
        events: Events,
        metrics: FlexDaemonsetMetrics,
        options: RefitOptions,
        selection: Selection,
    ) -> Self {
        Self { client, watches, events, metrics, options, selection }
    }

    /// Reconciles while this replica leads.
    pub(super) async fn run(self, leadership: Leadership) {
        let changed = |leads: bool| {
            self.metrics.set_leader(leads);
            self.metrics.set_counts([]);
        };
        while_leading(leadership, || self.lead(), changed).await;
    }

    async fn lead(&self) {
        let events = self.events.clone();
        let metrics = self.metrics.clone();
        let resize_support = ResizeSupport::discover(&self.client).await;
        let resize_supported = resize_support.is_supported();
        let mut state = LeaderState {
            changes: self.watches.changes(),
            pods: RunningPods::new(self.client.clone()),
            resize_support,
            refusals: Refusals::default(),
            refitter: Refitter::new(
                self.client.clone(),
                events,
                metrics,
                self.options.clone(),
                resize_supported,
            ),
        };
        loop {
            // Before the stores are read: a change during the reconciliation starts another one.
            state.changes().for_each(watch::Receiver::mark_unchanged);
            state.resize_support.refresh(&self.client).await;
            state.refitter.set_resize_supported(state.resize_support.is_supported());
            let refitted = self.reconcile_all(&mut state).await;
            let change = select_all(state.changes().map(|change| Box::pin(change.changed())));
            let _ = tokio::time::timeout(if refitted { DEBOUNCE } else { RESYNC }, change).await;
            tokio::time::sleep(DEBOUNCE).await;
        }
    }

    /// Reconciles all templates once. Returns whether a refit was tried.
    async fn reconcile_all(&self, state: &mut LeaderState) -> bool {
        if self.watches.unsynced().is_some() {
            return false;
        }
        let mut by_template: BTreeMap<Box<str>, Vec<KeyedDaemonSet>> = BTreeMap::new();
        let mut daemon_sets = Vec::new();
        for (key, daemon_set) in self.watches.daemon_sets().iter().flat_map(|kind| kind.store.all()) {
            if let Some(template) = &daemon_set.template
                && self.excludes_namespace(&key).is_none()
            {
                by_template.entry(template.clone()).or_default().push((key.clone(), Arc::clone(&daemon_set)));
                daemon_sets.push((key, daemon_set));
            }
        }
        state.pods.watch(&daemon_sets);
        state.refusals.retain(&daemon_sets);

        let mut plan = state.refitter.plan();
        let mut counted = Vec::new();
        for (name, template) in self.watches.templates().all() {
            let daemon_sets = by_template.remove(&name).unwrap_or_default();
            if let Some(counts) = self.count_pods(&name, &template, daemon_sets, state, &mut plan).await {
                counted.push((name, template, counts));
            }
        }
        let schedule = state.refitter.schedule(plan);
        for (name, _, counts) in &mut counted {
            counts.set_waiting(schedule.waiting(name));
        }
        self.metrics.set_counts(counted.iter().map(|(name, _, counts)| (&**name, counts)));
        let now = format!("{:.0}", Timestamp::now());
        for (name, template, counts) in &counted {
            self.patch_status(name, template, counts, &now).await;
        }
        state.refitter.execute(schedule).await
    }

    /// Why the webhook isn't for the pods of a DaemonSet, by its key.
    fn excludes_namespace(&self, key: &str) -> Option<String> {
        let (namespace, name) = key.split_once('/')?;
        let labels = self.watches.namespaces().get(namespace);
        let pod = SelectedPod { namespace, daemon_set: Some(name) };
        self.selection.excludes_namespace(pod, |key| labels.as_ref()?.label(key))
    }

    /// Counts the pods of a template and plans their refits. `None` while the first list of some pods is incomplete.
    async fn count_pods(
        &self,
        name: &str,
        template: &TemplateObject,
        daemon_sets: Vec<KeyedDaemonSet>,
        state: &mut LeaderState,
        plan: &mut RefitPlan,
    ) -> Option<TemplateCounts> {
        let resize_supported = state.resize_support.is_supported();
        let mut counts = TemplateCounts::new(daemon_sets.len(), self.options.is_enabled(), resize_supported);
        let is_node_ready = |name: &str| self.watches.nodes().get(name).is_some_and(|node| node.is_ready);
        for (key, daemon_set) in daemon_sets {
            let pods = match state.pods.of(&daemon_set) {
                Listing::Pods(pods) => pods,
                Listing::Pending => return None,
                Listing::Failed(reason) => {
                    counts.add_unlisted(&key, reason);
                    continue;
                }
            };
            let newest_pod = pods.iter().filter_map(|(_, pod)| pod.created_at()).max();
            let now = Timestamp::now().as_second();
            let refusal = state.refusals.reason(&self.client, &key, &daemon_set, newest_pod, now);
            if let Some(reason) = refusal.await {
                let message = counts.add_refusal(&key, daemon_set.missing_pods, reason);
                self.report_refusal(name, template, message.to_owned());
            }
            state.refitter.observe(plan, &daemon_set, name, &pods, is_node_ready);
            for (key, pod) in &pods {
                if let Some(reason) = pod.failure_for(name) {
                    counts.add_failed(key, reason);
                }
            }
            let pods = pods.into_iter().filter(|(_, pod)| pod.counts_for(name)).collect();
            let owner = (&*key, &daemon_set);
            self.count_daemon_set((name, template), owner, pods, &state.refitter, (plan, &mut counts)).await;
        }
        Some(counts)
    }

    /// Counts the `pods` of a DaemonSet and plans their refits.
    async fn count_daemon_set(
        &self,
        (name, template): (&str, &TemplateObject),
        (key, daemon_set): (&str, &Arc<DaemonSet>),
        pods: Vec<(Box<str>, Arc<RunningPod>)>,
        refitter: &Refitter,
        (plan, counts): (&mut RefitPlan, &mut TemplateCounts),
    ) {
        let limits = self.watches.namespace_limits(key.split('/').next().unwrap_or_default());
        let cause =
            RefitCause { daemon_set: &daemon_set.uid, template: name, generation: template.generation };
        let mut sizes = SizeRange::default();
        for (index, (key, pod)) in pods.into_iter().enumerate() {
            if index % BATCH == BATCH - 1 {
                tokio::task::yield_now().await;
            }
            let rules = template.rules.as_ref().ok();
            let drift = rules.and_then(|rules| Some((rules, self.drift(&pod, name, rules, &limits)?)));
            let Some((rules, mut drift)) = drift else {
                counts.add_pending();
                continue;
            };
            sizes.add(&drift.requests);
            if !drift.is_sized && self.selection.has_match_conditions {
                drift.hold = Some(RefitHold::NotSeenByWebhook);
            } else {
                refitter.consider(plan, rules.refit, (daemon_set, cause), (&key, &pod), &mut drift);
            }
            counts.add(&key, pod.node(), &drift);
        }
        counts.add_sizes(key, &sizes);
    }

    fn report_refusal(&self, name: &str, template: &TemplateObject, message: String) {
        let regarding = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(KIND.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(template.uid.to_string()),
            ..ObjectReference::default()
        };
        self.events.publish(regarding, EventType::Warning, "PodsRefused", "Create", message);
    }

    fn drift(
        &self,
        pod: &RunningPod,
        name: &str,
        template: &Template,
        limits: &NamespaceLimits,
    ) -> Option<Drift> {
        let node = self.watches.nodes().get(pod.node())?;
        Drift::of(pod, name, template, &node, limits, self.options.refit_hysteresis)
    }

    async fn patch_status(&self, name: &str, template: &TemplateObject, counts: &TemplateCounts, now: &str) {
        let status = template_status(template, counts, now);
        if status == template.status {
            return;
        }
        let path = format!("/apis/{API_VERSION}/{PLURAL}/{name}/status");
        let body = json!({"status": status});
        if let Err(error) = send(&self.client, "PATCH", &path, MediaType::MergePatch, &body).await {
            tracing::warn!(template = name, error = describe(&error), "can't write the status, trying again");
        }
    }
}

impl LeaderState {
    fn changes(&mut self) -> impl Iterator<Item = &mut watch::Receiver<u64>> {
        self.changes.iter_mut().chain(self.pods.changes())
    }
}

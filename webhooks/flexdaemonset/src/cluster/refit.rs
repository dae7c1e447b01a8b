//! Refits: running pods get their size by a resize in place or by an eviction.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use kube::Client;
use podshaper_core::object::Object;
use podshaper_kube::error::describe;
use podshaper_kube::events::{EventType, Events, ObjectReference};
use podshaper_kube::request::{MediaType, send};
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use flexdaemonset_decision::daemon_set::DaemonSet;
use flexdaemonset_decision::original_requests::ANNOTATION;
use flexdaemonset_decision::refit::{Difference, Remedy};
use flexdaemonset_decision::template::Refit;

use super::drift::{Drift, RefitHold};
use super::metrics::FlexDaemonsetMetrics;
use super::refit_history::{RefitCause, RefitHistory, RefitMethod};
use super::running_pods::{ResizeStatus, RunningPod};

/// How fast running pods are refitted, where their template asks for it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Refit")]
pub struct RefitOptions {
    /// A request or limit that differs by at most this percentage isn't refitted
    #[arg(long, env = "FLEXDAEMONSET_REFIT_HYSTERESIS", value_name = "PERCENT", default_value_t = 5, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub refit_hysteresis: u8,
    /// Resizes in progress at the same time
    #[arg(long, env = "FLEXDAEMONSET_REFIT_IN_FLIGHT", value_name = "N", default_value_t = 5)]
    pub refit_in_flight: u32,
    /// Pods resized or evicted per minute; 0 disables refits, whatever templates say
    #[arg(long, env = "FLEXDAEMONSET_REFIT_PER_MINUTE", value_name = "N", default_value_t = 60)]
    pub refit_per_minute: u32,
    /// Whether pods may be evicted. If false, only resizes in place are tried
    #[arg(long, env = "FLEXDAEMONSET_REFIT_EVICTIONS", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub refit_evictions: bool,
}

impl RefitOptions {
    /// Whether any pod may be refitted.
    pub(super) fn is_enabled(&self) -> bool {
        self.refit_per_minute > 0
    }
}

/// Refits pods while this replica leads.
pub(super) struct Refitter {
    client: Client,
    events: Events,
    metrics: FlexDaemonsetMetrics,
    options: RefitOptions,
    resize_supported: bool,
    /// `None` if refits are disabled.
    rate_limiter: Option<DefaultDirectRateLimiter>,
    history: RefitHistory,
    /// The number of executed plans.
    round: usize,
}

/// The refits that one reconciliation finds.
#[derive(Default)]
pub(super) struct RefitPlan {
    candidates: Vec<Candidate>,
    in_flight: u32,
    /// Pods with their size, each with the uid of its DaemonSet.
    settled: Vec<(Box<str>, Arc<RunningPod>)>,
    /// The number of pods, by the uid of the DaemonSet.
    pods: BTreeMap<Box<str>, usize>,
    /// By the uid of the DaemonSet and that of the pod.
    unavailable: BTreeSet<(Box<str>, Box<str>)>,
}

/// Why a refit waits for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RefitWait {
    InFlight,
    Rate,
    MaxUnavailable,
}

impl RefitWait {
    const fn reason(self) -> &'static str {
        match self {
            Self::InFlight => "as many resizes are in progress as refit.inFlight of the chart permits",
            Self::Rate => {
                "as many pods have changed in the last minute as refit.perMinute of the chart permits"
            }
            Self::MaxUnavailable => {
                "as many pods of its DaemonSet are unavailable as maxUnavailable of the update strategy permits"
            }
        }
    }
}

/// The pods of a template that wait for the refits of others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct WaitingPods {
    pub(super) count: u32,
    /// The first pod, with the reason.
    pub(super) example: String,
}

/// The refits of one reconciliation.
#[derive(Default)]
pub(super) struct RefitSchedule {
    /// Those that begin now.
    begun: Vec<Candidate>,
    /// Those that wait, by the name of the template.
    waiting: BTreeMap<Box<str>, WaitingPods>,
}

impl RefitSchedule {
    /// The pods of a template that wait.
    pub(super) fn waiting(&self, template: &str) -> WaitingPods {
        self.waiting.get(template).cloned().unwrap_or_default()
    }
}

/// A pod to refit.
struct Candidate {
    key: Box<str>,
    /// The name of its template.
    template: Box<str>,
    pod: Arc<RunningPod>,
    daemon_set: Arc<DaemonSet>,
    /// `metadata.generation` of its template.
    generation: i64,
    /// Pods of the DaemonSet that may be unavailable at a time.
    max_unavailable: usize,
    difference: Difference,
    method: RefitMethod,
    record: Option<String>,
}

impl Refitter {
    /// `resize_supported` says that the API server serves `pods/resize`.
    pub(super) fn new(
        client: Client,
        events: Events,
        metrics: FlexDaemonsetMetrics,
        options: RefitOptions,
        resize_supported: bool,
    ) -> Self {
        let per_minute = NonZeroU32::new(options.refit_per_minute);
        let rate_limiter = per_minute.map(|limit| RateLimiter::direct(Quota::per_minute(limit)));
        let history = RefitHistory::default();
        Self { client, events, metrics, options, resize_supported, rate_limiter, history, round: 0 }
    }

    /// Sets whether the API server serves `pods/resize`.
    pub(super) fn set_resize_supported(&mut self, resize_supported: bool) {
        self.resize_supported = resize_supported;
    }

    /// An empty plan.
    pub(super) fn plan(&mut self) -> RefitPlan {
        self.history.prune();
        RefitPlan::default()
    }

    /// Adds the pods of a DaemonSet that limit its refits to the plan.
    pub(super) fn observe(
        &self,
        plan: &mut RefitPlan,
        daemon_set: &DaemonSet,
        template: &str,
        pods: &[(Box<str>, Arc<RunningPod>)],
        is_node_ready: impl Fn(&str) -> bool,
    ) {
        plan.pods.insert(daemon_set.uid.clone(), pods.len());

        let unavailable = pods.iter().filter(|(_, pod)| !pod.is_available()).map(|(_, pod)| pod.uid());
        let uids = unavailable.chain(self.history.unreplaced(&daemon_set.uid, pods));
        plan.unavailable.extend(uids.map(|uid| (daemon_set.uid.clone(), uid.into())));
        for (_, pod) in pods.iter().filter(|(_, pod)| pod.counts_for(template)) {
            // Others' resizes, and those on nodes that are down, may never end.
            let is_resizing = pod.resize() == Some(&ResizeStatus::InProgress)
                && self.history.has_resized(pod)
                && is_node_ready(pod.node());
            plan.in_flight += u32::from(is_resizing || self.history.is_refitting(pod));
        }
    }

    /// Adds a pod to the plan if it is to be refitted. Else sets the reason in `drift`, if there is one.
    pub(super) fn consider(
        &self,
        plan: &mut RefitPlan,
        refit: Refit,
        (daemon_set, cause): (&Arc<DaemonSet>, RefitCause<'_>),
        (key, pod): (&str, &Arc<RunningPod>),
        drift: &mut Drift,
    ) {
        let Some(difference) = &drift.difference else {
            plan.settled.push((daemon_set.uid.clone(), Arc::clone(pod)));
            return;
        };
        let mut method = self.method(refit, pod, &difference.remedy);
        if refit == Refit::InPlaceOrRecreate
            && method == Some(RefitMethod::Resize)
            && self.history.is_resize_refused(pod, &difference.summary)
        {
            method = Some(RefitMethod::Evict);
        }
        if method == Some(RefitMethod::Evict) && daemon_set.on_delete {
            drift.hold = Some(RefitHold::OnDelete);
            method = None;
        } else if method == Some(RefitMethod::Evict) && !self.options.refit_evictions {
            drift.hold = Some(RefitHold::EvictionsDisabled);
            method = None;
        }
        if let Some(reason) = self.history.blocked(cause, pod, method, &difference.summary) {
            drift.infeasible = Some(reason.to_owned());
        } else if let Some(method) = method
            && !self.history.is_refitting(pod)
        {
            if method == RefitMethod::Evict {
                drift.infeasible = None;
            }
            plan.candidates.push(Candidate {
                key: key.into(),
                template: cause.template.into(),
                pod: Arc::clone(pod),
                daemon_set: Arc::clone(daemon_set),
                generation: cause.generation,
                max_unavailable: daemon_set.max_unavailable.of(plan
                    .pods
                    .get(&daemon_set.uid)
                    .copied()
                    .unwrap_or_default()),
                difference: difference.clone(),
                method,
                record: drift.record.clone(),
            });
        }
    }

    fn method(&self, refit: Refit, pod: &RunningPod, remedy: &Remedy) -> Option<RefitMethod> {
        let enabled = self.options.is_enabled();
        let can_resize = self.resize_supported && pod.is_bound() && matches!(remedy, Remedy::Resize(_));
        match refit {
            Refit::InPlace | Refit::InPlaceOrRecreate if enabled && can_resize => Some(RefitMethod::Resize),
            Refit::InPlaceOrRecreate if enabled => Some(RefitMethod::Evict),
            _ => None,
        }
    }

    /// Chooses as many refits as the limits allow. All others wait.
    pub(super) fn schedule(&mut self, mut plan: RefitPlan) -> RefitSchedule {
        let mut schedule = RefitSchedule::default();
        self.round = self.round.wrapping_add(1);
        for (daemon_set, pod) in std::mem::take(&mut plan.settled) {
            self.history.add_success(&daemon_set, &pod);
        }
        for candidate in in_fair_order(std::mem::take(&mut plan.candidates), self.round) {
            if let Some(wait) = self.waits(&plan, &candidate) {
                let waiting = schedule.waiting.entry(candidate.template).or_default();
                if waiting.count == 0 {
                    waiting.example = format!("{}: {}", candidate.key, wait.reason());
                }
                waiting.count += 1;
                continue;
            }
            match candidate.method {
                RefitMethod::Resize => plan.in_flight += 1,
                RefitMethod::Evict => {
                    plan.unavailable.insert((candidate.daemon_set.uid.clone(), candidate.pod.uid().into()));
                }
            }
            schedule.begun.push(candidate);
        }
        schedule
    }

    /// Why the refit can't begin now.
    fn waits(&self, plan: &RefitPlan, candidate: &Candidate) -> Option<RefitWait> {
        let wait = match candidate.method {
            RefitMethod::Resize => {
                (plan.in_flight >= self.options.refit_in_flight).then_some(RefitWait::InFlight)
            }
            // Unavailable pods don't guard each other: their eviction makes no other pod unavailable.
            RefitMethod::Evict => {
                let is_other = |(daemon_set, uid): &&(Box<str>, Box<str>)| {
                    *daemon_set == candidate.daemon_set.uid && **uid != *candidate.pod.uid()
                };
                let unavailable = plan.unavailable.iter().filter(is_other).count();
                let must_wait = candidate.pod.is_available() && unavailable >= candidate.max_unavailable;
                must_wait.then_some(RefitWait::MaxUnavailable)
            }
        };
        wait.or_else(|| (!self.is_within_rate()).then_some(RefitWait::Rate))
    }

    /// Begins the refits. Returns whether there are any.
    pub(super) async fn execute(&mut self, schedule: RefitSchedule) -> bool {
        let is_tried = !schedule.begun.is_empty();
        for candidate in schedule.begun {
            let result = match (candidate.method, &candidate.difference.remedy) {
                (RefitMethod::Resize, Remedy::Resize(resize)) => self.resize(&candidate, resize).await,
                _ => self.evict(&candidate).await,
            };
            self.report(candidate, result);
        }
        is_tried
    }

    /// Takes one refit of those that the rate permits.
    fn is_within_rate(&self) -> bool {
        self.rate_limiter.as_ref().is_some_and(|limiter| limiter.check().is_ok())
    }

    /// The uid and the resourceVersion are preconditions: the pod may be another one by now, or have another size.
    async fn resize(&self, candidate: &Candidate, resize: &Value) -> kube::Result<()> {
        let uid = candidate.pod.uid();
        let mut version = candidate.pod.resource_version().to_owned();
        // The original requests are recorded before the resize overwrites them.
        if let Some(record) = &candidate.record {
            let metadata =
                json!({"uid": uid, "resourceVersion": version, "annotations": {ANNOTATION: record}});
            let body = json!({"metadata": metadata});
            let answer =
                send(&self.client, "PATCH", &candidate.path(""), MediaType::MergePatch, &body).await?;
            let pod: Object<IgnoredAny, IgnoredAny> =
                serde_json::from_str(&answer).map_err(kube::Error::SerdeError)?;
            version = pod.metadata.resource_version;
        }
        let mut resize = resize.clone();
        if let Some(resize) = resize.as_object_mut() {
            resize.insert("metadata".to_owned(), json!({"uid": uid, "resourceVersion": version}));
        }
        let path = candidate.path("/resize");
        send(&self.client, "PATCH", &path, MediaType::StrategicMergePatch, &resize).await.map(drop)
    }

    /// Disruption budgets may reject the eviction.
    async fn evict(&self, candidate: &Candidate) -> kube::Result<()> {
        let (namespace, name) = candidate.namespace_and_name();
        let eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": name},
            "deleteOptions": {"preconditions": {"uid": candidate.pod.uid()}},
        });
        send(&self.client, "POST", &candidate.path("/eviction"), MediaType::Json, &eviction).await.map(drop)
    }

    fn report(&mut self, candidate: Candidate, result: kube::Result<()>) {
        let (namespace, name) = candidate.namespace_and_name();
        let regarding = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(namespace.to_owned()),
            name: Some(name.to_owned()),
            uid: Some(candidate.pod.uid().to_owned()),
            ..ObjectReference::default()
        };
        let Candidate { key, template, pod, daemon_set, generation, difference, method, .. } = candidate;
        let cause = RefitCause { daemon_set: &daemon_set.uid, template: &template, generation };
        let change = difference.summary;
        let (event_type, action, reason, message) = match result {
            Ok(()) => {
                let action = match method {
                    RefitMethod::Resize => "resized",
                    RefitMethod::Evict => "evicted",
                };
                let message = format!("{action} to follow its template: {change}");
                self.history.add_refit(cause, &pod, method, change);
                (EventType::Normal, action, "Refit", message)
            }
            Err(error) => {
                let is_permanent = is_permanent(&error);
                let error = describe(&error);
                let message = format!("can't follow its template ({change}): {error}");
                self.history.add_rejection(&pod, method, change, error, is_permanent);
                (EventType::Warning, "refused", "RefitFailed", message)
            }
        };
        tracing::info!(pod = &*key, action, message, "refit");
        self.metrics.count_refit(action);
        self.events.publish(regarding, event_type, reason, "Refit", message);
    }
}

/// Whether the API server rejects the same request again: no conflict, no disruption budget, no overload.
fn is_permanent(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && !matches!(status.code, 408 | 409 | 429))
}

/// The candidates of all namespaces in turn, and of a namespace the unavailable pods first. Each round begins with another namespace.
fn in_fair_order(candidates: Vec<Candidate>, round: usize) -> Vec<Candidate> {
    let mut by_namespace: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        let (namespace, _) = candidate.namespace_and_name();
        by_namespace.entry(namespace.to_owned()).or_default().push(candidate);
    }
    let mut queues: Vec<_> = by_namespace
        .into_values()
        .map(|mut candidates| {
            candidates.sort_by_key(|candidate| candidate.pod.is_available());
            candidates.into_iter()
        })
        .collect();
    if !queues.is_empty() {
        let first = round % queues.len();
        queues.rotate_left(first);
    }
    let mut ordered = Vec::new();
    loop {
        let before = ordered.len();
        ordered.extend(queues.iter_mut().filter_map(Iterator::next));
        if ordered.len() == before {
            return ordered;
        }
    }
}

impl Candidate {
    fn namespace_and_name(&self) -> (&str, &str) {
        self.key.split_once('/').unwrap_or_default()
    }

    fn path(&self, subresource: &str) -> String {
        let (namespace, name) = self.namespace_and_name();
        format!("/api/v1/namespaces/{namespace}/pods/{name}{subresource}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use podshaper_testing::MockApiServer;

    fn candidate(key: &str) -> Candidate {
        Candidate {
            key: key.into(),
            template: "t".into(),
            pod: Arc::new(RunningPod::for_test(key, "n")),
            daemon_set: Arc::default(),
            generation: 1,
            max_unavailable: 1,
            difference: Difference { summary: String::new(), remedy: Remedy::Recreate("") },
            method: RefitMethod::Evict,
            record: None,
        }
    }

    fn refitter(client: &Client, refit_per_minute: u32) -> Refitter {
        let events = Events::start(client.clone(), "flexdaemonset", "replica".to_owned());
        let options =
            RefitOptions { refit_hysteresis: 5, refit_in_flight: 1, refit_per_minute, refit_evictions: true };
        Refitter::new(client.clone(), events, FlexDaemonsetMetrics::default(), options, true)
    }

    /// The keys of the refits that begin, and the pods that wait.
    fn scheduled(refitter: &mut Refitter, candidates: Vec<Candidate>) -> (Vec<String>, WaitingPods) {
        let schedule = refitter.schedule(RefitPlan { candidates, ..RefitPlan::default() });
        let begun = schedule.begun.iter().map(|candidate| candidate.key.to_string()).collect();
        (begun, schedule.waiting("t"))
    }

    fn ready(key: &str) -> Candidate {
        Candidate { pod: Arc::new(RunningPod::for_test(key, "n").ready()), ..candidate(key) }
    }

    #[tokio::test]
    async fn refit_that_waits_has_reason() {
        let (client, _server) = MockApiServer::start();
        let mut refits = refitter(&client, 1000);
        let (begun, waiting) = scheduled(&mut refits, vec![ready("a/1"), ready("a/2"), ready("a/3")]);
        assert_eq!((begun, waiting.count), (vec!["a/1".to_owned()], 2));
        assert!(
            waiting.example.starts_with("a/2: ") && waiting.example.contains("maxUnavailable"),
            "{waiting:?}"
        );

        let resize = |key: &str| Candidate { method: RefitMethod::Resize, ..ready(key) };
        let (begun, waiting) = scheduled(&mut refits, vec![resize("a/1"), resize("a/2")]);
        assert_eq!(begun, ["a/1"]);
        assert!(waiting.example.contains("refit.inFlight"), "{waiting:?}");

        let (begun, waiting) = scheduled(&mut refitter(&client, 1), vec![candidate("a/1"), candidate("a/2")]);
        assert_eq!(begun, ["a/1"]);
        assert!(waiting.example.contains("refit.perMinute"), "{waiting:?}");
    }

    #[tokio::test]
    async fn unready_pods_do_not_guard_each_other() {
        let (client, _server) = MockApiServer::start();
        let candidates = vec![ready("a/1"), candidate("a/2"), candidate("a/3")];
        let (begun, waiting) = scheduled(&mut refitter(&client, 1000), candidates);
        assert_eq!((begun, waiting.count), (vec!["a/2".to_owned(), "a/3".to_owned()], 1));
    }

    #[tokio::test]
    async fn resize_has_uid_and_version_as_preconditions() {
        let (client, mut server) = MockApiServer::start();
        let remedy = Remedy::Resize(json!({"spec": {"containers": []}}));
        let recorded = Candidate {
            difference: Difference { summary: String::new(), remedy },
            method: RefitMethod::Resize,
            record: Some("{}".to_owned()),
            ..ready("a/1")
        };
        let mut refitter = refitter(&client, 1000);
        let schedule = refitter.schedule(RefitPlan { candidates: vec![recorded], ..RefitPlan::default() });
        let answers = async {
            let record = server.next("/api/v1/namespaces/a/pods/1").await;
            assert_eq!(record.request().body()["metadata"]["resourceVersion"], "7");
            record.answer(200, &json!({"metadata": {"name": "1", "resourceVersion": "8"}}));
            let resize = server.next("/api/v1/namespaces/a/pods/1/resize").await;
            assert_eq!(resize.request().body()["metadata"], json!({"uid": "a/1", "resourceVersion": "8"}));
            resize.answer(200, &json!({}));
        };
        assert!(tokio::join!(refitter.execute(schedule), answers).0);
    }

    #[tokio::test]
    async fn pod_that_needs_new_one_is_held_without_evictions() {
        let (client, _server) = MockApiServer::start();
        let considered = |refit_evictions| {
            let mut refitter = refitter(&client, 1000);
            refitter.options.refit_evictions = refit_evictions;
            let Candidate { pod, daemon_set, difference, .. } = ready("a/1");
            let mut drift = Drift { difference: Some(difference), ..Drift::default() };
            let mut plan = RefitPlan::default();
            let cause = RefitCause { daemon_set: "d", template: "t", generation: 1 };
            let refit = Refit::InPlaceOrRecreate;
            refitter.consider(&mut plan, refit, (&daemon_set, cause), ("a/1", &pod), &mut drift);
            (plan.candidates.len(), drift.hold)
        };
        assert_eq!(considered(true), (1, None));
        assert_eq!(considered(false), (0, Some(RefitHold::EvictionsDisabled)));
    }

    #[test]
    fn namespaces_take_turns() {
        let order = |round| {
            let candidates = ["a/1", "a/2", "a/3", "b/1", "c/1"].map(candidate).into();
            let ordered = in_fair_order(candidates, round);
            ordered.iter().map(|candidate| candidate.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(order(0), ["a/1", "b/1", "c/1", "a/2", "a/3"]);
        assert_eq!(order(1), ["b/1", "c/1", "a/1", "a/2", "a/3"]);
        assert_eq!(order(5)[0], "c/1");
        assert!(in_fair_order(Vec::new(), 1).is_empty());
    }
}

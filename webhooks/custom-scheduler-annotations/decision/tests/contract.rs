//! The decision about single pods and workloads, as the contract has it, by facts from files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use custom_scheduler_annotations_decision::facts::{Facts, PodOutcome};
use custom_scheduler_annotations_decision::{Annotated, Settings};
use podshaper_core::admission::{Outcome as Answered, answer};
use podshaper_placement::admit::PlaceOutcome;
use podshaper_placement::offline::FileBackend;
use serde_json::{Value, json};

const STRATEGY: &str = "custom-pod-schedule-strategy";
const SAMPLE: &str =
    "nodesize=od4vcpu16gb,base=1,weight=0:nodesize=spot4vcpu16gb,weight=1:nodesize=spot8vcpu32gb,weight=1";

/// The recorded outcomes: outcome, reason, workload.
type RecordingFacts = Arc<Mutex<Vec<(PlaceOutcome, String, Option<String>)>>>;

/// Facts from files that record the outcomes.
struct World {
    files: FileBackend,
    recorded: RecordingFacts,
    explains: bool,
}

impl Facts for World {
    type Backend = FileBackend;

    fn backend(&self) -> &FileBackend {
        &self.files
    }

    fn record_outcome(&self, outcome: &PodOutcome<'_>) {
        let workload = outcome.workload.map(|owner| format!("{} {}", owner.kind, owner.name));
        self.recorded.lock().unwrap().push((outcome.outcome, outcome.reason.to_owned(), workload));
    }

    fn explains(&self) -> bool {
        self.explains
    }
}

struct Webhook {
    webhook: Annotated<World>,
    recorded: RecordingFacts,
}

/// The answer: its kind, the object, warnings, notes, and the reason of a refusal.
struct Answer {
    outcome: Answered,
    object: Value,
    warnings: Vec<String>,
    notes: Vec<String>,
    denial: String,
}

impl Webhook {
    fn of(facts: &[Value], validate: bool, explains: bool) -> Self {
        let files = FileBackend::new(facts).unwrap();
        let recorded = RecordingFacts::default();
        let world = World { files, recorded: Arc::clone(&recorded), explains };
        let settings = Settings { blocklist: ["blocked".to_owned()].into(), validate };
        Self { webhook: Annotated::new(world, settings, Arc::default()), recorded }
    }

    async fn review(&self, request: &Value) -> Answer {
        let review =
            json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request});
        let deadline = Instant::now() + Duration::from_secs(5);
        let answer = answer(&self.webhook, review.to_string().as_bytes(), deadline).await.unwrap();
        let response = answer.response().unwrap();
        let patch: json_patch::Patch = serde_json::from_value(response.patch.into()).unwrap();
        let mut object = request["object"].clone();
        json_patch::patch(&mut object, &patch).unwrap();
        Answer {
            outcome: answer.outcome,
            object,
            warnings: response.warnings,
            notes: answer.notes,
            denial: response.denial.unwrap_or_default(),
        }
    }

    async fn pod(&self, pod: &Value) -> Answer {
        static NUMBER: Mutex<u32> = Mutex::new(0);
        let number = {
            let mut number = NUMBER.lock().unwrap();
            *number += 1;
            *number
        };
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or("default");
        let request = json!({
            "uid": format!("request-{number}"), "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "namespace": namespace, "name": pod["metadata"]["name"], "operation": "CREATE", "object": pod,
        });
        self.review(&request).await
    }

    /// How many of `count` pods that are created one after the other go to each of the sample's groups.
    async fn shares(&self, pod: &Value, count: usize) -> [usize; 3] {
        let mut shares = [0; 3];
        for _ in 0..count {
            let placed = self.pod(pod).await.object;
            let group = placed["spec"]["nodeSelector"]["nodesize"].as_str().expect("placed");
            let groups = ["od4vcpu16gb", "spot4vcpu16gb", "spot8vcpu32gb"];
            shares[groups.iter().position(|own| *own == group).unwrap()] += 1;
        }
        shares
    }

    async fn workload(&self, operation: &str, kind: &str, object: &Value, old: &Value) -> Answer {
        let request = json!({
            "uid": "u", "kind": {"group": "apps", "version": "v1", "kind": kind}, "namespace": "default",
            "name": "web", "operation": operation, "object": object, "oldObject": old,
        });
        self.review(&request).await
    }

    fn recorded(&self) -> (PlaceOutcome, String, Option<String>) {
        self.recorded.lock().unwrap().last().unwrap().clone()
    }
}

fn object(api_version: &str, kind: &str, name: &str, owner: Option<(&str, &str)>) -> Value {
    let owners = owner.map(|(kind, name)| {
        let api_version = if kind.ends_with("Job") { "batch/v1" } else { "apps/v1" };
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": format!("{kind}-{name}"), "controller": true}])
    });
    json!({
        "apiVersion": api_version, "kind": kind,
        "metadata": {"name": name, "uid": format!("{kind}-{name}"), "ownerReferences": owners},
        "spec": {},
    })
}

fn with(mut object: Value, annotations: Value) -> Value {
    object["metadata"]["annotations"] = annotations;
    object
}

fn pod() -> Value {
    object("v1", "Pod", "web-1-x", Some(("ReplicaSet", "web-1")))
}

fn set() -> Value {
    object("apps/v1", "ReplicaSet", "web-1", Some(("Deployment", "web")))
}

fn deployment() -> Value {
    object("apps/v1", "Deployment", "web", None)
}

#[tokio::test]
async fn both_generations_on_the_workload_and_on_its_template() {
    let older = json!({"UseCustomKubeScheduler": "true", "CustomPodScheduleStrategy": SAMPLE});
    for annotations in [json!({STRATEGY: SAMPLE}), older] {
        for (count, shares) in [(10, [1, 4, 5]), (5, [1, 2, 2]), (30, [1, 14, 15])] {
            let webhook = Webhook::of(&[set(), with(deployment(), annotations.clone())], false, false);
            assert_eq!(webhook.shares(&pod(), count).await, shares);
            let webhook = Webhook::of(&[set(), deployment()], false, false);
            assert_eq!(webhook.shares(&with(pod(), annotations.clone()), count).await, shares);
        }
    }
}

#[tokio::test]
async fn placed_pod_has_annotations_label_and_selector() {
    let webhook = Webhook::of(&[set(), with(deployment(), json!({STRATEGY: SAMPLE}))], false, false);
    let mut own = pod();
    own["spec"]["nodeSelector"] = json!({"disk": "ssd"});
    let placed = webhook.pod(&own).await.object;
    assert_eq!(placed["spec"]["nodeSelector"], json!({"disk": "ssd", "nodesize": "od4vcpu16gb"}), "added");
    assert_eq!(placed["metadata"]["labels"], json!({"podshaper.dev/placed": "custom-scheduler-annotations"}));
    let annotations = &placed["metadata"]["annotations"];
    assert_eq!(annotations["placement.podshaper.dev/group"], "nodesize=od4vcpu16gb");
    assert_eq!(annotations["controller.kubernetes.io/pod-deletion-cost"], "0");
    assert_eq!(webhook.recorded(), (PlaceOutcome::Placed, String::new(), Some("Deployment web".to_owned())));
    // Called again.
    assert_eq!(webhook.pod(&placed).await.outcome, Answered::Unchanged);
    assert_eq!(webhook.recorded().0, PlaceOutcome::Kept);
}

#[tokio::test]
async fn template_precedes_owners_and_copies_do_not_count() {
    let of = |text: &str| json!({STRATEGY: text});
    let facts = [with(set(), of("type=copy,base=9")), with(deployment(), of("type=own,base=9"))];
    let webhook = Webhook::of(&facts, false, false);
    assert_eq!(webhook.pod(&pod()).await.object["spec"]["nodeSelector"], json!({"type": "own"}));
    let templated = webhook.pod(&with(pod(), of("type=template,base=9"))).await.object;
    assert_eq!(templated["spec"]["nodeSelector"], json!({"type": "template"}));
    let without = Webhook::of(&[with(set(), of("type=copy,base=9")), deployment()], false, false);
    assert_eq!(without.pod(&pod()).await.outcome, Answered::Unchanged);
}

#[tokio::test]
async fn other_controllers() {
    let explained = json!({STRATEGY: "a=b,base=1:a=c,weight=1"});
    let group = async |facts: &[Value], pod: &Value| {
        let placed = Webhook::of(facts, false, false).pod(pod).await.object;
        placed["spec"]["nodeSelector"]["a"].as_str().unwrap_or_default().to_owned()
    };
    // Numbered: its ordinal is its slot, whatever was there before.
    let stateful = with(object("apps/v1", "StatefulSet", "db", None), explained.clone());
    for (name, wanted) in [("db-0", "b"), ("db-1", "c"), ("db-7", "c")] {
        assert_eq!(
            group(std::slice::from_ref(&stateful), &object("v1", "Pod", name, Some(("StatefulSet", "db"))))
                .await,
            wanted
        );
    }
    let job = object("batch/v1", "Job", "job-1", Some(("CronJob", "job")));
    let cron_job = with(object("batch/v1", "CronJob", "job", None), explained.clone());
    let of_job = object("v1", "Pod", "job-1-x", Some(("Job", "job-1")));
    assert_eq!(group(&[job.clone(), cron_job], &of_job).await, "b");
    assert_eq!(group(&[job, object("batch/v1", "CronJob", "job", None)], &of_job).await, "");
    let farm = with(object("farms.example.com/v1", "Farm", "web", None), explained);
    assert_eq!(group(&[farm], &object("v1", "Pod", "web-x", Some(("Farm", "web")))).await, "b");
}

#[tokio::test]
async fn invalid_strategy_gets_a_warning_with_its_position() {
    let webhook = Webhook::of(&[set(), with(deployment(), json!({STRATEGY: "a=b,weight=-1"}))], false, false);
    let answer = webhook.pod(&pod()).await;
    assert_eq!((answer.outcome, &answer.object), (Answered::Undecided, &pod()));
    let reason = "custom-pod-schedule-strategy of Deployment web: at character 12: weight must be a whole number from 0 to 1000000, \
                  not \"-1\": the pod isn't placed";
    assert_eq!(
        answer.warnings,
        [&*format!("custom-scheduler-annotations: {reason}"), "  a=b,weight=-1", "             ^"]
    );
    assert_eq!(
        webhook.recorded(),
        (PlaceOutcome::Invalid, reason.to_owned(), Some("Deployment web".to_owned()))
    );
    let halves = json!({"UseCustomKubeScheduler": "true"});
    let answer = Webhook::of(&[set(), with(deployment(), halves)], false, false).pod(&pod()).await;
    let [warning] = &answer.warnings[..] else { panic!("{:?}", answer.warnings) };
    assert!(
        warning.contains("CustomPodScheduleStrategy of Deployment web: at character 1: a node label"),
        "{warning}"
    );
}

#[tokio::test]
async fn exempt_pods_stay_unchanged() {
    let explained = json!({STRATEGY: SAMPLE});
    let facts = [set(), with(deployment(), explained.clone())];
    let webhook = Webhook::of(&facts, false, false);
    let untouched = async |pod: &Value| {
        let answer = webhook.pod(pod).await;
        assert_eq!((answer.outcome, answer.warnings), (Answered::Unchanged, Vec::<String>::new()));
    };
    let mut blocked = pod();
    blocked["metadata"]["namespace"] = json!("blocked");
    untouched(&blocked).await;
    blocked["metadata"]["annotations"] = explained;
    untouched(&blocked).await;
    untouched(&object("v1", "Pod", "alone", None)).await;
    let mut impostor = pod();
    impostor["metadata"]["ownerReferences"][0]["uid"] = json!("made up");
    untouched(&impostor).await;
    assert!(webhook.recorded.lock().unwrap().is_empty());
    let plain = Webhook::of(&[set(), deployment()], false, false);
    assert_eq!(plain.pod(&pod()).await.outcome, Answered::Unchanged);
}

#[tokio::test]
async fn pod_of_other_webhook_stays_unchanged() {
    let webhook = Webhook::of(&[set(), with(deployment(), json!({STRATEGY: SAMPLE}))], false, false);
    let mut placed = with(
        pod(),
        json!({
            "placement.podshaper.dev/token": "00000000000000ff", "placement.podshaper.dev/slot": "0",
            "placement.podshaper.dev/group": "type=spot", "placement.podshaper.dev/owner": "ReplicaSet-web-1",
        }),
    );
    placed["metadata"]["labels"] = json!({"podshaper.dev/placed": "distributor"});
    placed["spec"]["nodeSelector"] = json!({"type": "spot"});
    let answer = webhook.pod(&placed).await;
    assert_eq!((answer.outcome, &answer.object), (Answered::Unchanged, &placed));
    assert!(answer.warnings[0].ends_with("distributor has already placed the pod"), "{:?}", answer.warnings);
    assert_eq!(webhook.recorded().0, PlaceOutcome::Superseded);
    // A copy of it in another workload is a new pod.
    placed["metadata"]["annotations"]["placement.podshaper.dev/owner"] = json!("another");
    assert_eq!(webhook.pod(&placed).await.object["spec"]["nodeSelector"]["nodesize"], "od4vcpu16gb");
}

#[tokio::test]
async fn undecided_pod_gets_a_warning() {
    let explained = json!({STRATEGY: SAMPLE});
    for (facts, pod, reason) in [
        (vec![], pod(), "ReplicaSet web-1 can't be read: the pod isn't placed"),
        (vec![set()], pod(), "Deployment web can't be read: the pod isn't placed"),
        (vec![], with(pod(), explained.clone()), "ReplicaSet web-1 can't be read: the pod isn't placed"),
        (
            vec![],
            with(object("v1", "Pod", "a", None), explained.clone()),
            "the pod has no controller: the pod isn't placed",
        ),
        (
            vec![set(), with(deployment(), json!({STRATEGY: "a=b,base=0,weight=1"}))],
            {
                let mut picky = pod();
                picky["spec"]["nodeSelector"] = json!({"a": "c"});
                picky
            },
            "leave none of the groups: it isn't placed",
        ),
    ] {
        let answer = Webhook::of(&facts, false, false).pod(&pod).await;
        assert_eq!(answer.outcome, Answered::Undecided);
        assert!(answer.warnings[0].ends_with(reason), "{:?}", answer.warnings);
    }
    let full = Webhook::of(&[set(), with(deployment(), json!({STRATEGY: "a=b,base=2"}))], false, false);
    for _ in 0..2 {
        assert_eq!(full.pod(&pod()).await.outcome, Answered::Patched);
    }
    assert_eq!(full.pod(&pod()).await.outcome, Answered::Undecided);
    assert_eq!(full.recorded().0, PlaceOutcome::Full);
}

#[tokio::test]
async fn workload_with_invalid_strategy_is_warned_of_or_refused() {
    let bad = with(deployment(), json!({STRATEGY: "a=b,wait=1"}));
    let good = with(deployment(), json!({STRATEGY: SAMPLE}));
    let warns = Webhook::of(&[], false, false);
    let answer = warns.workload("CREATE", "Deployment", &bad, &Value::Null).await;
    assert_eq!(answer.outcome, Answered::Unchanged);
    assert_eq!(
        answer.warnings,
        [
            "custom-scheduler-annotations: custom-pod-schedule-strategy: at character 5: \"wait=1\" is a second node label; a group has one",
            "  a=b,wait=1",
            "      ^"
        ]
    );
    assert!(warns.workload("CREATE", "Deployment", &good, &Value::Null).await.warnings.is_empty());
    let refuses = Webhook::of(&[], true, false);
    let mut template = deployment();
    template["spec"]["template"]["metadata"]["annotations"] = json!({STRATEGY: "a=b"});
    for (object, old, refused) in [
        (&bad, &Value::Null, true),
        (&template, &Value::Null, true),
        (&bad, &good, true),
        (&bad, &template, true),
        // Other changes of the workload are admitted.
        (&bad, &bad, false),
        (&good, &bad, false),
    ] {
        let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
        let answer = refuses.workload(operation, "Deployment", object, old).await;
        assert_eq!(answer.outcome == Answered::Denied, refused, "{object} {old}");
        assert_eq!(answer.denial.ends_with('^'), refused, "{}", answer.denial);
    }
    // A copy by a controller gets no warning.
    let copy = with(set(), json!({STRATEGY: "a=b"}));
    assert_eq!(
        refuses.workload("CREATE", "ReplicaSet", &copy, &Value::Null).await.outcome,
        Answered::Unchanged
    );
    let deleted = refuses.workload("DELETE", "Deployment", &Value::Null, &bad).await;
    assert_eq!((deleted.outcome, deleted.warnings.len()), (Answered::Unchanged, 0));
}

#[tokio::test]
async fn offline_decision_describes_the_strategy() {
    let mut workload = with(deployment(), json!({STRATEGY: SAMPLE}));
    workload["spec"]["replicas"] = json!(10);
    let explains = Webhook::of(&[], false, true);
    let explained = explains.workload("CREATE", "Deployment", &workload, &Value::Null).await;
    assert_eq!((explained.outcome, explained.warnings.len()), (Answered::Unchanged, 0));
    assert_eq!(
        explained.notes,
        ["custom-pod-schedule-strategy: of 10 pods 1 to nodesize=od4vcpu16gb, 4 to nodesize=spot4vcpu16gb, \
          5 to nodesize=spot8vcpu32gb; `plan` shows their order"]
    );
    let mut blocked = pod();
    blocked["metadata"]["namespace"] = json!("blocked");
    let explained = explains.pod(&blocked).await;
    assert_eq!(explained.outcome, Answered::Unchanged);
    assert_eq!(
        explained.warnings,
        ["custom-scheduler-annotations: the namespace is on the blocklist: its pods aren't placed"]
    );
}

/// An object with an owner of any API group.
fn owned(kind: (&str, &str), name: &str, owner: Option<(&str, &str, &str)>) -> Value {
    let owners = owner.map(|(api_version, kind, name)| {
        json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": format!("{kind}-{name}"), "controller": true}])
    });
    json!({
        "apiVersion": kind.0, "kind": kind.1,
        "metadata": {"name": name, "uid": format!("{}-{name}", kind.1), "ownerReferences": owners},
        "spec": {},
    })
}

#[tokio::test]
async fn numbered_pod_of_any_controller_takes_the_slot_of_its_number() {
    const KRUISE: (&str, &str) = ("apps.kruise.io/v1beta1", "StatefulSet");
    let set = with(owned(KRUISE, "db", None), json!({STRATEGY: "a=b,base=1:a=c,weight=1"}));
    let webhook = Webhook::of(&[set], false, false);
    for (name, index, expected) in
        [("db-0", None, "b"), ("db-7", None, "c"), ("db-x", Some("0"), "b"), ("db-y", Some("3"), "c")]
    {
        let mut pod = owned(("v1", "Pod"), name, Some((KRUISE.0, KRUISE.1, "db")));
        if let Some(index) = index {
            pod["metadata"]["labels"] = json!({"apps.kubernetes.io/pod-index": index});
        }
        assert_eq!(webhook.pod(&pod).await.object["spec"]["nodeSelector"]["a"], expected, "{name} {index:?}");
    }
}

#[tokio::test]
async fn worker_runs_in_the_group_of_its_leader_and_takes_no_slot() {
    const SET: (&str, &str) = ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet");
    let strategy = json!({STRATEGY: "a=b,base=1:a=c,weight=1"});
    let leaders = owned(("apps/v1", "StatefulSet"), "lws", Some((SET.0, SET.1, "lws")));
    let workers = owned(("apps/v1", "StatefulSet"), "lws-1", Some(("v1", "Pod", "lws-1")));
    let mut leader = owned(("v1", "Pod"), "lws-1", Some(("apps/v1", "StatefulSet", "lws")));
    let facts = [with(owned(SET, "lws", None), strategy), leaders, workers];
    let placed = Webhook::of(&facts, false, false).pod(&leader).await.object;
    assert_eq!(placed["spec"]["nodeSelector"]["a"], "c", "the leader has number 1");
    assert!(placed["metadata"]["annotations"]["placement.podshaper.dev/group-hash"].is_string());
    leader["metadata"]["annotations"] = placed["metadata"]["annotations"].clone();
    let facts = [&facts[..], &[leader]].concat();
    let worker = owned(("v1", "Pod"), "lws-1-1", Some(("apps/v1", "StatefulSet", "lws-1")));
    let worker = Webhook::of(&facts, false, false).pod(&worker).await.object;
    assert_eq!(worker["spec"]["nodeSelector"]["a"], "c");
    assert_eq!(worker["metadata"]["annotations"]["placement.podshaper.dev/slot"], Value::Null);
}

#[tokio::test]
async fn jobs_of_one_owner_take_slots_over_time() {
    const SCALED: (&str, &str) = ("keda.sh/v1alpha1", "ScaledJob");
    let strategy = json!({STRATEGY: "a=b,weight=9:a=c,weight=1"});
    let mut facts = vec![with(owned(SCALED, "queue", None), strategy)];
    facts.extend(
        (0..20).map(|run| {
            owned(("batch/v1", "Job"), &format!("run-{run}"), Some((SCALED.0, SCALED.1, "queue")))
        }),
    );
    let webhook = Webhook::of(&facts, false, false);
    let mut second = 0;
    for run in 0..20 {
        let pod =
            owned(("v1", "Pod"), &format!("run-{run}-x"), Some(("batch/v1", "Job", &format!("run-{run}"))));
        second += usize::from(webhook.pod(&pod).await.object["spec"]["nodeSelector"]["a"] == "c");
    }
    assert_eq!(second, 2, "2 of 20 at 90/10");
}

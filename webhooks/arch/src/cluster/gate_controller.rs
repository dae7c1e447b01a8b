//! Removes the scheduling gate of pods when their images are known or their time is over.
//!
//! Every replica does so. Each patch tests the resourceVersion, so the second replica gets a conflict.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Error};
use podshaper_core::admission::{Decision, MAX_VIEW, Verdict};
use podshaper_core::json::within;
use podshaper_core::patch::Pointer;
use podshaper_core::pod::Pod;
use podshaper_kube::error::describe;
use podshaper_kube::request::{MediaType, REQUEST_TIMEOUT, get, get_text, send};
use podshaper_kube::store::Store;
use podshaper_kube::watch::{WatchScope, reflect};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use super::gated::GatedPod;
use super::recheck::{GateVerdict, MIN_INTERVAL, Recheck, Rechecks};
use arch_decision::affinity::Stage;
use arch_decision::decide::ANNOTATION;
use arch_decision::gate::{LABEL, gate_of};
use arch_decision::images::Images;
use arch_decision::webhook::{Arch, Judgement};

/// The longest wait for the registries of one pod. A lookup continues after it, and the next check uses its answer.
const REGISTRY_WAIT: Duration = Duration::from_secs(1);
/// Largest number of pods that are checked at a time.
const MAX_CHECKS: usize = 16;
/// Largest number of pods that are read at a time.
const READS: usize = 2;
/// Memory for the text of the pods that are checked, in KiB. The view of a pod may take several times its text.
const TEXT_KIB: u32 = 2 << 10;
/// The text of a large pod, in KiB.
const LARGE_KIB: u32 = 64;
/// The longest wait for the registries of a large pod.
const LARGE_POD_REGISTRY_WAIT: Duration = Duration::from_millis(100);

/// Lets pods go.
pub(crate) struct GateController<I> {
    client: Client,
    arch: Arch<I>,
    max_age: Duration,
    reads: Semaphore,
    text_kib: Semaphore,
}

/// The part of a pod that identifies its version.
#[derive(Deserialize)]
struct PodVersion {
    metadata: VersionMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VersionMetadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    resource_version: String,
}

/// The text of a pod, and its part of the memory.
struct PodText<'c> {
    text: String,
    /// The time that its registries are waited for.
    registry_wait: Duration,
    _memory: Option<SemaphorePermit<'c>>,
}

impl<I: Images> GateController<I> {
    pub(crate) fn new(client: Client, arch: Arch<I>, max_age: Duration) -> Arc<Self> {
        let reads = Semaphore::new(READS);
        let text_kib = Semaphore::new(TEXT_KIB as usize);
        Arc::new(Self { client, arch, max_age, reads, text_kib })
    }

    /// Does so for ever. Rights: get, list, watch and patch pods.
    pub(crate) async fn run(self: Arc<Self>) {
        let store = Arc::new(Store::<GatedPod>::default());
        let mut changes = store.changes();
        let scope = WatchScope { namespace: None, label_selector: format!("{LABEL}=true") };
        tokio::spawn(reflect(self.client.clone(), scope, Arc::clone(&store)));
        let mut rechecks = Rechecks::default();
        loop {
            changes.mark_unchanged();
            let next = self.round(store.all(), &mut rechecks).await;
            // `changed` fails when the store is dropped, which this function owns.
            match next {
                Some(next) => _ = timeout_at(next, changes.changed()).await,
                None => _ = changes.changed().await,
            }
            // A burst of pods is checked at once.
            sleep(MIN_INTERVAL / 20).await;
        }
    }

    /// Checks the pods that are due, and returns when the next one is due.
    async fn round(
        self: &Arc<Self>,
        pods: Vec<(Box<str>, Arc<GatedPod>)>,
        rechecks: &mut Rechecks,
    ) -> Option<Instant> {
        let now = Instant::now();
        let mut checks = JoinSet::new();
        let before = std::mem::take(rechecks);
        let mut due = Vec::new();
        for (key, pod) in pods {
            match before.of(&key, &pod) {
                Some(recheck) if recheck.at() > now => rechecks.insert(key, pod, recheck),
                recheck => due.push((key, pod, recheck)),
            }
        }
        drop(before);
        let mut due = due.into_iter();
        loop {
            for (key, pod, recheck) in due.by_ref().take(MAX_CHECKS - checks.len()) {
                let controller = Arc::clone(self);
                checks.spawn(async move {
                    let verdict = controller.check(&key, &pod).await.unwrap_or_else(|error| {
                        tracing::warn!(
                            pod = &*key,
                            error = describe(&error),
                            "cannot remove the scheduling gate"
                        );
                        match error {
                            Error::Api(status) if status.code == 422 => GateVerdict::Stuck,
                            // The API server may answer the next time.
                            _ => GateVerdict::Unknown,
                        }
                    });
                    let mut recheck = Recheck::after(verdict, recheck);
                    // The gate is removed at its deadline, even if the images are unknown.
                    let left = controller.wait_left(&pod, Timestamp::now()).filter(|left| !left.is_zero());
                    if let (GateVerdict::Unknown, Some(left)) = (verdict, left) {
                        recheck = recheck.within(left);
                    }
                    (key, pod, recheck)
                });
            }
            match checks.join_next().await {
                Some(Ok((key, pod, recheck))) => rechecks.insert(key, pod, recheck),
                // It is checked in the next round.
                Some(Err(_)) => {}
                None => break,
            }
        }
        rechecks.next()
    }

    async fn check(&self, key: &str, gated: &GatedPod) -> kube::Result<GateVerdict> {
        let Some((namespace, name)) = key.split_once('/') else { return Ok(GateVerdict::Done) };
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let Some(PodText { text, registry_wait, _memory }) = self.read(&path).await? else {
            return Ok(GateVerdict::Done);
        };
        let PodVersion { metadata: VersionMetadata { uid, resource_version } } =
            serde_json::from_str(&text).map_err(Error::SerdeError)?;
        let gate = gate_of(&view(&text)?).filter(|_| uid == gated.uid());
        let Some(gate) = gate else { return Ok(GateVerdict::Done) };

        let deadline = (Instant::now() + registry_wait).into_std();
        let Judgement { decision, complete } =
            self.arch.judge(&text, namespace, deadline, Stage::Gated).await;
        let has_waited = self.wait_left(gated, Timestamp::now()).is_none_or(|left| left.is_zero());
        if !complete && !has_waited {
            return Ok(GateVerdict::Unknown);
        }
        let Some(operations) = operations(&view(&text)?, gate, &resource_version, &decision) else {
            return Ok(GateVerdict::Stuck);
        };
        match send(&self.client, "PATCH", &path, MediaType::JsonPatch, &operations).await {
            Ok(_) if matches!(decision.verdict, Verdict::Deny(_)) => Ok(GateVerdict::Stuck),
            Ok(_) => {
                tracing::info!(pod = key, complete, "a pod doesn't wait any more");
                Ok(GateVerdict::Done)
            }
            // Another replica was faster, or the pod is deleted. If the pod is unchanged, the API server refuses the patch itself.
            Err(Error::Api(status)) if matches!(status.code, 404 | 409 | 422) => {
                let now = get::<PodVersion>(&self.client, &path).await?;
                if now.is_some_and(|now| now.metadata.resource_version == resource_version) {
                    return Err(Error::Api(status));
                }
                tracing::debug!(pod = key, %status, "a pod has changed meanwhile");
                Ok(GateVerdict::Done)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads a pod, few at a time, and waits until there is memory for its view. Tenants create pods of up to 1.5 MiB.
    async fn read(&self, path: &str) -> kube::Result<Option<PodText<'_>>> {
        // Neither semaphore is ever closed.
        let _reading = self.reads.acquire().await.ok();
        let text = match get_text(&self.client, path, REQUEST_TIMEOUT).await {
            Ok(Some(text)) => text,
            Ok(None) => return Err(Error::Service("the pod is too large".into())),
            Err(Error::Api(status)) if status.is_not_found() => return Ok(None),
            Err(error) => return Err(error),
        };
        let kib = u32::try_from(text.len() >> 10).unwrap_or(TEXT_KIB).saturating_add(1).min(TEXT_KIB);
        let memory = self.text_kib.acquire_many(kib).await.ok();
        let registry_wait = if kib > LARGE_KIB { LARGE_POD_REGISTRY_WAIT } else { REGISTRY_WAIT };
        Ok(Some(PodText { text, registry_wait, _memory: memory }))
    }

    /// The remaining time of a pod; none without a creation timestamp.
    fn wait_left(&self, gated: &GatedPod, now: Timestamp) -> Option<Duration> {
        let age = gated.age(now)?;
        Some(self.max_age.saturating_sub(age.try_into().unwrap_or_default()))
    }
}

fn view(text: &str) -> kube::Result<Pod<'_>> {
    within(MAX_VIEW, || serde_json::from_str(text)).0.map_err(Error::SerdeError)
}

/// The patch for a decision. None if the annotation of a pod without a possible node already states the reason.
fn operations(pod: &Pod<'_>, gate: usize, version: &str, decision: &Decision) -> Option<Vec<Value>> {
    let mut operations = vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": version})];
    if let Verdict::Deny(reason) = &decision.verdict {
        if pod.annotation(ANNOTATION) == Some(reason) {
            return None;
        }
        let mut patch = podshaper_core::pod::PodPatch::new(pod);
        patch.set_annotation(ANNOTATION, reason);
        operations.extend(parsed(&patch.finish().ok()?.to_json()));
        return Some(operations);
    }
    operations.extend(parsed(&decision.patch.to_json()));
    let gates = Pointer::root().key("spec").key("schedulingGates").index(gate);
    operations.push(json!({"op": "remove", "path": gates.as_str()}));
    let labels = pod.metadata.as_ref().and_then(|metadata| metadata.labels);
    let labels = labels.and_then(|labels| serde_json::from_str::<Value>(labels.get()).ok());
    if labels.is_some_and(|labels| labels.get(LABEL).is_some()) {
        let label = Pointer::root().key("metadata").key("labels").key(LABEL);
        operations.push(json!({"op": "remove", "path": label.as_str()}));
    }
    Some(operations)
}

fn parsed(patch: &[u8]) -> Vec<Value> {
    str::from_utf8(patch).ok().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use http::{Method, Request};
    use podshaper_core::patch::Patch;
    use podshaper_testing::MockResponse;

    use super::*;
    use arch_decision::config::Settings;
    use arch_decision::gate::GATE;
    use arch_decision::images::{Access, Image, Knowledge, Known, LookupError};
    use arch_decision::platform::Platforms;

    /// Images that are unknown, or of which one runs on no node. Each answer takes a second.
    struct Slow(Knowledge);

    impl Images for Slow {
        async fn known(&self, images: &[Image<'_>], _: &Access<'_>, _: std::time::Instant) -> Known {
            sleep(Duration::from_secs(1)).await;
            Known { images: vec![self.0.clone(); images.len()], warnings: Vec::new() }
        }
    }

    fn unknown() -> Knowledge {
        Knowledge::Unknown(LookupError::Timeout)
    }

    fn nowhere() -> Knowledge {
        Knowledge::Known(Arc::new(Platforms::Only(BTreeSet::new())))
    }

    /// Requests that came, by their methods.
    type Asked = Arc<Mutex<Vec<Method>>>;

    /// A controller and its API server, which has a pod of each name and answers patches with `patched`.
    fn controller(knowledge: Knowledge, patched: u16) -> (Arc<GateController<Slow>>, Asked) {
        let asked = Asked::default();
        let seen = Arc::clone(&asked);
        let annotation = Arc::new(Mutex::new(Value::Null));
        let client = podshaper_testing::client(move |request: Request<Value>| {
            seen.lock().unwrap().push(request.method().clone());
            let mut annotation = annotation.lock().unwrap();
            let response = if request.method() == Method::PATCH {
                let operations = request.body().as_array().unwrap();
                let annotated = operations
                    .iter()
                    .find(|operation| operation["value"].is_string() && operation["op"] == "add");
                annotated.inspect(|annotated| annotation.clone_from(&annotated["value"]));
                MockResponse::failure(patched, "Invalid")
            } else {
                let pod = json!({
                    "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {ANNOTATION: *annotation}},
                    "spec": {"schedulingGates": [{"name": GATE}], "containers": [{"image": "a"}]},
                });
                MockResponse::json(200, &pod)
            };
            std::future::ready(response)
        });
        let arch = Arch::new(Settings::default(), Slow(knowledge));
        (GateController::new(client, arch, Duration::from_mins(10)), asked)
    }

    fn pods(count: usize, age: Duration) -> Vec<(Box<str>, Arc<GatedPod>)> {
        let created = Timestamp::now().checked_sub(age).ok();
        let pod = Arc::new(GatedPod::for_test("u", created));
        (0..count).map(|number| (format!("ns/p{number}").into(), Arc::clone(&pod))).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn checks_run_concurrently() {
        let (controller, asked) = controller(unknown(), 200);
        let mut rechecks = Rechecks::default();
        let begun = Instant::now();
        let next = controller.round(pods(160, Duration::ZERO), &mut rechecks).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 10, "sixteen at a time");
        assert_eq!(asked.lock().unwrap().len(), 160);
        // The first of them was checked after a second.
        assert_eq!(next.duration_since(begun).as_secs(), 3);
        controller.round(pods(1, Duration::ZERO), &mut rechecks).await;
        assert_eq!(rechecks.len(), 1, "deleted pods are forgotten");
    }

    /// Images of which nothing becomes known, and the largest number of pods that wait for them at a time.
    #[derive(Default)]
    struct Counting {
        waiting: AtomicUsize,
        most: AtomicUsize,
    }

    impl Images for Counting {
        async fn known(&self, images: &[Image<'_>], _: &Access<'_>, _: std::time::Instant) -> Known {
            let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
            self.most.fetch_max(waiting, Ordering::Relaxed);
            sleep(Duration::from_millis(300)).await;
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            Known { images: vec![unknown(); images.len()], warnings: Vec::new() }
        }
    }

    /// The largest number of pods with an annotation of this length that are held at a time, of so many.
    async fn most_at_a_time(annotation: usize, count: usize) -> usize {
        let annotation = "x".repeat(annotation);
        let client = podshaper_testing::client(move |_: Request<Value>| {
            let pod = json!({
                "metadata": {"uid": "u", "resourceVersion": "7", "annotations": {"a": annotation}},
                "spec": {"schedulingGates": [{"name": GATE}], "containers": [{"image": "a"}]},
            });
            std::future::ready(MockResponse::json(200, &pod))
        });
        let images = Arc::new(Counting::default());
        let arch = Arch::new(Settings::default(), Arc::clone(&images));
        let controller = GateController::new(client, arch, Duration::from_mins(10));
        controller.round(pods(count, Duration::ZERO), &mut Rechecks::default()).await;
        images.most.load(Ordering::Relaxed)
    }

    /// The clock runs: a paused one would advance while a pod is read.
    #[tokio::test]
    async fn large_pods_are_few_at_a_time() {
        assert!(most_at_a_time(10, MAX_CHECKS).await > 4);
        assert_eq!(most_at_a_time(1_500_000, 4).await, 1);
        assert!(most_at_a_time(500_000, 8).await <= 4);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_pod_is_checked_less_often() {
        for (knowledge, checks, patches) in [(nowhere(), 9, 1), (unknown(), 41, 0)] {
            let (controller, asked) = controller(knowledge, 200);
            let mut rechecks = Rechecks::default();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_mins(11) {
                let next = controller.round(pods(1, Duration::ZERO), &mut rechecks).await.unwrap();
                tokio::time::sleep_until(next).await;
            }
            let asked = asked.lock().unwrap();
            let count = |method| asked.iter().filter(|asked| **asked == method).count();
            assert_eq!((count(Method::GET), count(Method::PATCH)), (checks, patches));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_patch_is_stuck() {
        let (controller, asked) = controller(nowhere(), 422);
        let (key, pod) = pods(1, Duration::ZERO).remove(0);
        let refused = controller.check(&key, &pod).await.unwrap_err();
        assert!(refused.to_string().contains("responds with Invalid"), "{refused}");
        assert_eq!(*asked.lock().unwrap(), [Method::GET, Method::PATCH, Method::GET]);
    }

    #[tokio::test(start_paused = true)]
    async fn gate_is_removed_after_the_maximum_age() {
        let (controller, _) = controller(unknown(), 200);
        let check = async |age| {
            let (key, pod) = pods(1, age).remove(0);
            controller.check(&key, &pod).await.unwrap()
        };
        assert_eq!(check(Duration::from_mins(9)).await, GateVerdict::Unknown);
        assert_eq!(check(Duration::from_mins(10)).await, GateVerdict::Done);
        let undated = GatedPod::for_test("u", None);
        assert_eq!(
            controller.check("ns/p", &undated).await.unwrap(),
            GateVerdict::Done,
            "the age is unknown"
        );
        // The last check is on time.
        let mut rechecks = Rechecks::default();
        let begun = Instant::now();
        let late = pods(1, Duration::from_secs(10 * 60 - 5));
        let mut recheck = Recheck::after(GateVerdict::Unknown, None);
        for _ in 0..8 {
            recheck = Recheck::after(GateVerdict::Unknown, Some(recheck));
        }
        rechecks.insert("ns/p0".into(), Arc::clone(&late[0].1), recheck.within(Duration::ZERO));
        let next = controller.round(late, &mut rechecks).await.unwrap();
        assert!(next.duration_since(begun) <= Duration::from_secs(6), "{:?}", next.duration_since(begun));
    }

    #[test]
    fn patch_contents() {
        let pod = r#"{"metadata":{"labels":{"podshaper.dev/arch-gated":"true"}},"spec":{"schedulingGates":[{"name":"x"},{"name":"podshaper.dev/arch"}]}}"#;
        let pod: Pod<'_> = serde_json::from_str(pod).unwrap();
        let gate = gate_of(&pod).unwrap();
        let mut patch = Patch::default();
        patch.add(&Pointer::root().key("spec").key("tolerations"), &json!([]));
        let sent = operations(&pod, gate, "7", &Decision::patched(patch)).unwrap();
        assert_eq!(
            Value::from(sent),
            json!([
                {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "add", "path": "/spec/tolerations", "value": []},
                {"op": "remove", "path": "/spec/schedulingGates/1"},
                {"op": "remove", "path": "/metadata/labels/podshaper.dev~1arch-gated"},
            ])
        );
        let refused = operations(&pod, gate, "7", &Decision::denied("why")).unwrap();
        assert!(!Value::from(refused).to_string().contains("schedulingGates"), "it goes on waiting");
        let annotated: Pod<'_> =
            serde_json::from_str(r#"{"metadata":{"annotations":{"podshaper.dev/arch":"why"}}}"#).unwrap();
        assert_eq!(operations(&annotated, gate, "7", &Decision::denied("why")), None, "once is enough");
    }
}

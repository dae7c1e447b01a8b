//! The webhook: reviews of pods and of workloads.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use podshaper_core::admission::{Decision, MAX_VIEW, Request, Webhook};
use podshaper_core::json::within;
use podshaper_core::pod::Pod;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::affinity::Stage;
use crate::assess::stated_os;
use crate::config::{Settings, Statement};
use crate::decide::{Case, Impossible, decide};
use crate::exempt::{Exemption, exemption};
use crate::images::{Access, Image, Images, ImagesError, Knowledge, Known, LookupError, images_of, unpulled};
use crate::learned::SettingsSource;
use crate::notices::{Notices, notice};
use crate::overrides::{Namespaces, Overrides};
use crate::platform::Architecture;
use crate::readiness::{Readiness, readiness};
use crate::table::MAX_REQUIREMENTS;

/// The part of the request's time that is reserved for everything except lookups.
const MARGIN: Duration = Duration::from_millis(150);

/// The arch webhook.
#[derive(Debug)]
pub struct Arch<I> {
    settings: Arc<Settings>,
    /// The settings with learned architectures, if these are learned.
    source: Option<Arc<dyn SettingsSource>>,
    images: I,
    namespaces: Option<Arc<dyn Namespaces>>,
    notices: Option<Arc<dyn Notices>>,
}

/// A decision about a pod.
#[derive(Debug)]
pub struct Judgement {
    /// The decision.
    pub decision: Decision,
    /// Whether every lookup had an answer.
    pub complete: bool,
}

/// An object under admission, unparsed: a pod, or a workload.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Reviewed<'a>(#[serde(borrow)] &'a RawValue);

/// The part of a workload that has its pod template.
#[derive(Deserialize)]
struct Workload<'a> {
    #[serde(borrow)]
    spec: Option<WorkloadSpec<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WorkloadSpec<'a> {
    #[serde(borrow)]
    template: Option<Pod<'a>>,
    #[serde(borrow)]
    job_template: Option<Box<Workload<'a>>>,
}

impl<'a> Workload<'a> {
    fn pod(self) -> Option<Pod<'a>> {
        let spec = self.spec?;
        spec.template.or_else(|| spec.job_template?.pod())
    }
}

/// A pod under review. Its view can be dropped and parsed again.
struct PodReview<'r> {
    text: &'r str,
    namespace: &'r str,
    stage: Stage,
    /// A change of the learned architectures does not affect a review that has begun.
    settings: Arc<Settings>,
    pod: Option<Pod<'r>>,
    images: Vec<WantedImage>,
    pull_secrets: Vec<Box<str>>,
    overrides: Overrides,
}

/// An image that is looked up, without the view of its pod.
struct WantedImage {
    reference: Box<str>,
    always: bool,
    volume: bool,
}

impl WantedImage {
    fn of(image: &Image<'_>) -> Self {
        Self { reference: image.reference.into(), always: image.always, volume: image.volume }
    }

    fn image(&self, anew: bool) -> Image<'_> {
        Image { reference: &self.reference, always: self.always, anew, volume: self.volume }
    }
}

/// The view of a pod, of which lists and maps take at most [`MAX_VIEW`] bytes.
fn parse(text: &str) -> Result<Pod<'_>, Decision> {
    let (pod, _) = within(MAX_VIEW, || serde_json::from_str(text));
    pod.map_err(|error: serde_json::Error| Decision::undecided(format!("the object can't be read: {error}")))
}

impl<I: Images> Arch<I> {
    /// A webhook with these settings, that knows images by `images`.
    pub fn new(settings: Settings, images: I) -> Self {
        Self { settings: Arc::new(settings), source: None, images, namespaces: None, notices: None }
    }

    /// The same webhook, with settings that follow the nodes of a cluster.
    #[must_use]
    pub fn with_settings_from(self, source: Arc<dyn SettingsSource>) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The same webhook, with annotations of namespaces.
    #[must_use]
    pub fn with_namespaces(self, namespaces: Arc<dyn Namespaces>) -> Self {
        Self { namespaces: Some(namespaces), ..self }
    }

    /// The same webhook, with notices about the pods of controllers.
    #[must_use]
    pub fn with_notices(self, notices: Arc<dyn Notices>) -> Self {
        Self { notices: Some(notices), ..self }
    }

    fn notify(&self, pod: &str, namespace: &str, decision: &Decision) {
        if let (Some(notices), Some(text)) = (&self.notices, notice(decision))
            && let Ok(pod) = parse(pod)
            && let Some(owner) = pod.controller()
        {
            notices.publish(namespace, owner, text);
        }
    }

    fn settings(&self) -> Arc<Settings> {
        self.source.as_ref().map_or_else(|| Arc::clone(&self.settings), |source| source.settings())
    }

    fn overrides(&self, pod: &Pod<'_>, namespace: &str) -> Overrides {
        let namespace = self.namespaces.as_ref().and_then(|namespaces| namespaces.overrides(namespace));
        Overrides::of(pod).or(namespace)
    }

    /// Decides about a pod that is being created, by its JSON.
    pub async fn decide(&self, pod: &str, namespace: &str, deadline: Instant) -> Decision {
        self.judge(pod, namespace, deadline, Stage::Creation).await.decision
    }

    /// Decides by the answers that are there at the deadline, or after `lookupTimeout`.
    pub async fn judge(&self, pod: &str, namespace: &str, deadline: Instant, stage: Stage) -> Judgement {
        let latest = Instant::now() + self.settings.lookup_timeout;
        let deadline = deadline.checked_sub(MARGIN).unwrap_or(deadline).min(latest);
        let mut review = match self.review(pod, namespace, stage) {
            Ok(review) => review,
            Err(decision) => return Judgement { decision, complete: true },
        };
        match self.attempt(&mut review, deadline, false).await {
            Ok(judgement) => judgement,
            // An image may have been rebuilt since the last lookup.
            Err(_) => self.attempt(&mut review, deadline, true).await.unwrap_or_else(|judgement| judgement),
        }
    }

    /// Lists the lookups for a pod.
    ///
    /// # Errors
    /// The decision doesn't depend on images.
    fn review<'r>(&self, text: &'r str, namespace: &'r str, stage: Stage) -> Result<PodReview<'r>, Decision> {
        let undecided = |why: String| Decision::undecided(format!("arch: {why}"));
        let pod = parse(text)?;
        let settings = self.settings();
        let overrides = self.overrides(&pod, namespace);
        let exemption = exemption(&settings, &overrides, &pod);
        if stage == Stage::Creation && !matches!(exemption, None | Some(Exemption::TooManyRequirements)) {
            return Err(Decision::unchanged());
        }
        if settings.table.is_exceeded_by(&pod) {
            return Err(undecided(format!(
                "the node selector and affinity of the pod have more than {MAX_REQUIREMENTS} requirements and values"
            )));
        }
        let images = images_of(&pod).map_err(|error| undecided(error.to_string()))?;
        let mut images = self.relevant(&images);
        if stated_os(&pod).is_some_and(|os| os != "linux") {
            // Nothing depends on these images.
            images.clear();
        }
        let images = images.iter().map(WantedImage::of).collect();
        let pull_secrets = Access::of(&pod, namespace).pull_secrets.into_iter().map(Box::from).collect();
        Ok(PodReview { text, namespace, stage, settings, pod: Some(pod), images, pull_secrets, overrides })
    }

    /// Decides by the answers for the images; an error where there are no nodes for the pod.
    async fn attempt(
        &self,
        review: &mut PodReview<'_>,
        deadline: Instant,
        anew: bool,
    ) -> Result<Judgement, Judgement> {
        let PodReview { text, namespace, stage, settings, pod, images, pull_secrets, overrides } = review;
        let pull_secrets = pull_secrets.iter().map(|name| &**name).collect();
        let access = Access { namespace, pull_secrets };
        let images: Vec<_> = images.iter().map(|image| image.image(anew)).collect();
        let mut lookup = pin!(self.known(&images, &access, deadline));
        let ready = poll_fn(|cx| Poll::Ready(lookup.as_mut().poll(cx))).await;
        let known = if let Poll::Ready(known) = ready {
            known
        } else {
            // The view of a pod may take many times its text, and registries may take seconds.
            *pod = None;
            lookup.await
        };
        let view = match pod.take() {
            Some(view) => view,
            None => parse(text).map_err(|decision| Judgement { decision, complete: true })?,
        };
        let case = Case { pod: &view, images: &[], overrides, stage: *stage };
        let judgement = judge_by(settings, &images, known, case);
        *pod = Some(view);
        judgement
    }

    /// Assesses whether a pod can move to the nodes of an architecture.
    ///
    /// # Errors
    /// The images of the pod cannot be listed.
    pub async fn readiness(
        &self,
        pod: &Pod<'_>,
        namespace: &str,
        target: &Architecture,
        deadline: Instant,
    ) -> Result<Readiness, ImagesError> {
        let images = self.relevant(&images_of(pod)?);
        let known = self.known(&images, &Access::of(pod, namespace), deadline).await;
        let images: Vec<_> = images.into_iter().zip(known.images).collect();
        let mut unpulled = unpulled(pod);
        unpulled.retain(|reference| self.settings.images.statement(reference).is_none());
        Ok(readiness(&self.settings(), pod, &images, &unpulled, target))
    }

    /// The images that the settings do not ignore.
    fn relevant<'p>(&self, images: &[Image<'p>]) -> Vec<Image<'p>> {
        let ignored = |image: &&Image<'_>| {
            matches!(self.settings.images.statement(image.reference), Some(Statement::Ignore))
        };
        images.iter().filter(|image| !ignored(image)).copied().collect()
    }

    /// The answers for images: those that the settings state, and lookups of all others.
    async fn known(&self, images: &[Image<'_>], access: &Access<'_>, deadline: Instant) -> Known {
        let stated = |image: &Image<'_>| match self.settings.images.statement(image.reference) {
            Some(Statement::Supports(platforms)) => Some(Knowledge::Known(Arc::clone(platforms))),
            Some(Statement::Ignore) | None => None,
        };
        let stated: Vec<_> = images.iter().map(stated).collect();
        let asked = images.iter().zip(&stated).filter(|(_, stated)| stated.is_none());
        let asked: Vec<_> = asked.map(|(image, _)| *image).collect();
        let Known { images: answers, warnings } = self.images.known(&asked, access, deadline).await;
        let mut answers = answers.into_iter();
        let answer = |stated: Option<Knowledge>| {
            stated.or_else(|| answers.next()).unwrap_or(Knowledge::Unknown(LookupError::Unavailable))
        };
        Known { images: stated.into_iter().map(answer).collect(), warnings }
    }

    /// Starts lookups of a workload's images before its pods are created.
    fn prefetch(&self, workload: Workload<'_>, namespace: &str) {
        let Some(pod) = workload.pod() else { return };
        let is_exempt = exemption(&self.settings(), &self.overrides(&pod, namespace), &pod).is_some();
        if is_exempt || stated_os(&pod).is_some_and(|os| os != "linux") {
            return;
        }
        if let Ok(mut images) = images_of(&pod) {
            images.retain(|image| self.settings.images.statement(image.reference).is_none());
            let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
            let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
            self.images.prefetch(&images, &Access::of(&pod, namespace), account);
        }
    }
}

/// Decides by the answers for images; an error where there are no nodes for the pod.
fn judge_by(
    settings: &Settings,
    images: &[Image<'_>],
    Known { images: known, mut warnings }: Known,
    case: Case<'_, '_>,
) -> Result<Judgement, Judgement> {
    let complete = known.iter().all(|image| matches!(image, Knowledge::Known(_)));
    let images: Vec<_> = images.iter().copied().zip(known).collect();
    warnings.extend(case.overrides.warnings());
    let judgement =
        |decision: Decision| Judgement { decision: decision.with_warnings(warnings.clone()), complete };
    let decision = decide(settings, Case { images: &images, ..case });
    decision.map(judgement).map_err(|Impossible(decision)| judgement(decision))
}

impl<I: Images> Webhook for Arch<I> {
    type Object<'a> = Reviewed<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Reviewed<'a>>, deadline: Instant) -> Decision {
        let Some(Reviewed(object)) = request.object.as_deref() else { return Decision::unchanged() };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        if request.creates_pod() {
            let decision = self.decide(object.get(), namespace, deadline).await;
            if request.dry_run != Some(true) {
                self.notify(object.get(), namespace, &decision);
            }
            return decision;
        }
        if matches!(&*request.kind.group, "apps" | "batch")
            && let (Ok(workload), _) = within(MAX_VIEW, || serde_json::from_str(object.get()))
        {
            self.prefetch(workload, namespace);
        }
        Decision::unchanged()
    }

    fn not_ready(&self) -> Option<String> {
        let waits_for_namespaces =
            self.namespaces.as_ref().is_some_and(|namespaces| !namespaces.has_synced());
        let waits_for_nodes = self.source.as_ref().is_some_and(|source| !source.has_synced());
        let missing = [(waits_for_namespaces, "namespaces"), (waits_for_nodes, "nodes")];
        let (_, missing) = missing.into_iter().find(|(waits, _)| *waits)?;
        Some(format!("the {missing} of the cluster haven't been read yet"))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use podshaper_core::admission::answer;
    use podshaper_core::json::Text;
    use podshaper_core::object::OwnerReference;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Default)]
    struct PrefetchedImages(Mutex<Vec<String>>);

    impl Images for PrefetchedImages {
        async fn known(&self, _: &[Image<'_>], _: &Access<'_>, _: Instant) -> Known {
            Known::default()
        }

        fn prefetch(&self, images: &[Image<'_>], access: &Access<'_>, account: &str) {
            let Access { namespace, pull_secrets } = access;
            let names = images
                .iter()
                .map(|image| format!("{namespace} {} {pull_secrets:?} {account}", image.reference));
            self.0.lock().unwrap().extend(names);
        }
    }

    /// An image without an answer.
    #[derive(Debug)]
    struct Unavailable;

    impl Images for Unavailable {
        async fn known(&self, images: &[Image<'_>], _: &Access<'_>, _: Instant) -> Known {
            let images = images.iter().map(|_| Knowledge::Unknown(LookupError::Unavailable)).collect();
            Known { images, warnings: Vec::new() }
        }
    }

    #[derive(Debug, Default)]
    struct Published(Mutex<Vec<String>>);

    impl Notices for Published {
        fn publish(&self, namespace: &str, owner: &OwnerReference<Text<'_>>, text: String) {
            self.0.lock().unwrap().push(format!("{namespace} {} {}: {text}", &*owner.kind, &*owner.name));
        }
    }

    #[tokio::test]
    async fn warning_about_pod_of_controller_is_a_notice() {
        let published = Arc::new(Published::default());
        let webhook =
            Arch::new(Settings::default(), Unavailable).with_notices(Arc::<Published>::clone(&published));
        let review = async |owners: Value, image: &str, dry_run: bool| {
            let metadata = json!({"ownerReferences": owners});
            let pod = json!({"metadata": metadata, "spec": {"containers": [{"image": image}]}});
            let mut request = Request::create("v1", "Pod", "ns", pod);
            request.dry_run = Some(dry_run);
            let later = Instant::now() + Duration::from_secs(1);
            answer(&webhook, request.to_review().unwrap().as_bytes(), later).await.unwrap();
        };
        let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
        review(owner.clone(), "a:1", false).await;
        review(owner.clone(), "a:1", true).await;
        review(owner, "", false).await;
        review(json!([]), "a:1", false).await;
        let expected = format!("ns ReplicaSet r: arch: image a:1 {}", LookupError::Unavailable);
        assert_eq!(*published.0.lock().unwrap(), [expected]);
    }

    #[derive(Debug)]
    struct SkippedNamespace;

    impl Namespaces for SkippedNamespace {
        fn overrides(&self, namespace: &str) -> Option<Overrides> {
            (namespace == "skipped").then(|| Overrides { skip: Some(true), ..Overrides::default() })
        }

        fn has_synced(&self) -> bool {
            false
        }
    }

    #[tokio::test]
    async fn annotation_of_namespace_applies_to_its_pods() {
        let webhook = Arch::new(Settings::default(), Unavailable).with_namespaces(Arc::new(SkippedNamespace));
        let warnings = async |namespace: &str, pod: &str| {
            let later = Instant::now() + Duration::from_secs(1);
            webhook.decide(pod, namespace, later).await.warnings.len()
        };
        let pod = r#"{"spec": {"containers": [{"image": "a"}]}}"#;
        let own = r#"{"metadata": {"annotations": {"podshaper.dev/arch-skip": "false"}}, "spec": {"containers": [{"image": "a"}]}}"#;
        assert_eq!((warnings("ns", pod).await, warnings("skipped", pod).await), (1, 0));
        assert_eq!(warnings("skipped", own).await, 1, "the pod precedes its namespace");
        assert!(webhook.not_ready().is_some());
    }

    #[tokio::test]
    async fn workload_images_are_prefetched() {
        let prefetched = Arc::new(PrefetchedImages::default());
        let webhook = Arch::new(Settings::default(), Arc::clone(&prefetched));
        let review = async |group: &str, object: Value| {
            let review = Request::create(&format!("{group}/v1"), "X", "ns", object).to_review().unwrap();
            let later = Instant::now() + Duration::from_secs(1);
            let answer = answer(&webhook, review.as_bytes(), later).await.unwrap();
            assert!(!String::from_utf8(answer.body).unwrap().contains("patch"));
        };
        let template = |image: &str| json!({"spec": {"containers": [{"image": image}], "imagePullSecrets": [{"name": "s"}]}});
        review("apps", json!({"spec": {"template": template("a")}})).await;
        let mut of_account = template("b");
        of_account["spec"]["serviceAccountName"] = json!("account");
        review("batch", json!({"spec": {"jobTemplate": {"spec": {"template": of_account}}}})).await;
        for other in
            [json!({}), json!({"spec": {"template": 5}}), json!({"spec": {"template": null}}), json!([1])]
        {
            review("apps", other).await;
        }
        review("example.com", json!({"spec": {"template": template("c")}})).await;
        assert_eq!(*prefetched.0.lock().unwrap(), ["ns a [\"s\"] default", "ns b [\"s\"] account"]);
    }
}

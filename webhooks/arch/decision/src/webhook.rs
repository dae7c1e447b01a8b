//! The webhook: which requests are its business.

use std::time::{Duration, Instant};

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::pod::Pod;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::affinity::Stage;
use crate::config::Settings;
use crate::decide::{Case, Impossible, decide};
use crate::exempt::{Exemption, exemption};
use crate::images::{Access, Image, Images, Knowledge, Known, images_of};

/// The part of the request's time that is reserved for everything except lookups.
const MARGIN: Duration = Duration::from_millis(150);

/// The arch webhook.
#[derive(Debug)]
pub struct Arch<I> {
    settings: Settings,
    images: I,
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

/// A workload, as far as it says what its pods will be.
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

impl<I: Images> Arch<I> {
    /// A webhook with these settings, that knows images by `images`.
    pub fn new(settings: Settings, images: I) -> Self {
        Self { settings, images }
    }

    /// Decides about a pod that is being created.
    pub async fn decide(&self, pod: &Pod<'_>, namespace: &str, deadline: Instant) -> Decision {
        match exemption(&self.settings.table, pod) {
            None | Some(Exemption::Overtaxing) => {
                self.judge(pod, namespace, deadline, Stage::Creation).await.decision
            }
            Some(_) => Decision::unchanged(),
        }
    }

    /// Decides by what is known of the pod's images by the deadline, or the longest that is waited.
    pub async fn judge(&self, pod: &Pod<'_>, namespace: &str, deadline: Instant, stage: Stage) -> Judgement {
        let undecided =
            |why| Judgement { decision: Decision::undecided(format!("arch: {why}")), complete: true };
        if self.settings.table.is_overtaxed_by(pod) {
            return undecided("the pod says more of its nodes than is weighed".to_owned());
        }
        let mut images = match images_of(pod) {
            Ok(images) => images,
            Err(resolve_unnamed_entries) => return undecided(resolve_unnamed_entries.to_string()),
        };
        let latest = Instant::now() + self.settings.lookup_timeout;
        let deadline = deadline.checked_sub(MARGIN).unwrap_or(deadline).min(latest);
        let access = Access::of(pod, namespace);
        let known = self.images.known(&images, &access, deadline).await;
        if let Ok(judgement) = self.judge_by(&images, known, pod, stage) {
            return judgement;
        }
        // An image may have been mended since somebody looked.
        for image in &mut images {
            image.anew = true;
        }
        let known = self.images.known(&images, &access, deadline).await;
        self.judge_by(&images, known, pod, stage).unwrap_or_else(|judgement| judgement)
    }

    /// Decides by what is known; an error where there are no nodes for the pod.
    fn judge_by(
        &self,
        images: &[Image<'_>],
        Known { images: known, warnings }: Known,
        pod: &Pod<'_>,
        stage: Stage,
    ) -> Result<Judgement, Judgement> {
        let complete = known.iter().all(|image| matches!(image, Knowledge::Known(_)));
        let images: Vec<_> = images.iter().copied().zip(known).collect();
        let judgement =
            |decision: Decision| Judgement { decision: decision.with_warnings(warnings.clone()), complete };
        let decision = decide(&self.settings, Case { pod, images: &images, stage });
        decision.map(judgement).map_err(|Impossible(decision)| judgement(decision))
    }

    /// Looks for the images of a workload's pods before these come.
    fn foresee(&self, workload: Workload<'_>, namespace: &str) {
        let Some(pod) = workload.pod() else { return };
        if exemption(&self.settings.table, &pod).is_some() {
            return;
        }
        if let Ok(images) = images_of(&pod) {
            self.images.prefetch(&images, &Access::of(&pod, namespace));
        }
    }
}

impl<I: Images> Webhook for Arch<I> {
    type Object<'a> = Reviewed<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Reviewed<'a>>, deadline: Instant) -> Decision {
        let Some(Reviewed(object)) = request.object.as_deref() else { return Decision::unchanged() };
        let namespace = request.namespace.as_deref().unwrap_or_default();
        if request.creates_pod() {
            return match serde_json::from_str(object.get()) {
                Ok(pod) => self.decide(&pod, namespace, deadline).await,
                Err(error) => Decision::undecided(format!("the object can't be read: {error}")),
            };
        }
        if matches!(&*request.kind.group, "apps" | "batch")
            && let Ok(workload) = serde_json::from_str(object.get())
        {
            self.foresee(workload, namespace);
        }
        Decision::unchanged()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use podshaper_core::admission::answer;
    use serde_json::{Value, json};

    use super::*;

    #[derive(Debug, Default)]
    struct Foreseen(Mutex<Vec<String>>);

    impl Images for Foreseen {
        async fn known(&self, _: &[Image<'_>], _: &Access<'_>, _: Instant) -> Known {
            Known::default()
        }

        fn prefetch(&self, images: &[Image<'_>], access: &Access<'_>) {
            let names = images
                .iter()
                .map(|image| format!("{} {} {:?}", access.namespace, image.reference, access.pull_secrets));
            self.0.lock().unwrap().extend(names);
        }
    }

    #[tokio::test]
    async fn workload_images_are_prefetched() {
        let foreseen = Arc::new(Foreseen::default());
        let webhook = Arch::new(Settings::default(), Arc::clone(&foreseen));
        let review = async |group: &str, object: Value| {
            let review = Request::create(&format!("{group}/v1"), "X", "ns", object).to_review().unwrap();
            let later = Instant::now() + Duration::from_secs(1);
            let answer = answer(&webhook, review.as_bytes(), later).await.unwrap();
            assert!(!String::from_utf8(answer.body).unwrap().contains("patch"));
        };
        let template = |image: &str| json!({"spec": {"containers": [{"image": image}], "imagePullSecrets": [{"name": "s"}]}});
        review("apps", json!({"spec": {"template": template("a")}})).await;
        review("batch", json!({"spec": {"jobTemplate": {"spec": {"template": template("b")}}}})).await;
        for other in
            [json!({}), json!({"spec": {"template": 5}}), json!({"spec": {"template": null}}), json!([1])]
        {
            review("apps", other).await;
        }
        review("example.com", json!({"spec": {"template": template("c")}})).await;
        assert_eq!(*foreseen.0.lock().unwrap(), ["ns a [\"s\"]", "ns b [\"s\"]"]);
    }
}

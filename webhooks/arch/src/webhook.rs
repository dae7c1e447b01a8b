//! The webhook: which requests are its business.

use std::time::{Duration, Instant};

use podshaper::admission::{Decision, Request, Webhook};
use podshaper::pod::Pod;

use crate::affinity::Stage;
use crate::config::Settings;
use crate::decide::{Case, decide};
use crate::images::{Access, Image, Images, Knowledge, images_of};
use crate::treated::left_alone;

/// What is left of the request's time for everything but the look-up.
const MARGIN: Duration = Duration::from_millis(150);

/// The arch webhook.
#[derive(Debug)]
pub struct Arch<I> {
    settings: Settings,
    images: I,
}

impl<I: Images> Arch<I> {
    /// A webhook with these settings, that knows images by `images`.
    pub fn new(settings: Settings, images: I) -> Self {
        Self { settings, images }
    }

    /// Decides about one request.
    pub async fn decide(&self, request: &Request<'_, Pod<'_>>, deadline: Instant) -> Decision {
        let Some(pod) = request.object.as_ref().filter(|_| request.creates_pod()) else {
            return Decision::unchanged();
        };
        if left_alone(&self.settings.table, pod).is_some() {
            return Decision::unchanged();
        }
        let namespace = request.namespace.as_deref().unwrap_or_default();
        self.decide_about(pod, namespace, Stage::Creation, deadline).await
    }

    /// Decides about a pod that isn't left alone.
    pub async fn decide_about(
        &self,
        pod: &Pod<'_>,
        namespace: &str,
        stage: Stage,
        deadline: Instant,
    ) -> Decision {
        let Some(images) = images_of(pod) else {
            return Decision::undecided("arch: the pod's volumes can't be read");
        };
        let images = self.known(&images, pod, namespace, deadline).await;
        decide(&self.settings, Case { pod, images: &images, stage })
    }

    async fn known<'p>(
        &self,
        images: &[Image<'p>],
        pod: &'p Pod<'_>,
        namespace: &'p str,
        deadline: Instant,
    ) -> Vec<(Image<'p>, Knowledge)> {
        let secrets =
            pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
        let access = Access { namespace, pull_secrets: secrets.iter().map(|secret| &*secret.name).collect() };
        let latest = Instant::now() + self.settings.lookup_timeout;
        let deadline = deadline.checked_sub(MARGIN).unwrap_or(deadline).min(latest);
        let known = self.images.known(images, &access, deadline).await;
        images.iter().copied().zip(known).collect()
    }
}

impl<I: Images> Webhook for Arch<I> {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, deadline: Instant) -> Decision {
        self.decide(request, deadline).await
    }
}

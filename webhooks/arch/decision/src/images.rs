//! The images of a pod, and the answers for them.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use podshaper_core::json::bounded_list;
use podshaper_core::pod::Pod;
use serde::Deserialize;

use crate::platform::Platforms;

/// Images of a pod that are looked up: each has its platforms, and all are compared.
const MAX_IMAGES: usize = 128;
/// Volumes that are looked through for images.
const MAX_VOLUMES: usize = 1024;

/// An image that a pod runs, or mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Image<'p> {
    /// As the pod names it.
    pub reference: &'p str,
    /// Whether the kubelet asks the registry for it each time.
    pub always: bool,
    /// Whether a cached answer counts only if the registry does not answer.
    pub anew: bool,
    /// Whether it is a volume alone: nothing in it needs to be for a CPU.
    pub volume: bool,
}

/// The answer for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// The platforms that it supports.
    Known(Arc<Platforms>),
    /// Nothing, for now.
    Unknown(LookupError),
}

/// The reason why there is no answer for an image. Tenants see no more of the response of a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum LookupError {
    /// The reference is not the name of an image.
    #[error("is no image's name")]
    Invalid,
    /// The registry isn't among those that may be asked.
    #[error("is in a registry that isn't allowed")]
    NotAllowed,
    /// The registry's address is one that may not be asked.
    #[error("is in a registry at an address that may not be reached")]
    Refused,
    /// 401 or 403, with all credentials that there are.
    #[error("may not be read with the credentials at hand")]
    Unauthorized,
    /// 404.
    #[error("isn't there")]
    NotFound,
    /// 429, or the registry has answered so a moment ago.
    #[error("can't be read: the registry limits the rate of requests")]
    RateLimited,
    /// The registry can't be reached, or answers with errors.
    #[error("can't be read: the registry doesn't answer as it should")]
    Unavailable,
    /// The registry didn't answer in time.
    #[error("couldn't be read in time")]
    Timeout,
    /// The response is not an image.
    #[error("is no image that can be understood")]
    Malformed,
}

impl LookupError {
    /// All errors.
    pub const ALL: [Self; 9] = [
        Self::Invalid,
        Self::NotAllowed,
        Self::Refused,
        Self::Unauthorized,
        Self::NotFound,
        Self::RateLimited,
        Self::Unavailable,
        Self::Timeout,
        Self::Malformed,
    ];

    /// The value of the label in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::NotAllowed => "not-allowed",
            Self::Refused => "refused",
            Self::Unauthorized => "unauthorized",
            Self::NotFound => "not-found",
            Self::RateLimited => "rate-limited",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timeout",
            Self::Malformed => "malformed",
        }
    }
}

/// The credentials that images are read with.
#[derive(Clone, Debug, Default)]
pub struct Access<'p> {
    /// The pod's namespace.
    pub namespace: &'p str,
    /// The Secrets that the pod names for this, in order.
    pub pull_secrets: Vec<&'p str>,
}

/// The answers for several images.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Of each, in their order.
    pub images: Vec<Knowledge>,
    /// Problems of the credentials that the pod names, one a line.
    pub warnings: Vec<String>,
}

/// A source of answers about images: registries, or a test double.
pub trait Images: Send + Sync + 'static {
    /// Returns the answers for `images`, in their order, at `deadline` at the latest.
    fn known(
        &self,
        images: &[Image<'_>],
        access: &Access<'_>,
        deadline: Instant,
    ) -> impl Future<Output = Known> + Send;

    /// Starts lookups of images that pods of this ServiceAccount will need soon. Returns at once.
    ///
    /// Such a pod gets the pull secrets of the ServiceAccount if it names none (`Admit` of
    /// k8s.io/kubernetes/plugin/pkg/admission/serviceaccount).
    fn prefetch(&self, _images: &[Image<'_>], _access: &Access<'_>, _service_account: &str) {}
}

impl<I: Images> Images for Arc<I> {
    fn known(
        &self,
        images: &[Image<'_>],
        access: &Access<'_>,
        deadline: Instant,
    ) -> impl Future<Output = Known> + Send {
        (**self).known(images, access, deadline)
    }

    fn prefetch(&self, images: &[Image<'_>], access: &Access<'_>, service_account: &str) {
        (**self).prefetch(images, access, service_account);
    }
}

impl<'p> Access<'p> {
    /// That of a pod in this namespace.
    pub fn of(pod: &'p Pod<'_>, namespace: &'p str) -> Self {
        let secrets =
            pod.spec.as_ref().and_then(|spec| spec.image_pull_secrets.as_deref()).unwrap_or_default();
        Self { namespace, pull_secrets: secrets.iter().map(|secret| &*secret.name).collect() }
    }
}

/// The reason why the images of a pod cannot be listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImagesError {
    /// A volume isn't what the API server takes, or there are too many.
    #[error("the pod's volumes can't be read")]
    Volumes,
    /// More than any node runs.
    #[error("the pod has more than {MAX_IMAGES} images")]
    Many,
}

/// The images that restrict the architecture, each once: those of containers and init containers that are pulled, and of
/// volumes.
///
/// # Errors
/// The volumes are malformed, or there are too many images.
pub fn images_of<'p>(pod: &'p Pod<'_>) -> Result<Vec<Image<'p>>, ImagesError> {
    let (mut images, mut places): (Vec<Image<'p>>, HashMap<_, usize>) = Default::default();
    let mut add = |reference: Option<&'p str>, policy: Option<&'p str>, volume| {
        let Some(reference) = reference.filter(|reference| !reference.is_empty()) else { return };
        if policy == Some("Never") {
            return;
        }
        let always = policy.map_or_else(|| is_latest(reference), |policy| policy == "Always");
        let place = *places.entry(reference).or_insert(images.len());
        match images.get_mut(place) {
            Some(image) => {
                image.always |= always;
                image.volume &= volume;
            }
            None => images.push(Image { reference, always, anew: false, volume }),
        }
    };
    for (_, _, container) in pod.containers() {
        add(container.image.as_deref(), container.image_pull_policy.as_deref(), false);
    }
    if let Some(volumes) = pod.spec.as_ref().and_then(|spec| spec.volumes) {
        let Volumes(volumes) = serde_json::from_str(volumes.get()).map_err(|_| ImagesError::Volumes)?;
        for image in volumes.into_iter().flatten().filter_map(|volume| volume.image) {
            add(image.reference, image.pull_policy, true);
        }
    }
    if images.len() > MAX_IMAGES { Err(ImagesError::Many) } else { Ok(images) }
}

/// The images of containers that the kubelet never pulls.
pub fn unpulled<'p>(pod: &'p Pod<'_>) -> Vec<&'p str> {
    let never = pod.containers().filter(|(_, _, own)| own.image_pull_policy.as_deref() == Some("Never"));
    never.filter_map(|(_, _, own)| own.image.as_deref()).filter(|image| !image.is_empty()).collect()
}

/// Whether the API server takes `Always` for its policy (`SetDefaults_Container` of Kubernetes): the tag is `latest`.
fn is_latest(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    !name.contains('@') && name.split_once(':').is_none_or(|(_, tag)| tag == "latest")
}

/// `spec.volumes`.
#[derive(Deserialize)]
struct Volumes<'p>(
    #[serde(borrow, deserialize_with = "bounded_list::<_, _, MAX_VOLUMES>")] Option<Vec<Volume<'p>>>,
);

/// `v1.Volume`.
#[derive(Deserialize)]
struct Volume<'p> {
    #[serde(borrow)]
    image: Option<ImageVolume<'p>>,
}

/// `v1.ImageVolumeSource`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageVolume<'p> {
    reference: Option<&'p str>,
    pull_policy: Option<&'p str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_containers_and_volumes_count() {
        let pod: Pod = serde_json::from_str(
            r#"{"spec": {
                "containers": [{"image": "a:1"}, {"image": "b"}, {"image": "c", "imagePullPolicy": "Never"}, {"image": "v:1"}],
                "initContainers": [{"image": "a:1", "imagePullPolicy": "Always"}, {"image": ""}, {}, {"image": "b@sha256:00"}],
                "volumes": [{"name": "x", "emptyDir": {}}, {"image": {"reference": "v:1"}},
                            {"image": {"reference": "r:5000/w:latest", "pullPolicy": "IfNotPresent"}}]
            }}"#,
        )
        .unwrap();
        let images = images_of(&pod).unwrap();
        let seen: Vec<_> = images.iter().map(|image| (image.reference, image.always, image.volume)).collect();
        assert_eq!(
            seen,
            [
                ("a:1", true, false),
                ("b", true, false),
                ("v:1", false, false),
                ("b@sha256:00", false, false),
                ("r:5000/w:latest", false, true)
            ]
        );
        let odd: Pod = serde_json::from_str(r#"{"spec": {"volumes": {}}}"#).unwrap();
        assert_eq!(images_of(&odd), Err(ImagesError::Volumes));
        let volumes = |count, volume: &dyn Fn(usize) -> String| {
            let volumes: Vec<_> = (0..count).map(volume).collect();
            let pod = format!(r#"{{"spec": {{"volumes": [{}]}}}}"#, volumes.join(","));
            let pod: Pod = serde_json::from_str(&pod).unwrap();
            images_of(&pod).map(|images| images.len())
        };
        let image = |number: usize| format!(r#"{{"image": {{"reference": "v:{number}"}}}}"#);
        assert_eq!(volumes(MAX_IMAGES, &image), Ok(MAX_IMAGES));
        assert_eq!(volumes(MAX_IMAGES + 1, &image), Err(ImagesError::Many));
        assert_eq!(volumes(MAX_VOLUMES, &|_| "{}".to_owned()), Ok(0));
        assert_eq!(volumes(MAX_VOLUMES + 1, &|_| "{}".to_owned()), Err(ImagesError::Volumes));
    }
}

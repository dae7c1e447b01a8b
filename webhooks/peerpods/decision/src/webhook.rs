//! The webhook: which requests are its business.

use std::time::Instant;

use podshaper_core::admission::{Decision, Request, Webhook};
use podshaper_core::pod::Pod;

use crate::class::Class;
use crate::config::{ConfigError, Settings};
use crate::decide::decide;

/// The peerpods webhook: a pure function of the pod and of the runtime classes that it knows.
#[derive(Debug)]
pub struct PeerPods {
    classes: Vec<Class>,
}

impl PeerPods {
    /// A webhook for pods of these classes.
    pub fn new(classes: Vec<Class>) -> Self {
        Self { classes }
    }

    /// A webhook with these settings, for their runtime classes and those called `names`.
    ///
    /// `resource` stands for one VM where the settings name no other.
    pub fn configured<'n>(
        settings: Settings,
        names: impl IntoIterator<Item = &'n str>,
        resource: &str,
    ) -> Result<Self, ConfigError> {
        Ok(Self::new(settings.classes(names, resource)?))
    }

    /// Decides about one request.
    pub fn decide(&self, request: &Request<'_, Pod<'_>>) -> Decision {
        if !request.creates_pod() {
            let kind = &request.kind;
            if kind.group.is_empty() && &*kind.kind == "Pod" {
                return Decision::unchanged();
            }
            let warning = format!(
                "peerpods changes pods when they are created: take {} {} out of the webhook's rules",
                kind.group, kind.kind
            );
            return Decision::unchanged().with_warnings([warning]);
        }
        let Some(pod) = &request.object else {
            return Decision::undecided("peerpods: the request has no object");
        };
        let Some(class) = self.class_of(pod) else { return Decision::unchanged() };
        if pod.spec.as_ref().and_then(|spec| spec.containers.as_ref()).is_none_or(Vec::is_empty) {
            return Decision::undecided("peerpods: the pod has no containers");
        }
        decide(class, pod)
    }

    fn class_of(&self, pod: &Pod<'_>) -> Option<&Class> {
        // A mirror pod shows what the kubelet runs already.
        if pod.annotation("kubernetes.io/config.mirror").is_some() {
            return None;
        }
        let name = pod.spec.as_ref()?.runtime_class_name.as_deref()?;
        self.classes.iter().find(|class| class.name == name)
    }
}

impl Webhook for PeerPods {
    type Object<'a> = Pod<'a>;

    async fn decide<'a>(&self, request: &Request<'a, Pod<'a>>, _deadline: Instant) -> Decision {
        self.decide(request)
    }
}

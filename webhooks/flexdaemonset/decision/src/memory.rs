//! What a sized pod remembers, in an annotation: which template sized it, for which node, and what its containers had
//! asked for before.
//!
//! A second pass, and a refit much later, decide by that, never by what an earlier pass made of it: so the outcome
//! doesn't depend on how often the pod was looked at.

use podshaper_core::json::{Entries, Text};
use podshaper_core::pod::{Pod, ResourceField, ResourceList, Resources};
use serde::{Deserialize, Serialize};

use crate::resource::Resource;

/// The annotation's key.
pub const ANNOTATION: &str = "podshaper.dev/flexdaemonset";

/// The annotation's value, as JSON.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Memory<'p> {
    /// The template that sized the pod.
    #[serde(borrow, default)]
    pub template: Text<'p>,
    /// The node that it was sized for.
    #[serde(borrow, default)]
    pub node: Text<'p>,
    /// What each container and init container had asked for of the resources that are sized, by name.
    #[serde(borrow, default)]
    pub containers: Entries<'p, Resources<'p>>,
}

impl<'p> Memory<'p> {
    /// What `pod` remembers, if it has been sized.
    ///
    /// # Errors
    /// The annotation is damaged.
    pub fn of(pod: &'p Pod<'_>) -> Result<Option<Self>, String> {
        let Some(text) = pod.annotation(ANNOTATION) else { return Ok(None) };
        match serde_json::from_str(text) {
            Ok(memory) => Ok(Some(memory)),
            Err(error) => Err(format!("annotation {ANNOTATION} can't be read: {error}")),
        }
    }
}

/// The resources that are sized, of those that `resources` names.
pub(crate) fn sized<'r>(resources: &'r Resources<'_>) -> Resources<'r> {
    let list = |field: ResourceField| -> Option<ResourceList<'r>> {
        let list = field.of(resources)?;
        let named = |resource: Resource| {
            let quantity = list.get(resource.name())?;
            Some((resource.name().into(), podshaper_core::json::Scalar((&**quantity).into())))
        };
        let kept: Vec<_> = Resource::ALL.into_iter().filter_map(named).collect();
        (!kept.is_empty()).then_some(Entries(kept))
    };
    Resources { requests: list(ResourceField::Requests), limits: list(ResourceField::Limits), claims: None }
}

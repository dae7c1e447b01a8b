//! What a pod's author asked for, remembered across passes.
//!
//! The first pass takes the containers' resources away. Before the second one LimitRanger may have put defaults in
//! their place, and another webhook may have added a container. So the first pass leaves an annotation behind, and
//! every pass works from it: a container named there counts by what stands there, any other by what it has.
//!
//! ```json
//! {"containers": {"app": {"requests": {"cpu": "2"}}, "logger": {}}, "annotations": {}}
//! ```

use std::collections::HashMap;

use podshaper_core::json::{Entries, Text, TextMap};
use podshaper_core::pod::{Pod, Resources};
use serde::{Deserialize, Serialize, Serializer};

use crate::demand::Member;
use crate::refusal::Refusal;

/// The annotation's name.
pub const ANNOTATION: &str = "podshaper.dev/peerpods-resources";

/// The annotation as an earlier pass, or the author of the pod, left it.
#[derive(Debug, Deserialize)]
pub(crate) struct Originals<'p> {
    #[serde(borrow, default)]
    containers: Entries<'p, Resources<'p>>,
    /// `spec.resources`, where it was taken away too.
    #[serde(borrow)]
    pub(crate) pod: Option<Resources<'p>>,
    /// The author's own values of annotations that the webhook sets. Absent only where no pass wrote this.
    #[serde(borrow)]
    pub(crate) annotations: Option<TextMap<'p>>,
}

impl<'p> Originals<'p> {
    /// What an earlier pass left on `pod`, if there was one.
    pub(crate) fn of(pod: &'p Pod<'_>) -> Result<Option<Self>, Refusal> {
        Ok(pod.annotation(ANNOTATION).map(serde_json::from_str).transpose()?)
    }

    /// The containers' resources by name. Those of containers that share one, which the API server will refuse, end with
    /// the first one's.
    pub(crate) fn take_containers(&mut self) -> HashMap<Text<'p>, Vec<Resources<'p>>> {
        let mut by_name = HashMap::<_, Vec<_>>::new();
        for (name, resources) in std::mem::take(&mut self.containers).0.into_iter().rev() {
            by_name.entry(name).or_default().push(resources);
        }
        by_name
    }
}

/// The annotation as this pass leaves it.
#[derive(Serialize)]
pub(crate) struct Remembered<'m, 'p> {
    #[serde(serialize_with = "by_name")]
    pub(crate) containers: &'m [Member<'p>],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<&'m Resources<'p>>,
    pub(crate) annotations: &'m TextMap<'p>,
}

fn by_name<S: Serializer>(members: &[Member<'_>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(members.iter().map(|member| (member.name, &member.asked)))
}

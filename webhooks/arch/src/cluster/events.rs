//! Events about the owners of pods.

use kube::Client;
use podshaper_core::json::Text;
use podshaper_core::object::OwnerReference;
use podshaper_kube::events::{EventType, Events, ObjectReference};

use arch_decision::notices::Notices;

/// The `reason` of Events.
const REASON: &str = "ArchitectureUnknown";

/// Publishes Events.
#[derive(Debug)]
pub(crate) struct OwnerEvents(Events);

impl OwnerEvents {
    /// Starts to publish. Rights: create and patch Events.
    pub(crate) fn start(client: Client, instance: String) -> Self {
        Self(Events::start(client, "arch", instance))
    }
}

impl Notices for OwnerEvents {
    fn publish(&self, namespace: &str, owner: &OwnerReference<Text<'_>>, text: String) {
        let regarding = ObjectReference {
            api_version: Some(owner.api_version.to_string()),
            kind: Some(owner.kind.to_string()),
            namespace: Some(namespace.to_owned()),
            name: Some(owner.name.to_string()),
            uid: Some(owner.uid.to_string()),
            ..ObjectReference::default()
        };
        self.0.publish(regarding, EventType::Warning, REASON, "Admit", text);
    }
}

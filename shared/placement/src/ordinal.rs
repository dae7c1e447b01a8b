//! Pods that are numbered by their controller: their slot is their number, and no ledger is needed.

use super::owners::OwnerChain;
use podshaper_core::pod::Pod;

/// Of an Indexed Job's pod (`batchv1.JobCompletionIndexAnnotation`).
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Of a `StatefulSet`'s pod (`appsv1.PodIndexLabel`).
const POD_INDEX: &str = "apps.kubernetes.io/pod-index";

/// The slot of a numbered pod, if its controller numbers its pods.
pub(super) fn slot(pod: &Pod<'_>, name: Option<&str>, chain: &OwnerChain) -> Option<u32> {
    let (controller, read) = chain.controller()?;
    // The Jobs of a CronJob share one sequence, and each numbers its own.
    let shared = chain.sequence_owner().is_some_and(|(owner, _)| owner != controller);
    let batch = controller.api_version.starts_with("batch/");
    if batch && controller.kind == "Job" && !shared {
        return pod.annotation(COMPLETION_INDEX)?.parse().ok();
    }
    if !controller.api_version.starts_with("apps/") || controller.kind != "StatefulSet" {
        return None;
    }
    let label = pod.label(POD_INDEX);
    let ordinal: u32 = label.as_deref().or_else(|| Some(name?.rsplit_once('-')?.1))?.parse().ok()?;
    ordinal.checked_sub(read.first_ordinal)
}

#[cfg(test)]
mod tests {
    use crate::owner_object::OwnerObject;
    use podshaper_core::lookup::Lookup;
    use podshaper_core::owner_reference::OwnerReference;
    use serde_json::{Value, json};

    use super::*;

    fn owner(api_version: &str, kind: &str) -> OwnerReference {
        OwnerReference::new(api_version, kind, "web", kind)
    }

    fn slot_of(
        metadata: &Value,
        name: &str,
        of: &OwnerReference,
        controller: Option<OwnerReference>,
    ) -> Option<u32> {
        let text = json!({"metadata": metadata}).to_string();
        let mut chain = OwnerChain::from(Some(of.clone()));
        let read =
            OwnerObject { uid: of.uid.clone(), controller, first_ordinal: 3, ..OwnerObject::default() };
        chain.looked(Lookup::Found(read.into()));
        slot(&serde_json::from_str(&text).unwrap(), Some(name), &chain)
    }

    #[test]
    fn numbered_controllers() {
        let set = owner("apps/v1", "StatefulSet");
        let labelled = json!({"labels": {POD_INDEX: "7"}});
        assert_eq!(slot_of(&labelled, "web-9", &set, None), Some(4));
        assert_eq!(slot_of(&json!({}), "web-9", &set, None), Some(6), "before Kubernetes 1.28");
        assert_eq!(slot_of(&json!({}), "web-2", &set, None), None, "below the first");
        assert_eq!(slot_of(&json!({}), "web-x", &set, None), None);
        assert_eq!(slot_of(&labelled, "web-9", &owner("apps/v1", "ReplicaSet"), None), None);
        let (job, indexed) = (owner("batch/v1", "Job"), json!({"annotations": {COMPLETION_INDEX: "5"}}));
        assert_eq!(slot_of(&indexed, "", &job, None), Some(5));
        assert_eq!(slot_of(&json!({}), "", &job, None), None);
        assert_eq!(slot_of(&indexed, "", &job, Some(owner("batch/v1", "CronJob"))), None);
    }
}

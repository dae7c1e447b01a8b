//! The status of `PodDistributor`s, and Events when a condition changes.

use k8s_openapi::jiff::Timestamp;
use kube::{Client, Error};
use podshaper_crd::ConditionStatus;
use podshaper_kube::error::describe;
use podshaper_kube::events::{EventType, Events, ObjectReference};
use podshaper_kube::request::{MediaType, send};
use serde_json::json;

use super::eviction::EvictionLog;
use distributor_decision::crd::{API_VERSION, KIND, PLURAL};
use distributor_decision::distributor::Distributor;
use distributor_decision::findings::FINDINGS;
use distributor_decision::spec::WhenUnavailable;
use distributor_decision::status::PodDistributorStatus;

/// Events about `PodDistributor`s.
#[derive(Clone)]
pub(super) struct DistributorEvents(Events);

impl DistributorEvents {
    pub(super) fn new(events: Events) -> Self {
        Self(events)
    }

    pub(super) fn publish(
        &self,
        distributor: &Distributor,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let regarding = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some(KIND.to_owned()),
            namespace: Some(distributor.namespace.clone()),
            name: Some(distributor.name.clone()),
            uid: Some(distributor.uid.clone()),
            ..ObjectReference::default()
        };
        let event_type = if warning { EventType::Warning } else { EventType::Normal };
        self.0.publish(regarding, event_type, reason, "Distribute", message);
    }
}

pub(super) struct StatusWriter {
    client: Client,
    events: DistributorEvents,
}

impl StatusWriter {
    pub(super) fn new(client: Client, events: DistributorEvents) -> Self {
        Self { client, events }
    }

    /// Publishes Events about evictions.
    pub(super) fn flush(&self, log: &mut EvictionLog, distributor: &Distributor) {
        log.flush(distributor, &self.events);
    }

    /// Writes the status that follows from the present one at this time (RFC 3339), if it differs, and publishes Events.
    pub(super) async fn update(
        &self,
        distributor: &Distributor,
        next: impl FnOnce(&PodDistributorStatus, &str) -> PodDistributorStatus,
    ) {
        let before = &distributor.status;
        let after = next(before, &format!("{:.0}", Timestamp::now()));
        if *before == after {
            return;
        }
        let Distributor { namespace, name, .. } = distributor;
        let path = format!("/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status");
        // Fields without a value are null, which removes them. The version protects the claim of a probe by another replica.
        let body = json!({"metadata": {"resourceVersion": distributor.version}, "status": after});
        match send(&self.client, "PATCH", &path, MediaType::MergePatch, &body).await {
            Ok(_) => {}
            Err(Error::Api(failure)) if failure.code == 409 => return,
            Err(error) => {
                tracing::warn!(
                    namespace,
                    name,
                    error = describe(&error),
                    "can't write the status, trying again"
                );
            }
        }
        for (warning, reason, message) in condition_events(distributor, &after) {
            self.events.publish(distributor, warning, reason, message);
        }
    }
}

/// Whether it is a warning, the reason and the message of an Event for each condition that has changed.
fn condition_events(
    distributor: &Distributor,
    after: &PodDistributorStatus,
) -> Vec<(bool, &'static str, String)> {
    let changed = |kind: &str| {
        let before = distributor.status.conditions.get(kind);
        let after = after.conditions.get(kind)?;
        let is_true = after.status == ConditionStatus::True;
        let changed = before.map_or(!is_true, |before| {
            before.status != after.status || (!is_true && before.message != after.message)
        });
        changed.then_some((is_true, after))
    };
    let mut events = Vec::new();
    for kind in FINDINGS {
        if let (None, Some(new)) = (distributor.status.conditions.get(kind), after.conditions.get(kind)) {
            events.push((true, kind, new.message.clone()));
        }
    }
    if let Some((is_true, condition)) = changed("Ready") {
        let reason = match &*condition.reason {
            _ if is_true => "Ready",
            "Invalid" => "Invalid",
            _ => "NotReady",
        };
        events.push((!is_true, reason, condition.message.clone()));
    }
    if let Some((is_true, condition)) = changed("Available") {
        let reason = if is_true { "GroupsAvailable" } else { "GroupUnavailable" };
        let consequence = if is_true { "" } else { consequence(distributor, after) };
        events.push((!is_true, reason, format!("{}{consequence}", condition.message)));
    }
    events
}

/// The treatment of pods of a group that has become unavailable.
fn consequence(distributor: &Distributor, status: &PodDistributorStatus) -> &'static str {
    let others = status.groups.iter().flatten().any(|group| group.available == Some(true));
    match &distributor.spec {
        Ok(spec) if others && spec.options.when_unavailable == WhenUnavailable::UseOthers => {
            "; new pods go to the other groups meanwhile"
        }
        _ => "; its new pods wait",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn distributor(when_unavailable: &str) -> Distributor {
        Distributor::from_spec(&json!({
            "distribution": [{"nodeLabel": {"type": "a"}, "weight": 1}], "target": {"name": "web"},
            "whenUnavailable": when_unavailable,
        }))
    }

    fn status(ready: (&str, &str), available: &str) -> PodDistributorStatus {
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({
                "type": kind, "status": status, "reason": reason, "message": format!("{kind} {status}"),
                "lastTransitionTime": "",
            })
        };
        serde_json::from_value(json!({
            "groups": [{"name": "a", "available": true}],
            "conditions": [condition("Ready", ready.0, ready.1), condition("Available", available, "")],
        }))
        .unwrap()
    }

    #[test]
    fn changed_condition_has_one_event() {
        let mut distributor = distributor("UseOthers");
        let good = status(("True", "ClusterBackend"), "True");
        assert_eq!(condition_events(&distributor, &good), [], "a new distributor that is as it should be");
        let bad = status(("False", "Invalid"), "False");
        let lost = "Available False; new pods go to the other groups meanwhile".to_owned();
        let expected = [(true, "Invalid", "Ready False".to_owned()), (true, "GroupUnavailable", lost)];
        assert_eq!(condition_events(&distributor, &bad), expected);
        distributor.status = bad.clone();
        assert_eq!(condition_events(&distributor, &bad), []);
        let back = [
            (false, "Ready", "Ready True".to_owned()),
            (false, "GroupsAvailable", "Available True".to_owned()),
        ];
        assert_eq!(condition_events(&distributor, &good), back);
    }

    #[test]
    fn finding_has_an_event_when_it_appears() {
        let mut distributor = distributor("UseOthers");
        let costs = |message: &str| -> PodDistributorStatus {
            let costs = json!({"type": "DeletionCostsRemoved", "status": "True", "reason": "", "message": message, "lastTransitionTime": ""});
            serde_json::from_value(json!({"conditions": [costs]})).unwrap()
        };
        let expected = [(true, "DeletionCostsRemoved", "of 1 pods".to_owned())];
        assert_eq!(condition_events(&distributor, &costs("of 1 pods")), expected);
        distributor.status = costs("of 1 pods");
        assert_eq!(condition_events(&distributor, &costs("of 2 pods")), []);
    }

    #[test]
    fn pods_wait_for_unavailable_group_if_spec_says_so() {
        let bad = status(("True", "ClusterBackend"), "False");
        let events = condition_events(&distributor("Wait"), &bad);
        assert_eq!(events, [(true, "GroupUnavailable", "Available False; its new pods wait".to_owned())]);
    }
}

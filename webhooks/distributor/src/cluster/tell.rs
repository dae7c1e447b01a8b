//! What the leader tells of distributors: their status, and Events of what is new in it.

use k8s_openapi::jiff::Timestamp;
use podshaper::api_server::{Media, send};
use podshaper::cluster::{Note, Regarding};
use podshaper::placement::distribution::WhenUnavailable;
use serde_json::{Value, json};

use super::controller::Controller;
use super::status::stands;
use crate::distributor::{Distributor, GROUP, KIND, PLURAL, Plan, VERSION};

impl Controller {
    /// Of a distributor without a policy there is nothing to count.
    pub(super) async fn senseless(&self, distributor: &Distributor, problem: &str) {
        let before = stands(&distributor.status, "Ready");
        if before.is_some_and(|before| before["message"] == problem) {
            return;
        }
        let since = format!("{:.0}", Timestamp::now());
        let condition = json!({
            "type": "Ready", "status": "False", "observedGeneration": distributor.generation, "lastTransitionTime": since,
            "reason": "Invalid", "message": problem,
        });
        // What was counted by the rules before means nothing any more.
        let status = json!({
            "observedGeneration": distributor.generation, "conditions": [condition], "pods": null, "due": null, "replicas": null,
            "placed": null, "unplaced": null, "groups": null, "revisions": null,
        });
        self.put(distributor, &status).await;
        self.note(distributor, true, "Invalid", problem.to_owned());
    }

    /// Writes the status, where it has changed, and tells of what is new in it.
    pub(super) async fn write(&self, distributor: &Distributor, status: Value, plan: &Plan) {
        if status == distributor.status {
            return;
        }
        self.put(distributor, &status).await;
        for (kind, good) in [("Ready", "True"), ("Available", "True")] {
            let (before, after) = (stands(&distributor.status, kind), stands(&status, kind));
            let Some(after) = after else { continue };
            let news = before.map_or(after["status"] != good, |before| before["status"] != after["status"]);
            if news {
                let text = |field: &str| after[field].as_str().unwrap_or_default();
                let lent = plan.distribution.when_unavailable == WhenUnavailable::UseOthers;
                let what = match (kind, after["status"] == good) {
                    ("Available", false) if lent => "; new pods go to the other groups meanwhile",
                    ("Available", false) => "; its new pods wait",
                    _ => "",
                };
                let reason = match (kind, after["status"] == good) {
                    ("Ready", true) => "Ready",
                    ("Ready", false) => "NotReady",
                    (_, true) => "GroupsAvailable",
                    (_, false) => "GroupUnavailable",
                };
                self.note(distributor, after["status"] != good, reason, format!("{}{what}", text("message")));
            }
        }
    }

    async fn put(&self, distributor: &Distributor, status: &Value) {
        let Distributor { namespace, name, .. } = distributor;
        let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status");
        let body = json!({"status": status});
        if let Err(error) = send(&self.client, "PATCH", &path, Media::MergePatch, &body).await {
            tracing::warn!(namespace, name, %error, "can't write the status, trying again");
        }
    }

    pub(super) fn note(
        &self,
        distributor: &Distributor,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let regarding = Regarding {
            api_version: "versprei.versprei.io/v1beta1".into(),
            kind: KIND.into(),
            namespace: distributor.namespace.clone(),
            name: distributor.name.clone(),
            uid: distributor.uid.clone(),
        };
        self.events.send(Note { regarding, warning, reason, action: "Distribute", message });
    }
}

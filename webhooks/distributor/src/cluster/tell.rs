//! What the leader tells of distributors: their status, and Events of what is new in it.

use podshaper_kube::events::{Note, Regarding};
use podshaper_kube::request::{Media, send};
use podshaper_placement::distribution::WhenUnavailable;
use serde_json::{Map, Value, json};

use super::controller::Controller;
use super::status::{condition, stands};
use distributor_decision::distributor::{Distributor, GROUP, KIND, PLURAL, Plan, VERSION};

impl Controller {
    /// Of a distributor without a policy there is nothing to count.
    pub(super) async fn senseless(&self, distributor: &Distributor, problem: &str) {
        let ready = condition(distributor, "Ready", "False", "Invalid", problem);
        // What was counted by the rules before means nothing any more.
        let status = json!({
            "observedGeneration": distributor.generation, "conditions": [ready.clone()], "pods": null, "due": null, "replicas": null,
            "placed": null, "unplaced": null, "groups": null, "revisions": null,
        });
        let before = stands(&distributor.status, "Ready").and_then(|before| before.get("message"));
        let told = before == ready.get("message");
        if self.put(distributor, &status).await && !told {
            self.note(distributor, true, "Invalid", problem.to_owned());
        }
    }

    /// Writes the status, where it has changed, and tells of what is new in it.
    pub(super) async fn write(&self, distributor: &Distributor, status: Value, plan: &Plan) {
        if !self.put(distributor, &status).await {
            return;
        }
        let groups = status.get("groups").and_then(Value::as_array).into_iter().flatten();
        let others = groups.into_iter().any(|group| group["available"] == true);
        for (kind, good) in [("Ready", "True"), ("Available", "True")] {
            let (before, after) = (stands(&distributor.status, kind), stands(&status, kind));
            let Some(after) = after else { continue };
            let is_good = after["status"] == good;
            let news = before.map_or(!is_good, |before| {
                before["status"] != after["status"] || (!is_good && before["message"] != after["message"])
            });
            if news {
                let text = |field: &str| after[field].as_str().unwrap_or_default();
                let lent = plan.distribution.when_unavailable == WhenUnavailable::UseOthers;
                let what = match (kind, is_good) {
                    ("Available", false) if lent && others => "; new pods go to the other groups meanwhile",
                    ("Available", false) => "; its new pods wait",
                    _ => "",
                };
                let reason = match (kind, is_good) {
                    ("Ready", true) => "Ready",
                    ("Ready", false) => "NotReady",
                    (_, true) => "GroupsAvailable",
                    (_, false) => "GroupUnavailable",
                };
                self.note(distributor, !is_good, reason, format!("{}{what}", text("message")));
            }
        }
    }

    /// Writes the status, and returns whether it is another than before. (A field that is null isn't there.)
    async fn put(&self, distributor: &Distributor, status: &Value) -> bool {
        let fields = status.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let after: Map<_, _> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
        if distributor.status.as_object() == Some(&after) {
            return false;
        }
        let Distributor { namespace, name, .. } = distributor;
        let path = format!("/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status");
        let body = json!({"status": status});
        if let Err(error) = send(&self.client, "PATCH", &path, Media::MergePatch, &body).await {
            tracing::warn!(namespace, name, %error, "can't write the status, trying again");
        }
        true
    }

    pub(super) fn note(
        &self,
        distributor: &Distributor,
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        let regarding = Regarding {
            api_version: format!("{GROUP}/{VERSION}").into(),
            kind: KIND.into(),
            namespace: distributor.namespace.clone(),
            name: distributor.name.clone(),
            uid: distributor.uid.clone(),
        };
        self.events.send(Note { regarding, warning, reason, action: "Distribute", message });
    }
}

//! What the leader tells of distributors: their status, and Events of what is new in it.

use k8s_openapi::jiff::Timestamp;
use podshaper_crd::ConditionStatus;
use podshaper_kube::events::{Note, Regarding};
use podshaper_kube::request::{Media, send};
use serde_json::json;

use super::controller::Controller;
use distributor_decision::crd::{API_VERSION, KIND, PLURAL};
use distributor_decision::distributor::{Distributor, ValidSpec};
use distributor_decision::spec::WhenUnavailable;
use distributor_decision::status::PodDistributorStatus;

impl Controller {
    /// Of a distributor without a policy there is nothing to count.
    pub(super) async fn senseless(&self, distributor: &Distributor, problem: &str) {
        let now = format!("{:.0}", Timestamp::now());
        let status = distributor.status.invalid(distributor.generation, problem, &now);
        let message = |status: &PodDistributorStatus| {
            status.conditions.get("Ready").map(|condition| condition.message.clone())
        };
        let is_new = message(&distributor.status) != message(&status);
        if self.put(distributor, &status).await && is_new {
            self.note(distributor, true, "Invalid", problem.to_owned());
        }
    }

    /// Writes the status, where it has changed, and tells of what is new in it.
    pub(super) async fn write(
        &self,
        distributor: &Distributor,
        status: PodDistributorStatus,
        spec: &ValidSpec,
    ) {
        if !self.put(distributor, &status).await {
            return;
        }
        let others = status.groups.iter().flatten().any(|group| group.available == Some(true));
        for kind in ["Ready", "Available"] {
            let (before, after) = (distributor.status.conditions.get(kind), status.conditions.get(kind));
            let Some(after) = after else { continue };
            let is_good = after.status == ConditionStatus::True;
            let news = before.map_or(!is_good, |before| {
                before.status != after.status || (!is_good && before.message != after.message)
            });
            if news {
                let lent = spec.fields.when_unavailable == WhenUnavailable::UseOthers;
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
                self.note(distributor, !is_good, reason, format!("{}{what}", after.message));
            }
        }
    }

    /// Writes the status, and returns whether it is another than before. (A field that is null isn't there.)
    async fn put(&self, distributor: &Distributor, status: &PodDistributorStatus) -> bool {
        if distributor.status == *status {
            return false;
        }
        let Distributor { namespace, name, .. } = distributor;
        let path = format!("/apis/{API_VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status");
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
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            namespace: distributor.namespace.clone(),
            name: distributor.name.clone(),
            uid: distributor.uid.clone(),
        };
        self.events.send(Note { regarding, warning, reason, action: "Distribute", message });
    }
}

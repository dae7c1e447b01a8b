//! Evictions of pods, and the Events about them.

use std::time::Duration;

use kube::Client;
use podshaper_kube::request::{MediaType, send};
use podshaper_placement::ledger::ResourceVersion;
use serde_json::json;
use tokio::time::Instant;

use super::status_writer::DistributorEvents;
use distributor_decision::distributor::Distributor;

/// The least time between two Events about evictions. Events of one reason that follow sooner are dropped.
const EVENT_INTERVAL: Duration = Duration::from_mins(1);
/// Messages in one Event.
const MAX_MESSAGES: usize = 8;

/// Which evictions the administrator allows.
#[derive(Clone, Debug)]
pub struct EvictionSettings {
    /// Whether pods are evicted at all.
    pub enabled: bool,
    /// API groups and plurals of custom controllers that replace a deleted pod without harm, such as `apps.kruise.io/clonesets`.
    pub replacing: Vec<String>,
    /// Namespaces that the webhook configuration excludes.
    pub excluded_namespaces: Vec<String>,
}

/// Evicts the pod in the state that the decision was made on. The API server guards no pod without a node by PodDisruptionBudgets.
pub(super) async fn evict(
    client: &Client,
    namespace: &str,
    pod: &str,
    uid: Option<&str>,
    version: ResourceVersion,
) -> kube::Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/eviction");
    let eviction = json!({
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"namespace": namespace, "name": pod},
        "deleteOptions": {"preconditions": {"uid": uid, "resourceVersion": version.to_string()}},
    });
    send(client, "POST", &path, MediaType::Json, &eviction).await.map(drop)
}

/// Messages about evictions of one distributor. Each of them is in an Event, at most a minute later.
#[derive(Default)]
pub(super) struct EvictionLog {
    pending: Vec<(&'static str, bool, String)>,
    published: Option<Instant>,
}

impl EvictionLog {
    pub(super) fn add(&mut self, reason: &'static str, is_warning: bool, message: String) {
        self.pending.push((reason, is_warning, message));
    }

    /// Publishes the pending messages, one Event for each reason.
    pub(super) fn flush(&mut self, distributor: &Distributor, events: &DistributorEvents) {
        if self.pending.is_empty() || self.published.is_some_and(|at| at.elapsed() < EVENT_INTERVAL) {
            return;
        }
        self.published = Some(Instant::now());
        let pending = std::mem::take(&mut self.pending);
        for reason in ["Rebalance", "TakeBack"] {
            let of_reason = || pending.iter().filter(|(of, ..)| *of == reason);
            let mut messages: Vec<&str> =
                of_reason().take(MAX_MESSAGES).map(|(.., message)| &**message).collect();
            let more = of_reason().count().saturating_sub(MAX_MESSAGES);
            let more = format!("and {more} more").repeat(usize::from(more > 0));
            if !more.is_empty() {
                messages.push(&more);
            }
            if !messages.is_empty() {
                let is_warning = of_reason().any(|(_, is_warning, _)| *is_warning);
                events.publish(distributor, is_warning, reason, messages.join("; "));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::Error;
    use podshaper_testing::InMemoryApiServer;

    use super::*;

    /// The scheduler binds the pod between the decision and the eviction.
    #[tokio::test]
    async fn pod_that_has_changed_is_not_evicted() {
        const POD: &str = "/api/v1/namespaces/shop/pods/web-1";
        let server = InMemoryApiServer::default();
        server.put(POD, json!({"spec": {}}));
        let version = || server.get(POD)["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let decided = version();
        server.patch(POD, &json!({"spec": {"nodeName": "node"}}));
        let error = evict(&server.client(), "shop", "web-1", None, decided).await.unwrap_err();
        assert!(matches!(error, Error::Api(failure) if failure.code == 409));
        assert!(server.get(POD).is_object());
        evict(&server.client(), "shop", "web-1", None, version()).await.unwrap();
        assert!(server.get(POD).is_null());
    }
}
